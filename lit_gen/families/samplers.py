"""Samplers: of models that decode codes, and of those that take noise away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor
from tqdm import tqdm

from lit_gen.core.module import LitGenerator
from lit_gen.core.random import processes
from lit_gen.core.types import Positive
from lit_gen.diffusion.outputs import parts, target
from lit_gen.diffusion.solvers import DDIM, Ancestral, Denoiser, Solver, Spacing, way
from lit_gen.families.diffusion import Diffusion
from lit_gen.losses.likelihood import PixelLikelihood


@dataclass(frozen=True)
class LatentSampler:
    """Decodes what `sample_codes` draws; a lower temperature gives fewer and more typical images.

    Args:
        temperature: factor of codes from a prior around 0; of deviations from the means where codes come from
            a density that was fitted to them; 1 is the model's own way.
        pixels: "mean" gives the decoder's images, "draw" pixels from the likelihood around them: black or
            white ones of a Bernoulli likelihood, to be compared with black and white images.
    """

    temperature: Annotated[float, Ge(0)] = 1.0
    pixels: Literal["mean", "draw"] = "mean"

    def check(self, model: LitGenerator) -> None:
        if not hasattr(model, "sample_codes"):
            raise ValueError(f"{type(model).__name__} draws no codes; use sampler=default")
        if self.pixels == "draw" and not isinstance(getattr(model, "reconstruction", None), PixelLikelihood):
            raise ValueError(
                f"pixels=draw: this {type(model).__name__} has no likelihood of pixels; use pixels=mean, or "
                "train it with a module of lit_gen.losses.likelihood as its reconstruction, as vae_bernoulli "
                "and vae_gaussian do"
            )

    def __call__(
        self, model: LitGenerator, n: int, *, label: Tensor | None = None, task: Tensor | None = None
    ) -> Tensor:
        codes = model.sample_codes(n, self.temperature, label=label, task=task)
        image = model.decode(codes, label=label, task=task)
        return model.reconstruction.draw(image) if self.pixels == "draw" else image


@dataclass(frozen=True)
class DiffusionSampler:
    """Draws images from noise, in steps.

    Args:
        solver: an object of `lit_gen.diffusion.solvers`.
        steps: of the solver; None takes every step of a chain.
        spacing: of its times.
        guidance: w of classifier-free guidance, (1 + w) told - w untold (Ho & Salimans 2022,
            arXiv:2207.12598, eq. 6): 0 is none.
        clip: the image that the model sees in x_t is kept within [-1, 1] at every step.
        progress: shows a bar over the steps, where there is a terminal.
    """

    solver: Solver = field(default_factory=DDIM)
    steps: Positive | None = 50
    spacing: Spacing = "even"
    guidance: Annotated[float, Ge(0)] = 0.0
    clip: bool = False
    progress: bool = True

    def check(self, model: LitGenerator) -> None:
        if not hasattr(model, "denoiser"):
            raise ValueError(f"{type(model).__name__} takes no noise away; use sampler=default")
        self.solver.check(model.path)
        if self.steps is None and not hasattr(model.path, "num_steps"):
            raise ValueError(
                f"steps=null: {type(model.path).__name__} is no chain with a number of steps; give one"
            )
        model.way(self.num_steps(model), self.spacing)
        if (
            isinstance(self.solver, Ancestral)
            and self.solver.variance == "learned"
            and not model.learns_variance
        ):
            raise ValueError(
                "solver.variance=learned: this model has model.learns_variance=false; use large or small"
            )
        if self.guidance and not (model.conditions and model.drop_condition):
            raise ValueError(
                f"guidance={self.guidance}: this {type(model).__name__} was trained "
                + ("without model.drop_condition" if model.conditions else "without a condition")
                + "; use guidance=0, or train it with condition=label and drop_condition=0.1"
            )

    def __call__(
        self, model: LitGenerator, n: int, *, label: Tensor | None = None, task: Tensor | None = None
    ) -> Tensor:
        x = model.path.prior(n, model.spec.shape, model.device)
        return self.denoised(model, x, label=label, task=task).clamp(-1, 1)

    def denoised(
        self,
        model: LitGenerator,
        x: Tensor,
        start: float | None = None,
        *,
        label: Tensor | None = None,
        task: Tensor | None = None,
    ) -> Tensor:
        """x without its noise.

        Args:
            x: x_t [B, C, S, S] at the path's end, or at `start`; from there there are no more steps than a
                chain has left.
        """
        steps = self.num_steps(model)
        if start is not None and hasattr(model.path, "num_steps"):
            steps = min(steps, int(start))
        places = model.way(steps, self.spacing, start)
        denoiser = self.denoiser(model, label, task)
        course = self.solver.course(denoiser, x, model.path, places)
        is_quiet = None if self.progress and processes()[1] == 0 else True
        for x in tqdm(course, "denoising", len(places) - 1, leave=False, disable=is_quiet):  # noqa: B007
            pass
        return x

    def denoiser(self, model: LitGenerator, label: Tensor | None, task: Tensor | None) -> Denoiser:
        """What the solver asks at every step."""
        return model.denoiser(self.guidance, self.clip, label=label, task=task)

    def num_steps(self, model: LitGenerator) -> int:
        return model.path.num_steps if self.steps is None else self.steps


@dataclass(frozen=True)
class JoinedSampler:
    """A model's own steps down to the noise of another one's first step, which takes away the rest: a
    diffusion model and a denoiser that were trained apart, on other data perhaps. Source: Deja et al. 2022,
    arXiv:2206.00070, section 5.

    Args:
        sampler: of the way down.
        denoiser: a diffusion model or DAED whose path is a chain; only its first step is used.
    """

    sampler: DiffusionSampler
    denoiser: LitGenerator

    def check(self, model: LitGenerator) -> None:
        self.sampler.check(model)
        for role, each in (("ckpt", model), ("denoiser", self.denoiser)):
            if not hasattr(getattr(each, "path", None), "num_steps"):
                raise ValueError(f"{role}: {type(each).__name__} has no chain of steps that could be joined")
        if self.denoiser.spec[:2] != model.spec[:2]:
            raise ValueError(
                f"denoiser: it works on {_size(self.denoiser)}, and the model draws {_size(model)}"
            )
        if self.denoiser.conditions:
            raise ValueError("denoiser: it takes a condition; use one that was trained with condition=none")

    def switch(self, model: LitGenerator) -> int:
        """The step of the model's chain whose noise is nearest to that of the denoiser's first step."""
        kept = 1 - self.denoiser.path.exact["beta"][1]
        return int(abs(model.path.exact["kept"][1:] - kept).argmin()) + 1

    def __call__(
        self, model: LitGenerator, n: int, *, label: Tensor | None = None, task: Tensor | None = None
    ) -> Tensor:
        k = self.switch(model)
        steps = min(self.sampler.num_steps(model), model.path.num_steps - k + 1)
        places = way(model.path, max(2, steps), self.sampler.spacing, last=float(k))[:-1]
        denoiser = model.denoiser(self.sampler.guidance, self.sampler.clip, label=label, task=task)
        x = model.path.prior(n, model.spec.shape, model.device)
        x = self.sampler.solver.solve(denoiser, x, model.path, places)
        return self.denoiser.denoiser()(x, 1.0).parts.image.clamp(-1, 1)


def joined(model: LitGenerator, denoiser: LitGenerator) -> JoinedSampler:
    """The model's own sampler, or DDIM in 50 steps, down to the denoiser's noise."""
    own = model.sampler if isinstance(model.sampler, DiffusionSampler) else DiffusionSampler()
    return JoinedSampler(own, denoiser)


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


def _size(model: LitGenerator) -> str:
    return f"images of {' x '.join(map(str, model.spec.shape))}"
