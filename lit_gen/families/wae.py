"""Wasserstein autoencoder: a deterministic autoencoder whose codes, taken together, follow a prior.

Which model it is depends on penalty and prior: WAE-MMD (Tolstikhin et al. 2018, arXiv:1711.01558), sliced
Wasserstein autoencoder (Kolouri et al. 2018, arXiv:1804.01947), Cramer-Wold autoencoder (Knop et al. 2020,
arXiv:1805.09235), Sinkhorn autoencoder (Patrini et al. 2019, arXiv:1810.01118).
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import nn

from lit_gen.core.module import OptimizerFactory, ScheduleFactor
from lit_gen.core.types import Batch, ImageSpec, NonNegative, Positive, Terms
from lit_gen.families.base import ADAM, ConditionKind, LatentGenerator, Reconstruction
from lit_gen.families.density import ExPost
from lit_gen.losses.latent_penalties import MMD, LatentPenalty
from lit_gen.losses.reconstruction import squared_error
from lit_gen.nets.priors import STANDARD_NORMAL, Prior, StandardNormal

_MMD = MMD()


class WAE(LatentGenerator):
    """Penalises the distance between a minibatch of codes and as many new points of the prior.

    With a condition, codes and points are compared together with it, so that the codes of each class follow
    the prior; a penalty that takes no points looks at all codes alike.

        >>> model = WAE(ImageSpec(1, 8, 10), weight=10.0)
        >>> list(model.sample(3).shape)
        [3, 1, 8, 8]

    Args:
        penalty: (codes [N, Z], points of the prior [N, Z]) -> scalar, an object of
            `lit_gen.losses.latent_penalties` or `lit_gen.losses.sinkhorn`.
        weight: of the penalty beside the reconstruction error of one image.
        prior: (n, size, device) -> [n, size].
        condition_scale: length of the condition's vector beside a code.
    """

    compares_images = True

    def __init__(
        self,
        spec: ImageSpec,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        latent_size: Positive = 8,
        penalty: LatentPenalty = _MMD,
        weight: Annotated[float, Ge(0)] = 1.0,
        prior: Prior = STANDARD_NORMAL,
        reconstruction: Reconstruction = squared_error,
        condition: ConditionKind = "none",
        condition_size: NonNegative | None = None,
        condition_scale: Annotated[float, Ge(0)] = 1.0,
        ex_post: ExPost = "none",
        num_components: Positive = 10,
        optimizer: OptimizerFactory = ADAM,
        schedule: ScheduleFactor | None = None,
    ) -> None:
        super().__init__(
            spec, encoder, decoder, latent_size, reconstruction, condition, condition_size, ex_post,
            num_components, optimizer, schedule,
        )  # fmt: skip
        if not penalty.takes_samples and not isinstance(prior, StandardNormal):
            raise ValueError(
                f"WAE: prior={prior} with penalty={penalty}, which measures the distance from N(0, I) only. "
                "Take prior=StandardNormal, or a penalty that compares codes with points of the prior"
            )
        self.penalty = penalty
        self.prior = prior
        self.weight, self.condition_scale = weight, condition_scale

    def step(self, batch: Batch, progress: float) -> Terms:
        return self.penalised(batch, self.penalty, self.weight, self.condition_scale)
