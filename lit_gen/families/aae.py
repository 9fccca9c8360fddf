"""Adversarial autoencoder: a discriminator tells codes from points of a prior, and the encoder deceives it.

Sources: Makhzani et al. 2016, "Adversarial autoencoders", arXiv:1511.05644; as WAE-GAN: Tolstikhin et al.
2018, arXiv:1711.01558, algorithm 1, with the non-saturating loss of the encoder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_gen.core.types import Batch, Params, Phase, Task, Terms, Turn
from lit_gen.families.base import LatentGenerator
from lit_gen.nets.priors import STANDARD_NORMAL, Prior


class AAE(LatentGenerator):
    """Two turns per minibatch: the autoencoder's, then the discriminator's.

    Args:
        discriminator: code [B, Z] and condition -> logit of being drawn from the prior, [B].
        weight: of -log Dis(E(x)) beside the reconstruction error of one image.
        prior: (n, size, device) -> [n, size].
        discriminator_optimizer: None is the model's own.
    """

    def __init__(
        self,
        discriminator: nn.Module,
        weight: Annotated[float, Ge(0)] = 1.0,
        prior: Prior = STANDARD_NORMAL,
        discriminator_optimizer: Callable[[Params], Optimizer] | None = None,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.discriminator = discriminator
        self.weight = weight
        self.prior = prior
        self.make_discriminator_optimizer = discriminator_optimizer

    def training_phases(self, task: Task) -> tuple[Phase, ...]:
        turns = (
            Turn("autoencoder", self.autoencoder_loss, (self.encoder, self.decoder)),
            Turn(
                "discriminator",
                self.discriminator_loss,
                (self.discriminator,),
                self.make_discriminator_optimizer,
            ),
        )
        return (Phase("train", turns),)

    def autoencoder_loss(self, batch: Batch, progress: float) -> Terms:
        condition = self.one_hot(label=batch.label, task=batch.task)
        code = self.encoder(batch.image, condition)
        error = self.reconstruction(self.decoder(code, condition), batch.image).mean()
        penalty = F.softplus(-self.discriminator(code, condition)).mean()
        return {"loss": error + self.weight * penalty, "reconstruction": error, "penalty": penalty}

    def discriminator_loss(self, batch: Batch, progress: float) -> Terms:
        condition = self.one_hot(label=batch.label, task=batch.task)
        of_codes = self.discriminator(self.encode(batch), condition)
        of_prior = self.discriminator(self.draw_codes(len(of_codes), condition), condition)
        right = torch.cat([of_codes < 0, of_prior > 0]).float().mean()
        return {"loss": F.softplus(of_codes).mean() + F.softplus(-of_prior).mean(), "accuracy": right}

    def evaluate(self, batch: Batch) -> Terms:
        return self.autoencoder_loss(batch, 1.0)

    def draw_codes(self, n: int, condition: Tensor | None) -> Tensor:
        return self.prior(n, self.latent_size, self.device)
