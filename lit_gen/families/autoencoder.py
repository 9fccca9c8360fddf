"""Deterministic autoencoder: plain, denoising, sparse or contractive by what it is given.

Sources: Hinton & Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks"; Vincent et
al. 2008, "Extracting and composing robust features with denoising autoencoders".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn

from lit_gen.core.module import LitGenerator
from lit_gen.core.types import Batch, Phase, Positive, Task, Terms
from lit_gen.families.density import LatentDensity, PriorKind
from lit_gen.losses.reconstruction import squared_error


class Autoencoder(LitGenerator):
    """A code per image, and the image back from it: undercomplete if it is narrow, overcomplete if wide.

    Nothing in training makes codes follow a known distribution. Images are drawn from a density that is
    fitted to the codes afterwards, in a phase of its own; until then, so also when samples are scored in
    training, codes come from N(0, I). The density is one of codes before the activation: what is drawn from
    it and activated is a valid code, in (0, 1) behind a sigmoid, sparse behind KeepLargest.

    Args:
        encoder: image [B, C, S, S] -> [B, latent_size].
        decoder: code [B, latent_size] -> image [B, C, S, S] in [-1, 1].
        reconstruction: (image, target) -> one value per image.
        activation: of the code, [B, Z] -> [B, Z]; None leaves it as the encoder gives it.
        corruption: image -> image. The encoder sees corrupted images, the target stays clean; to denoise
            given images, reconstruct them.
        penalty: (code, image, encoder with activation) -> one value per image, or one for the batch.
        penalty_weight: of the penalty beside the reconstruction.
        prior: what codes are drawn from: N(0, I), or a density fitted after training, one Gaussian or a
            mixture.
        num_components: of the mixture.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_size: Positive,
        reconstruction: Callable[[Tensor, Tensor], Tensor] = squared_error,
        activation: nn.Module | None = None,
        corruption: Callable[[Tensor], Tensor] | None = None,
        penalty: Callable[[Tensor, Tensor, nn.Module], Tensor] | None = None,
        penalty_weight: Annotated[float, Ge(0)] = 1.0,
        prior: PriorKind = "standard_normal",
        num_components: Positive = 10,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.encoder, self.decoder = encoder, decoder
        self.activation = nn.Identity() if activation is None else activation
        self.density = LatentDensity(latent_size, prior, num_components)
        self.reconstruction, self.corruption = reconstruction, corruption
        self.penalty, self.penalty_weight = penalty, penalty_weight

    def phases(self, task: Task) -> tuple[Phase, ...]:
        return (*super().phases(task), *self.density.phases(lambda batch: self.encoder(batch.image)))

    def step(self, batch: Batch, progress: float) -> Terms:
        image = batch.image if self.corruption is None else self.corruption(batch.image)
        code = self.activation(self.encoder(image))
        error = self.reconstruction(self.decoder(code), batch.image).mean()
        if self.penalty is None:
            return {"loss": error, "reconstruction": error}
        penalty = self.penalty(code, image, nn.Sequential(self.encoder, self.activation)).mean()
        return {
            "loss": error + self.penalty_weight * penalty,
            "reconstruction": error,
            "penalty": penalty,
        }

    def evaluate(self, batch: Batch) -> Terms:
        """As in training, and for a denoising autoencoder also the error on images that nothing corrupted."""
        terms = self.step(batch, 1.0)
        if self.corruption is None:
            return terms
        clean = self.reconstruction(self.reconstruct(batch), batch.image).mean()
        return terms | {"clean_reconstruction": clean}

    @torch.no_grad()
    def sample(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        self.refuse(label=label, task=task)
        return self.decoder(self.activation(self.density.sample(n)))

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        return self.activation(self.encoder(batch.image))

    @torch.no_grad()
    def decode(self, codes: Tensor, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        return self.decoder(codes)

    @torch.no_grad()
    def reconstruct(self, batch: Batch) -> Tensor:
        return self.decode(self.encode(batch))
