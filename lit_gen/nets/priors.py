"""Distributions that codes or noise are drawn from: small frozen objects that a config can name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from annotated_types import Ge, Gt
from torch import Tensor


class Prior(Protocol):
    """Draws points from the global generator."""

    def __call__(self, n: int, size: int, device: torch.device) -> Tensor:
        """float32 [n, size]."""


@dataclass(frozen=True)
class StandardNormal:
    """N(0, I)."""

    def __call__(self, n: int, size: int, device: torch.device) -> Tensor:
        return torch.randn(n, size, device=device)


STANDARD_NORMAL = StandardNormal()


@dataclass(frozen=True)
class UniformBall:
    """Uniform inside a ball around 0; in two dimensions a disk."""

    radius: Annotated[float, Gt(0)] = 1.0

    def __call__(self, n: int, size: int, device: torch.device) -> Tensor:
        length = torch.rand(n, 1, device=device) ** (1 / size)
        return self.radius * length * _directions(n, size, device)


@dataclass(frozen=True)
class Ring:
    """All directions alike, the distance from 0 uniform in radius +- width / 2.

    With width = 0 points lie on a circle, in more dimensions on a sphere.
    """

    radius: Annotated[float, Gt(0)] = 1.0
    width: Annotated[float, Ge(0)] = 0.2

    def __call__(self, n: int, size: int, device: torch.device) -> Tensor:
        length = self.radius + self.width * (torch.rand(n, 1, device=device) - 0.5)
        return length * _directions(n, size, device)


@dataclass(frozen=True)
class UniformBox:
    """Every coordinate uniform between two bounds."""

    low: float = 0.0
    high: float = 1.0

    def __call__(self, n: int, size: int, device: torch.device) -> Tensor:
        return self.low + (self.high - self.low) * torch.rand(n, size, device=device)


def _directions(n: int, size: int, device: torch.device) -> Tensor:
    points = torch.randn(n, size, device=device)
    return points / points.norm(dim=1, keepdim=True)
