"""Wasserstein autoencoder: a deterministic autoencoder whose codes, taken together, follow a prior.

Which model it is depends on penalty and prior: WAE-MMD (Tolstikhin et al. 2018, arXiv:1711.01558), sliced
Wasserstein autoencoder (Kolouri et al. 2018, arXiv:1804.01947), Cramer-Wold autoencoder (Knop et al. 2020,
arXiv:1805.09235), Sinkhorn autoencoder (Patrini et al. 2019, arXiv:1810.01118).
"""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge
from torch import Tensor

from lit_gen.core.types import Batch, Terms
from lit_gen.families.base import LatentGenerator, penalty_of
from lit_gen.losses.latent_penalties import LatentPenalty
from lit_gen.nets.priors import STANDARD_NORMAL, Prior, StandardNormal


class WAE(LatentGenerator):
    """Penalises the distance between a minibatch of codes and as many new points of the prior.

    With a condition, codes and points are compared together with it, so that the codes of each class follow
    the prior; a penalty that takes no points looks at all codes alike.

    Args:
        penalty: (codes [N, Z], points of the prior [N, Z]) -> scalar, an object of
            `lit_gen.losses.latent_penalties` or `lit_gen.losses.sinkhorn`.
        weight: of the penalty beside the reconstruction error of one image.
        prior: (n, size, device) -> [n, size].
        condition_scale: length of the condition's vector beside a code.
    """

    def __init__(
        self,
        penalty: LatentPenalty,
        weight: Annotated[float, Ge(0)] = 1.0,
        prior: Prior = STANDARD_NORMAL,
        condition_scale: Annotated[float, Ge(0)] = 1.0,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        if not penalty.takes_samples and not isinstance(prior, StandardNormal):
            raise ValueError(
                f"WAE: prior={prior} with penalty={penalty}, which measures the distance from N(0, I) only. "
                "Take prior=StandardNormal, or a penalty that compares codes with points of the prior"
            )
        self.penalty = penalty
        self.prior = prior
        self.weight, self.condition_scale = weight, condition_scale

    def step(self, batch: Batch, progress: float) -> Terms:
        condition = self.one_hot(label=batch.label, task=batch.task)
        code = self.encoder(batch.image, condition)
        error = self.reconstruction(self.decoder(code, condition), batch.image).mean()
        drawn = self.draw_codes(len(code), condition) if self.penalty.takes_samples else None
        penalty = penalty_of(self.penalty, code, drawn, condition, self.condition_scale)
        return {"loss": error + self.weight * penalty, "reconstruction": error, "penalty": penalty}

    def draw_codes(self, n: int, condition: Tensor | None) -> Tensor:
        return self.prior(n, self.latent_size, self.device)
