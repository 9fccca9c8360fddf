"""How much the squared error at a time counts: (path, output in whose space it is taken, t [B]) -> [B]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from annotated_types import Gt
from torch import Tensor

from lit_gen.diffusion.outputs import Output, error_ratio
from lit_gen.diffusion.path import Path, Table


class Weight(Protocol):
    """Weighs squared errors by their time."""

    def __call__(self, path: Path, space: Output, t: Tensor) -> Tensor:
        """[B], for times [B]."""


@dataclass(frozen=True)
class Simple:
    """All times alike. Source: Ho et al. 2020, arXiv:2006.11239, eq. 14."""

    def __call__(self, path: Path, space: Output, t: Tensor) -> Tensor:
        return torch.ones_like(t)


@dataclass(frozen=True)
class MinSNR:
    """The signal-to-noise ratio, but at most `most`, as weight of an error in the image. Source: Hang et al.
    2023, arXiv:2303.09556, section 3.4.
    """

    most: Annotated[float, Gt(0)] = 5.0

    def __call__(self, path: Path, space: Output, t: Tensor) -> Tensor:
        return _ratio(path, t).clamp(max=self.most) * error_ratio("x0", space, path, t).square()


@dataclass(frozen=True)
class Preconditioned:
    """As if the error were in EDM's F. Source: Karras et al. 2022, arXiv:2206.00364, table 1."""

    def __call__(self, path: Path, space: Output, t: Tensor) -> Tensor:
        return error_ratio("F", space, path, t).square()


@dataclass(frozen=True)
class Bound:
    """The variational bound's: how fast the signal-to-noise ratio falls, as weight of an error in the image.

    Mean over even times of weight times error is the bound's diffusion term, in nats; the first step of a
    chain weighs as a Gaussian decoder with its noise. Source: Kingma et al. 2021, arXiv:2107.00630, eq. 13
    and 15.
    """

    def __call__(self, path: Path, space: Output, t: Tensor) -> Tensor:
        to_image = error_ratio("x0", space, path, t).square()
        if isinstance(path, Table):
            before = torch.where(t > 1, _ratio(path, (t - 1).clamp(min=1)), 2 * _ratio(path, t))
            return 0.5 * path.num_steps * (before - _ratio(path, t)) * to_image
        alpha, sigma = path.levels(t)
        return path.speed * alpha / sigma**3 * to_image


def _ratio(path: Path, t: Tensor) -> Tensor:
    """Signal-to-noise ratio alpha^2 / sigma^2."""
    alpha, sigma = path.levels(t)
    return (alpha / sigma).square()
