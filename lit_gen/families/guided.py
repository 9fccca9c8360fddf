"""Samplers that are steered by the model's own classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from lit_gen.core.module import LitGenerator
from lit_gen.core.types import NonNegative
from lit_gen.diffusion.outputs import parts, target
from lit_gen.diffusion.solvers import Denoiser
from lit_gen.families.diffusion import Diffusion
from lit_gen.families.samplers import DiffusionSampler
from lit_gen.nets.unet import Features


@dataclass(frozen=True)
class GuidedSampler(DiffusionSampler):
    """Goes down the cross-entropy of what is asked for, at every step. Of joint diffusion models.

    By "representations" every activation that the classifier sees is moved before the rest of the network
    goes on from it (Deja et al. 2023, arXiv:2301.13622): every channel by one number, since the classifier
    sees means, and normalisation in groups of few channels takes part of that away again. The others move
    x_t, against the gradient of the classifier of "noisy" x_t (Dhariwal & Nichol 2021, arXiv:2105.05233) or
    of the "denoised" image, which a classifier of clean images knows (Cywinski et al. 2024,
    arXiv:2403.03938).

    Args:
        strength: of the step; by representations a hundred or more, of the others a few, with clip=true.
        by: what is moved.
        ascends: the sign of the authors' code, which moves away.
        present, absent: attributes that every image is to have or not to have, of a model with
            attributes=true; without them samples are asked for by their label.
    """

    strength: Annotated[float, Ge(0)] = 1000.0
    by: Literal["representations", "noisy", "denoised"] = "representations"
    ascends: bool = False
    present: Sequence[NonNegative] = ()
    absent: Sequence[NonNegative] = ()

    @property
    def asks(self) -> frozenset[str]:
        """Conditions of samples."""
        return frozenset() if self.present or self.absent else frozenset({"label"})

    def check(self, model: LitGenerator) -> None:
        super().check(model)
        if not hasattr(model, "miss"):
            raise ValueError(
                f"{type(model).__name__} has no classifier that could guide; use model=joint_diffusion, or "
                "sampler.guidance of a model with a condition"
            )
        named = [*self.present, *self.absent]
        if named and not model.attributes:
            raise ValueError(
                "present, absent: this model tells classes apart, no attributes (attributes=false)"
            )
        if max(named, default=-1) >= model.spec.num_classes or len(set(named)) < len(named):
            raise ValueError(
                f"present={list(self.present)}, absent={list(self.absent)}: attributes are numbers from 0 to "
                f"{model.spec.num_classes - 1}, and each is named once"
            )

    def denoiser(self, model: LitGenerator, label: Tensor | None, task: Tensor | None) -> Denoiser:
        if label is None and self.asks:
            return super().denoiser(model, label, task)
        move = self._moved_representations if self.by == "representations" else self._moved_noise

        def says(x: Tensor, time: Tensor) -> tuple[Tensor, None]:
            return move(model, x, time, self._wanted(model, label, len(x)).to(x.device)), None

        return model.denoiser_of(says, self.clip)

    def _wanted(self, model: LitGenerator, label: Tensor | None, count: int) -> Tensor:
        if self.asks:
            return model.wanted(label)
        wanted = torch.full((count, model.spec.num_classes), -1.0)
        wanted[:, list(self.present)], wanted[:, list(self.absent)] = 1.0, 0.0
        return wanted

    def _moved_representations(self, model: LitGenerator, x: Tensor, t: Tensor, wanted: Tensor) -> Tensor:
        features = model.features_of(x, t)
        maps = [*features.skips, features.middle]

        def logits(*maps: Tensor) -> Tensor:
            return model.head_of(Features(maps[:-1], maps[-1], features.told), t)

        slopes = self._slopes(lambda *maps: model.miss(logits(*maps), wanted), maps)
        maps = [each - slope for each, slope in zip(maps, slopes, strict=True)]
        return model.net.rest(Features(tuple(maps[:-1]), maps[-1], features.told))

    def _moved_noise(self, model: LitGenerator, x: Tensor, t: Tensor, wanted: Tensor) -> Tensor:
        def miss(x: Tensor) -> Tensor:
            if self.by == "noisy":
                return model.miss(model.logits(x, t), wanted)
            return model.miss(model.classify(seen_in(model, x, t, None)), wanted)

        (slope,) = self._slopes(miss, [x])
        return with_noise(model, x, t, None, slope)

    def _slopes(self, miss: Callable[..., Tensor], at: Sequence[Tensor]) -> list[Tensor]:
        """`slopes`, times the strength, with the sign that is asked for."""
        strength = -self.strength if self.ascends else self.strength
        return [strength * slope for slope in slopes(miss, at)]


def slopes(miss: Callable[..., Tensor], at: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The gradient of the sum of `miss`, which is called with `at`."""
    with torch.enable_grad():
        leaves = [each.detach().requires_grad_() for each in at]
        return torch.autograd.grad(miss(*leaves).sum(), leaves)


def seen_in(model: Diffusion, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
    """The image that the model sees in x_t, kept within [-1, 1]."""
    said, _ = model.said(x, t, condition)
    return parts(said, model.output, model.path, t, x).image.clamp(-1, 1)


def with_noise(model: Diffusion, x: Tensor, t: Tensor, condition: Tensor | None, slope: Tensor) -> Tensor:
    """The model's output at x_t where its noise has sigma_t times the slope [B, C, S, S] more in it."""
    alpha, sigma = (level.view(-1, 1, 1, 1) for level in model.path.levels(t))
    image, noise = parts(model.said(x, t, condition)[0], model.output, model.path, t, x)
    # x_t stays what it is, so that the image gives way as the noise is moved; at an end of noise alone there
    # is nothing to divide by.
    image = image - sigma**2 / alpha.clamp(min=1e-3) * slope
    return target(model.output, model.path, t, image, noise + sigma * slope)
