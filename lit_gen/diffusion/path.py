"""Paths from images to noise: x_t = alpha(t) x_0 + sigma(t) eps with eps ~ N(0, I), from t = 0 on, where x_t
is the image.

A path says what its times are, what the network is told of a time, and which times lie evenly on it. Levels
are computed from what is exact in float64, so that solvers, whose times are known beforehand, lose nothing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn

ChainLength = Annotated[int, Gt(0), Le(1_000_000)]
_Variance = Annotated[float, Gt(0), Lt(1)]


class Levels(NamedTuple):
    """How much of the image and how much noise is in x_t, in the shape of the times."""

    alpha: Tensor
    sigma: Tensor


class Path(nn.Module, ABC):
    """Levels of signal and noise over time.

    Attributes:
        first: the lowest time that a network can be told.
        end: the last time, at which nothing (or as good as nothing) of the image is left.
        pull: solvers go in straight lines in z = x / (alpha + pull * sigma), over u = sigma / (alpha + pull *
            sigma). With 1 the end may be noise alone; with 0 they are the lines of EDM.
        sigma_data: standard deviation of images, for preconditioning.
        grows: whether x_t grows with its noise, so that a network must have it scaled down.
        speed: the derivatives of alpha and sigma over those of `rates`.
    """

    first: float = 0.0
    end: float = 1.0
    pull: float = 1.0
    sigma_data: float = 0.5
    grows: bool = False
    speed: float = 1.0

    @abstractmethod
    def levels(self, t: Tensor) -> Levels:
        """At times of any shape, in their precision."""

    @abstractmethod
    def rates(self, t: Tensor) -> Levels:
        """(a, s) of the velocity v = a x_0 + s eps, with alpha s - sigma a = 1."""

    @abstractmethod
    def told(self, t: Tensor) -> Tensor:
        """What the network gets to know of a time: float32, of the order of 0 to 1000."""

    def at(self, part: Tensor) -> Tensor:
        """The times at parts of the way, 0 to 1, as this path is usually gone in even steps."""
        return self.end * part

    def prior(self, count: int, shape: Sequence[int], device: torch.device) -> Tensor:
        """Noise that solvers start from: [count, *shape]."""
        sigma = float(self.levels(torch.tensor(self.end, dtype=torch.float64)).sigma)
        return sigma * torch.randn(count, *shape, device=device)


class Table(Path):
    """A chain of T noising steps, x_t ~ N(sqrt(1 - beta_t) x_(t-1), beta_t), with the whole times 1 to T.

    Args:
        betas: variances [T] of the steps, each in (0, 1).
        rescale: the network is told t as if there were 1,000 steps.

    Attributes:
        alpha, sigma: float32 [T + 1], levels at 0 to T.
        exact: the same and the betas in float64, for whatever is computed once.
    """

    first = 1.0
    sigma_data = 1.0  # the levels are those of data with unit variance

    def __init__(self, betas: Sequence[float], rescale: bool = False) -> None:
        super().__init__()
        beta = np.asarray(betas, dtype=np.float64)
        if beta.ndim != 1 or not len(beta) or not ((beta > 0) & (beta < 1)).all():
            raise ValueError("betas: each variance of a step must lie between 0 and 1, and there must be one")
        kept = np.concatenate([[1.0], np.cumprod(1 - beta)])
        self.exact = {"beta": np.concatenate([[0.0], beta]), "kept": kept}
        self.exact |= {"alpha": np.sqrt(kept), "sigma": np.sqrt(1 - kept)}
        for name in ("alpha", "sigma"):
            values = torch.from_numpy(self.exact[name]).float()
            self.register_buffer(name, values, persistent=False)
        self.num_steps, self.end, self.rescale = len(beta), float(len(beta)), rescale

    def levels(self, t: Tensor) -> Levels:
        place = t.long()
        if t.dtype == torch.float64:
            return Levels(*(torch.from_numpy(self.exact[name])[place.cpu()] for name in ("alpha", "sigma")))
        return Levels(self.alpha[place], self.sigma[place])

    def rates(self, t: Tensor) -> Levels:
        alpha, sigma = self.levels(t)
        return Levels(-sigma, alpha)

    def told(self, t: Tensor) -> Tensor:
        # The published networks count from 0.
        return (t.float() - 1) * (1000 / self.num_steps if self.rescale else 1.0)

    def at(self, part: Tensor) -> Tensor:
        return (self.num_steps * part).round()


class Straight(Path):
    """Rectified flow: x_t = (1 - t) x_0 + t eps. Sources: Liu et al. 2022, arXiv:2209.03003; Lipman et al.
    2022, arXiv:2210.02747.
    """

    def levels(self, t: Tensor) -> Levels:
        return Levels(1 - t, t)

    def rates(self, t: Tensor) -> Levels:
        return Levels(-torch.ones_like(t), torch.ones_like(t))

    def told(self, t: Tensor) -> Tensor:
        return 1000 * t.float()


class Cosine(Path):
    """A quarter of a circle: alpha = cos(pi t / 2), sigma = sin(pi t / 2)."""

    speed = math.pi / 2

    def levels(self, t: Tensor) -> Levels:
        # sin of what is left, since cos(pi / 2) is not quite 0.
        return Levels((math.pi / 2 * (1 - t)).sin(), (math.pi / 2 * t).sin())

    def rates(self, t: Tensor) -> Levels:
        alpha, sigma = self.levels(t)
        return Levels(-sigma, alpha)

    def told(self, t: Tensor) -> Tensor:
        return 1000 * t.float()


class EDM(Path):
    """x_t = x_0 + t eps: the time is the noise's standard deviation. Source: Karras et al. 2022,
    arXiv:2206.00364, table 1.

    Args:
        lowest, highest: standard deviations between which solvers go, in steps even in t^(1 / rho).
    """

    pull = 0.0
    grows = True

    def __init__(
        self,
        lowest: Annotated[float, Gt(0)] = 0.002,
        highest: Annotated[float, Gt(0)] = 80.0,
        rho: Annotated[float, Ge(1)] = 7.0,
        sigma_data: Annotated[float, Gt(0)] = 0.5,
    ) -> None:
        super().__init__()
        if not lowest < highest:
            raise ValueError(f"lowest={lowest}, highest={highest}: the first must be the lower one")
        self.lowest, self.end, self.rho, self.sigma_data = lowest, highest, rho, sigma_data
        self.first = lowest

    def levels(self, t: Tensor) -> Levels:
        return Levels(torch.ones_like(t), t)

    def rates(self, t: Tensor) -> Levels:
        return Levels(torch.zeros_like(t), torch.ones_like(t))

    def told(self, t: Tensor) -> Tensor:
        return 250 * t.float().log()

    def at(self, part: Tensor) -> Tensor:
        low, high = self.lowest ** (1 / self.rho), self.end ** (1 / self.rho)
        return torch.where(part > 0, (low + part * (high - low)) ** self.rho, 0.0)


def linear(num_steps: ChainLength, first: _Variance = 1e-3, last: _Variance = 0.02) -> list[float]:
    """Betas on a line, scaled to the number of steps: the thesis' `linear`, and Ho et al.'s with first=1e-4.

    Both ends are times 1000 / T; with T below ten, times 100 / T, and the first one ten times as large (Deja
    et al. 2022, their code).
    """
    scale, start = (1000 / num_steps, first) if num_steps >= 10 else (100 / num_steps, 10 * first)
    return np.linspace(scale * start, scale * last, num_steps, dtype=np.float64).tolist()


def linear_combine(
    num_steps: ChainLength, beta_1: _Variance, first: _Variance = 1e-3, last: _Variance = 0.02
) -> list[float]:
    """As `linear`, the first step's variance replaced by `beta_1`. Source: Deja et al. 2022, their code."""
    return [beta_1, *linear(num_steps, first, last)[1:]]


def cosine(
    num_steps: ChainLength, offset: Annotated[float, Ge(0)] = 0.008, most: _Variance = 0.999
) -> list[float]:
    """Betas of which the signal's share falls as a squared cosine, none above `most`.

    Source: Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17.
    """

    def kept(part: float) -> float:
        return math.cos((part + offset) / (1 + offset) * math.pi / 2) ** 2

    return [min(1 - kept((t + 1) / num_steps) / kept(t / num_steps), most) for t in range(num_steps)]
