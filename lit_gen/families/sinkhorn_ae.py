"""End-to-end Sinkhorn autoencoder: no prior is imposed on codes, a noise generator learns where they lie.

Source: Deja et al. 2020, "End-to-end Sinkhorn autoencoder with noise generator", arXiv:2006.06704.
"""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge
from torch import Tensor, nn

from lit_gen.core.types import Batch, Positive, Terms
from lit_gen.families.base import LatentGenerator, penalty_of
from lit_gen.losses.latent_penalties import LatentPenalty
from lit_gen.nets.priors import STANDARD_NORMAL, Prior


class SinkhornAE(LatentGenerator):
    """Encoder, decoder and noise generator are trained together, by one optimizer.

    The Sinkhorn divergence between a minibatch of codes and as many generated ones pulls at both. With a
    condition only the generator is told; the divergence compares codes together with their conditions, so
    that a generated code is held against codes of images of the same condition.

    Args:
        generator: noise [B, noise_size] and condition [B, K] or None -> code [B, latent_size].
        noise: (n, size, device) -> [n, size].
        divergence: (codes [N, D], generated codes [N, D]) -> scalar.
        weight: of the divergence beside the reconstruction error of one image. The divergence also falls
            when all codes shrink; with too large a weight they end below its blur, where it tells nothing
            apart.
        condition_scale: length of the condition's vector beside a code.
    """

    nets_are_told = False

    def __init__(
        self,
        generator: nn.Module,
        noise_size: Positive,
        divergence: LatentPenalty,
        noise: Prior = STANDARD_NORMAL,
        weight: Annotated[float, Ge(0)] = 1.0,
        condition_scale: Annotated[float, Ge(0)] = 1.0,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        if not divergence.takes_samples:
            raise ValueError(
                f"SinkhornAE: divergence={divergence}, which looks at codes alone; take one that compares "
                "them with generated codes, such as SinkhornDivergence, MMD or SlicedWasserstein"
            )
        self.generator, self.noise_size = generator, noise_size
        self.noise = noise
        self.divergence = divergence
        self.weight, self.condition_scale = weight, condition_scale

    def step(self, batch: Batch, progress: float) -> Terms:
        condition = self.one_hot(label=batch.label, task=batch.task)
        code = self.encoder(batch.image, None)
        error = self.reconstruction(self.decoder(code, None), batch.image).mean()
        generated = self.draw_codes(len(code), condition)
        penalty = penalty_of(self.divergence, code, generated, condition, self.condition_scale)
        return {"loss": error + self.weight * penalty, "reconstruction": error, "penalty": penalty}

    def draw_codes(self, n: int, condition: Tensor | None) -> Tensor:
        return self.generator(self.noise(n, self.noise_size, self.device), condition)
