"""End-to-end Sinkhorn autoencoder: no prior is imposed on codes, a noise generator learns where they lie.

Source: Deja et al. 2020, "End-to-end Sinkhorn autoencoder with noise generator", arXiv:2006.06704.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn

from lit_gen.core.module import OptimizerFactory, ScheduleFactor
from lit_gen.core.types import Batch, ImageSpec, NonNegative, Positive, Terms
from lit_gen.families.base import ADAM, ConditionKind, LatentGenerator, Reconstruction
from lit_gen.families.density import ExPost
from lit_gen.losses.latent_penalties import LatentPenalty
from lit_gen.losses.reconstruction import squared_error
from lit_gen.losses.sinkhorn import SinkhornDivergence
from lit_gen.nets.noise_generator import NoiseGenerator
from lit_gen.nets.priors import STANDARD_NORMAL, Prior

_SINKHORN = SinkhornDivergence()


class SinkhornAE(LatentGenerator):
    """Encoder, decoder and noise generator are trained together, by one optimizer.

    The Sinkhorn divergence between a minibatch of codes and as many generated ones pulls at both. With a
    condition only the generator is told; the divergence compares codes together with their conditions, so
    that a generated code is held against codes of images of the same condition.

        >>> model = SinkhornAE(ImageSpec(1, 8, 10))
        >>> list(model.sample(3).shape)
        [3, 1, 8, 8]

    Args:
        generator: noise [B, noise_size] and condition [B, K] or None -> code [B, latent_size]; None is a
            `NoiseGenerator`.
        noise: (n, size, device) -> [n, size].
        divergence: (codes [N, D], generated codes [N, D]) -> scalar. That of minibatches is least where
            generated codes vary less than codes, as samples then do; `SinkhornDivergence(unbiased=True)` has
            no such pull.
        weight: of the divergence beside the reconstruction error of one image. The divergence also falls
            when all codes shrink; with too large a weight they end below its blur, where it tells nothing
            apart.
        condition_scale: length of the condition's vector beside a code.
    """

    compares_images = True
    nets_are_told = False

    def __init__(
        self,
        spec: ImageSpec,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        latent_size: Positive = 8,
        generator: nn.Module | None = None,
        noise_size: Positive = 10,
        noise: Prior = STANDARD_NORMAL,
        divergence: LatentPenalty = _SINKHORN,
        weight: Annotated[float, Ge(0)] = 1.0,
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
        if not divergence.takes_samples:
            raise ValueError(
                f"SinkhornAE: divergence={divergence}, which looks at codes alone; take one that compares "
                "them with generated codes, such as SinkhornDivergence, MMD or SlicedWasserstein"
            )
        if generator is None:
            generator = NoiseGenerator(noise_size, latent_size, condition_size=self.condition_size)
        self.generator, self.noise_size = generator, noise_size
        self.noise = noise
        self.divergence = divergence
        self.weight, self.condition_scale = weight, condition_scale

    def step(self, batch: Batch, progress: float) -> Terms:
        return self.penalised(batch, self.divergence, self.weight, self.condition_scale)

    def draw_codes(self, n: int, condition: Tensor | None) -> Tensor:
        return self.generator(self.noise(n, self.noise_size, self.device), condition)
