"""Deterministic autoencoder: plain, denoising, sparse or contractive by what it is given.

Sources: Hinton & Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks"; Vincent et
al. 2008, "Extracting and composing robust features with denoising autoencoders".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from lit_gen.core.module import OptimizerFactory, ScheduleFactor
from lit_gen.core.types import Batch, ImageSpec, Phase, Positive, Task, Terms
from lit_gen.families.base import ADAM, LatentGenerator, Reconstruction
from lit_gen.families.density import ExPost
from lit_gen.losses.reconstruction import squared_error


class Autoencoder(LatentGenerator):
    """A code per image, and the image back from it: undercomplete if it is narrow, overcomplete if wide.

    Nothing in training makes codes follow a known distribution. Images are drawn from a density that is
    fitted to the codes afterwards, in a phase of its own; until then, so also when samples are scored in
    training, codes come from N(0, I). The density is one of codes before the activation: what is drawn from
    it and activated is a valid code, in (0, 1) behind a sigmoid, sparse behind KeepLargest.

        >>> model = Autoencoder(ImageSpec(1, 8, 10), latent_size=5, activation=nn.Sigmoid())
        >>> image = torch.rand(4, 1, 8, 8) * 2 - 1
        >>> batch = Batch(image, *torch.zeros(3, 4, dtype=torch.long))
        >>> sorted(model.step(batch, progress=0.0))
        ['loss', 'reconstruction']
        >>> list(model.encode(batch).shape)
        [4, 5]

    Args:
        encoder: image [B, C, S, S] -> [B, latent_size]; None is a dense one.
        decoder: code [B, latent_size] -> image [B, C, S, S] in [-1, 1]; None is a dense one.
        reconstruction: (image, target) -> one value per image.
        activation: of the code, [B, Z] -> [B, Z]; None leaves it as the encoder gives it.
        corruption: image -> image. The encoder sees corrupted images, the target stays clean; to denoise
            given images, reconstruct them.
        penalty: (code, image, encoder with activation) -> one value per image, or one for the batch.
        penalty_weight: of the penalty beside the reconstruction.
        ex_post: what codes are drawn from: N(0, I) ("none"), or a density fitted after training, one Gaussian
            or a mixture.
        num_components: of the mixture.
    """

    def __init__(
        self,
        spec: ImageSpec,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        latent_size: Positive = 16,
        reconstruction: Reconstruction = squared_error,
        activation: nn.Module | None = None,
        corruption: Callable[[Tensor], Tensor] | None = None,
        penalty: Callable[[Tensor, Tensor, nn.Module], Tensor] | None = None,
        penalty_weight: Annotated[float, Ge(0)] = 1.0,
        ex_post: ExPost = "none",
        num_components: Positive = 10,
        optimizer: OptimizerFactory = ADAM,
        schedule: ScheduleFactor | None = None,
    ) -> None:
        super().__init__(
            spec, encoder, decoder, latent_size, reconstruction, ex_post=ex_post,
            num_components=num_components, optimizer=optimizer, schedule=schedule,
        )  # fmt: skip
        self.activation = nn.Identity() if activation is None else activation
        self.corruption = corruption
        self.penalty, self.penalty_weight = penalty, penalty_weight

    def phases(self, task: Task) -> tuple[Phase, ...]:
        codes = self.density.phases(lambda batch: self.encoder(batch.image))
        return (*self.training_phases(task), *codes)

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
    def sample_codes(
        self, n: int, temperature: float = 1.0, *, label: Tensor | None = None, task: Tensor | None = None
    ) -> Tensor:
        return self.activation(self.density.sample(n, temperature))

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        return self.activation(self.encoder(batch.image))

    @torch.no_grad()
    def decode(self, codes: Tensor, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        return self.decoder(codes)
