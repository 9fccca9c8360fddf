"""Distances between all pairs of two sets of points."""

from __future__ import annotations

import torch
from torch import Tensor


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """||x_i - y_j||^2 of all pairs: [..., N, D] and [..., M, D] -> [..., N, M].

    By one matrix product. Both are moved so that the first set's mean is 0: rounding errors are those of the
    sets' extent, not of their distance from the origin.
    """
    centre = first.detach().mean(-2, keepdim=True)
    first, second = first - centre, second - centre
    lengths = first.square().sum(-1).unsqueeze(-1) + second.square().sum(-1).unsqueeze(-2)
    return (lengths - 2 * first @ second.mT).clamp(min=0)


def widened(points: Tensor) -> Tensor:
    """At least 32 bits: 16 do not hold small differences of distances."""
    return points.float() if points.dtype in (torch.float16, torch.bfloat16) else points
