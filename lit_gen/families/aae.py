"""Adversarial autoencoder: a discriminator tells codes from points of a prior, and the encoder deceives it.

Sources: Makhzani et al. 2016, "Adversarial autoencoders", arXiv:1511.05644; as WAE-GAN: Tolstikhin et al.
2018, arXiv:1711.01558, algorithm 1, with the non-saturating loss of the encoder.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import nn

from lit_gen.core.module import OptimizerFactory, ScheduleFactor
from lit_gen.core.types import Batch, ImageSpec, NonNegative, Phase, Positive, Task, Terms, Turn
from lit_gen.families.base import ADAM, ConditionKind, LatentGenerator, Reconstruction
from lit_gen.families.density import ExPost
from lit_gen.losses.reconstruction import squared_error
from lit_gen.nets.latent_discriminator import LatentDiscriminator
from lit_gen.nets.priors import STANDARD_NORMAL, Prior


class AAE(LatentGenerator):
    """Two turns per minibatch: the autoencoder's, then the discriminator's.

        >>> model = AAE(ImageSpec(1, 8, 10), latent_size=2)
        >>> list(model.sample(3).shape)
        [3, 1, 8, 8]

    Args:
        discriminator: code [B, Z] and condition -> logit of being drawn from the prior, [B]; None is a
            `LatentDiscriminator`.
        weight: of -log Dis(E(x)) beside the reconstruction error of one image.
        prior: (n, size, device) -> [n, size].
        discriminator_optimizer: None is the model's own.
    """

    def __init__(
        self,
        spec: ImageSpec,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        latent_size: Positive = 8,
        discriminator: nn.Module | None = None,
        weight: Annotated[float, Ge(0)] = 1.0,
        prior: Prior = STANDARD_NORMAL,
        reconstruction: Reconstruction = squared_error,
        condition: ConditionKind = "none",
        condition_size: NonNegative | None = None,
        ex_post: ExPost = "none",
        num_components: Positive = 10,
        optimizer: OptimizerFactory = ADAM,
        discriminator_optimizer: OptimizerFactory | None = None,
        schedule: ScheduleFactor | None = None,
    ) -> None:
        super().__init__(
            spec, encoder, decoder, latent_size, reconstruction, condition, condition_size, ex_post,
            num_components, optimizer, schedule,
        )  # fmt: skip
        if discriminator is None:
            discriminator = LatentDiscriminator(latent_size, condition_size=self.condition_size)
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
