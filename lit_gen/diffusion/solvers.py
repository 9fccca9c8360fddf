"""From noise back to images: solvers ask a denoiser what x_t is made of, at falling times.

All are written in what every path has, levels of image and noise, so that any of them goes along any path but
the ancestral one, which is a chain's. Levels of the whole way are computed beforehand in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Le
from torch import Tensor

from lit_gen.diffusion.outputs import Parts
from lit_gen.diffusion.path import Path, Table

Spacing = Literal["even", "quadratic", "log_snr"]
"""Steps even in the path's own time (EDM's in sigma^(1 / rho)), in its square root, or log alpha / sigma."""


class Denoised(NamedTuple):
    """What a denoiser says of x_t."""

    parts: Parts
    variance: Tensor | None = None
    """Of a chain with learned variances, between the smallest (0) and the largest (1): [B, C, S, S]."""


Denoiser = Callable[[Tensor, float], Denoised]
"""(x_t [B, ...], t) -> image and noise in it."""


@dataclass(frozen=True)
class Place:
    """Levels at one time of the way, in float64."""

    t: float
    alpha: float
    sigma: float

    @property
    def log_ratio(self) -> float:
        """log(alpha / sigma), from minus infinity (noise) to infinity (an image)."""
        if self.sigma == 0:
            return math.inf
        return math.log(self.alpha / self.sigma) if self.alpha > 0 else -math.inf


def way(
    path: Path, steps: int, spacing: Spacing = "even", start: float | None = None, last: float | None = None
) -> list[Place]:
    """The steps + 1 places from the path's end to the image.

    Args:
        start: all times are scaled to begin here instead.
        last: the last time before the image; all others lie above it.

    Raises:
        ValueError: fewer than one step (two with `last`), or more than a chain has.
    """
    least = 1 if last is None else 2
    if steps < least:
        raise ValueError(f"steps={steps}: {least} are the least that lead from noise to images")
    count = steps + 1 - least
    part = torch.linspace(1, 0, count + 1, dtype=torch.float64)
    t = path.at(part.square() if spacing == "quadratic" else part)
    if spacing == "log_snr":
        t = _even_in_log_ratio(path, count)
    begin = path.end if start is None else start
    t *= begin / path.end
    if last is not None:
        t = torch.cat([last + t * (1 - last / begin), t.new_zeros(1)])
    if isinstance(path, Table):
        t = _whole(t, int(begin))
    t[-1] = 0.0
    alpha, sigma = path.levels(t)
    return [Place(*values) for values in zip(t.tolist(), alpha.tolist(), sigma.tolist(), strict=True)]


def _whole(t: Tensor, most: int) -> Tensor:
    """Falling whole times, each at least one below the one before it."""
    steps = len(t) - 1
    if steps > most:
        raise ValueError(f"steps={steps}: this chain has {most} steps from there; take at most as many")
    whole = t.round().long().tolist()
    for place in range(steps - 1, -1, -1):  # from the image up: room for those below
        whole[place] = max(whole[place], whole[place + 1] + 1)
    for place in range(steps + 1):  # from the noise down: not above it
        whole[place] = min(whole[place], most - place)
    return torch.tensor(whole, dtype=torch.float64)


def _even_in_log_ratio(path: Path, steps: int) -> Tensor:
    """Times at which log(alpha / sigma) is even between the path's ends, by halving intervals."""
    inner = torch.tensor([1.0, 1e-3], dtype=torch.float64)
    if isinstance(path, Table):
        inner[1] = 1 / path.num_steps
    alpha, sigma = path.levels(path.at(inner))
    low, high = (alpha.clamp(min=1e-4) / sigma).log().tolist()
    wanted = torch.linspace(low, high, steps, dtype=torch.float64) if steps > 1 else alpha.new_tensor([low])
    below, above = torch.zeros_like(wanted), torch.ones_like(wanted)
    for _ in range(60):
        middle = (below + above) / 2
        alpha, sigma = path.levels(path.at(middle))
        noisy = (alpha / sigma).log() <= wanted
        below, above = torch.where(noisy, below, middle), torch.where(noisy, middle, above)
    part = torch.cat([above, above.new_zeros(1)])
    part[0] = 1.0
    return path.at(part)


@dataclass(frozen=True)
class Solver:
    """Goes along a way; `solve` gives x at its end."""

    def check(self, path: Path) -> None:
        """ValueError for a path that it cannot go along."""
        return

    def solve(self, denoiser: Denoiser, x: Tensor, path: Path, places: list[Place]) -> Tensor:
        """From x [B, ...] at the first place to the last."""
        for x in self.course(denoiser, x, path, places):  # noqa: B007, B020 - the last one counts
            pass
        return x

    def course(self, denoiser: Denoiser, x: Tensor, path: Path, places: list[Place]) -> Iterator[Tensor]:
        """x after every step."""
        raise NotImplementedError


@dataclass(frozen=True)
class DDIM(Solver):
    """Takes the image and the noise that the denoiser names and mixes them anew. Source: Song et al. 2021,
    arXiv:2010.02502, eq. 12 and 16.

    Args:
        eta: part of the noise that is drawn anew: 0 is deterministic, 1 has the variance of a chain that
            takes these steps.
    """

    eta: Annotated[float, Ge(0), Le(1)] = 0.0

    def course(self, denoiser: Denoiser, x: Tensor, path: Path, places: list[Place]) -> Iterator[Tensor]:
        for here, there in _pairs(places):
            image, noise = denoiser(x, here.t).parts
            fresh = self.eta * _posterior_spread(here, there)
            x = there.alpha * image
            if there.sigma:
                x = x + math.sqrt(max(there.sigma**2 - fresh**2, 0.0)) * noise
            if fresh:
                x = x + fresh * torch.randn_like(x)
            yield x


@dataclass(frozen=True)
class Ancestral(Solver):
    """Goes back along the chain that the noise went, a step of the way at once. Source: Ho et al. 2020,
    arXiv:2006.11239, algorithm 2; of shortened ways Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 19.

    Args:
        variance: of each step: "large" is beta, "small" the posterior's, "learned" the network's between
            them. The step before the last has the posterior's instead of beta, as published.
    """

    variance: Literal["large", "small", "learned"] = "large"

    def check(self, path: Path) -> None:
        if not isinstance(path, Table):
            raise ValueError(
                f"solver=ancestral with path={type(path).__name__}: only a chain (Table) can be gone back "
                "step by step; use ddim, euler, heun or dpmpp"
            )

    def course(self, denoiser: Denoiser, x: Tensor, path: Path, places: list[Place]) -> Iterator[Tensor]:
        for here, there in _pairs(places):
            said = denoiser(x, here.t)
            step = posterior(here, there)
            x = step.of_image * said.parts.image + step.of_x * x
            if there.sigma:
                small, large = math.log(step.variance), math.log(step.beta)
                if self.variance == "learned":
                    log_variance = small + said.variance * (large - small)
                    x = x + (0.5 * log_variance).exp() * torch.randn_like(x)
                else:
                    log_variance = large if self.variance == "large" else small
                    x = x + math.exp(0.5 * log_variance) * torch.randn_like(x)
            yield x


@dataclass(frozen=True)
class Euler(Solver):
    """Straight lines in the path's own coordinates. With whatever path it is DDIM with eta=0, up to rounding:
    Karras et al. 2022, arXiv:2206.00364, appendix B.
    """

    def course(self, denoiser: Denoiser, x: Tensor, path: Path, places: list[Place]) -> Iterator[Tensor]:
        for here, there in _pairs(places):
            image, noise = denoiser(x, here.t).parts
            yield (x := _straight(x, image, noise, path, here, there))


@dataclass(frozen=True)
class Heun(Solver):
    """As Euler, with the mean of the directions at both ends of a step; its last step is Euler's. Source:
    Karras et al. 2022, arXiv:2206.00364, algorithm 1.
    """

    def course(self, denoiser: Denoiser, x: Tensor, path: Path, places: list[Place]) -> Iterator[Tensor]:
        for here, there in _pairs(places):
            first = denoiser(x, here.t).parts
            there_x = _straight(x, *first, path, here, there)
            if there.sigma:
                second = denoiser(there_x, there.t).parts
                both = ((a + b) / 2 for a, b in zip(first, second, strict=True))
                there_x = _straight(x, *both, path, here, there)
            yield (x := there_x)


@dataclass(frozen=True)
class DPMSolver(Solver):
    """DPM-Solver++(2M): a line through the latest two named images, over log(alpha / sigma). Its first and
    last steps are DDIM's. Source: Lu et al. 2022, arXiv:2211.01095, algorithm 2.
    """

    def course(self, denoiser: Denoiser, x: Tensor, path: Path, places: list[Place]) -> Iterator[Tensor]:
        before, step_before = None, math.inf
        for here, there in _pairs(places):
            image = denoiser(x, here.t).parts.image
            step = there.log_ratio - here.log_ratio
            guess = image
            if before is not None and math.isfinite(step) and math.isfinite(step_before):
                share = step / (2 * step_before)
                guess = (1 + share) * image - share * before
            x = there.sigma / here.sigma * x - there.alpha * math.expm1(-step) * guess
            before, step_before = image, step
            yield x


@dataclass(frozen=True)
class Consistency(Solver):
    """Takes the named image and noises it anew to the next level: of models that name the same image at every
    level. Source: Song et al. 2023, arXiv:2303.01469, algorithm 1.
    """

    def course(self, denoiser: Denoiser, x: Tensor, path: Path, places: list[Place]) -> Iterator[Tensor]:
        for here, there in _pairs(places):
            x = there.alpha * denoiser(x, here.t).parts.image
            if there.sigma:
                x = x + there.sigma * torch.randn_like(x)
            yield x


class Step(NamedTuple):
    """q(x_there | x_here, x_0) of a chain that goes from one place to the other in one step."""

    of_image: float  # its mean is of_image * x_0 + of_x * x_here
    of_x: float
    variance: float  # the posterior's; of the last step before the image the one before it
    beta: float  # variance of the noising step


def posterior(here: Place, there: Place) -> Step:
    """Source: Ho et al. 2020, eq. 6 and 7."""
    kept = (here.alpha / there.alpha) ** 2
    beta = 1 - kept
    lost = here.sigma**2
    variance = beta * there.sigma**2 / lost
    return Step(there.alpha * beta / lost, math.sqrt(kept) * there.sigma**2 / lost, variance, beta)


def _posterior_spread(here: Place, there: Place) -> float:
    """Standard deviation of the posterior, of any path: DDIM's eq. 16."""
    if not there.sigma or not here.sigma:
        return 0.0
    ratio = (here.alpha * there.sigma / (there.alpha * here.sigma)) ** 2 if there.alpha else 1.0
    return there.sigma * math.sqrt(max(1 - ratio, 0.0))


def _straight(x: Tensor, image: Tensor, noise: Tensor, path: Path, here: Place, there: Place) -> Tensor:
    """A straight line of z = x / (alpha + pull sigma) over u = sigma / (alpha + pull sigma)."""
    first, last = (place.alpha + path.pull * place.sigma for place in (here, there))
    distance = there.sigma / last - here.sigma / first
    direction = noise - image * path.pull
    return last * (x / first + distance * direction)


def _pairs(places: list[Place]) -> Iterator[tuple[Place, Place]]:
    return pairwise(places)
