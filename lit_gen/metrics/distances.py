"""Euclidean distances between many points: a fast product of matrices with a bound on its error, and exact
ones for what the bound leaves open.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple, Self

import torch
from torch import Tensor

# Pairs in one tile of distances: 4 MB of float32, so that the passes after the matrix product stay in the
# cache.
_TILE_ROWS, _TILE_COLUMNS = 512, 2048
# On an accelerator a launch costs more than a cache miss.
_WIDE_ROWS, _WIDE_COLUMNS = 4096, 16384
# Candidates beyond those that are asked for; few points have so many that are as near, up to rounding.
_SPARE = 2
_FEW = 16  # undecided points whose pairs are computed without any further search
_EXACT_NUMBERS = 2**18  # float64 numbers that an exact computation holds at a time: they stay in the cache


class Cloud(NamedTuple):
    """Points about a common centre, of size 1 or less, for products of matrices.

    |x|^2 + |y|^2 - 2 x y of two of them is off the true squared distance (times scale^2) by at most
    `slack` (|x|^2 + |y|^2) + `tiny`: a rounding for each term of a dot product, some for sums and for the
    points themselves, and what underflows.
    """

    point: Tensor  # [N, D], float32 or float64
    square: Tensor  # [N], as the points
    scale: float  # a power of 2
    slack: float
    tiny: float

    @classmethod
    def of(cls, points: Tensor, centre: Tensor, scale: float, dtype: torch.dtype = torch.float32) -> Self:
        # Rounding is relative to the difference, since the centre is an exact number, whatever it means.
        place = (points.to(dtype) - centre.to(dtype)).mul_(scale)
        kind, size = torch.finfo(dtype), points.shape[1]
        return cls(
            place, place.square().sum(1), scale, (size + 64) * kind.eps / 2, 8 * (size + 16) * kind.tiny
        )


def common_frame(*sets: Tensor) -> tuple[Tensor, float]:
    """About the mean of the first set, [D], and a scale that brings all of them into [-1, 1] about it."""
    centre = sets[0].mean(0).nan_to_num(0, 0, 0)  # sums of the largest numbers are infinite
    far = max(
        float((edge.double() - centre.double()).abs().max())
        for points in sets
        for edge in (points.amin(0), points.amax(0))
    )
    return centre, 2.0 ** min(126, -math.ceil(math.log2(far))) if far else 1.0  # 2^128 would be infinite


def exact(x: Tensor, y: Tensor) -> Tensor:
    """Distances from differences in float64: [..., N, D] and [..., M, D] -> [..., N, M]."""
    return torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist")


def exact_pairs(x: Tensor, y: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """`exact` of x[row] and y[column], places [P] -> [P], or [P] and [P, K] -> [P, K]."""
    wide = column[:, None] if column.ndim == 1 else column
    step = max(1, _block(x) // wide.shape[1])
    found = [
        exact(x[some][:, None], y[others])[:, 0]
        for some, others in zip(row.split(step), wide.split(step), strict=True)
    ]
    return torch.cat(found).view(column.shape) if found else torch.zeros_like(column, dtype=torch.double)


def nearest(points: Tensor, count: int) -> Tensor:
    """Distances to the `count` nearest other points, ascending: [N, D] -> float64 [N, count], N > count.

    A product of matrices finds candidates, whose distances are computed from differences; what it cannot
    decide in float32 it tries in float64, and in the end all pairs of a point are computed.
    """
    found = torch.full((len(points), count), float("inf"), dtype=torch.double, device=points.device)
    rows = torch.arange(len(points), device=points.device)
    frame = common_frame(points)
    for dtype in (torch.float32, torch.float64):
        cloud = Cloud.of(points, *frame, dtype)
        lower, place = _candidates(cloud, rows, count + _SPARE)
        distance = exact_pairs(points, points, rows, place)
        distance = torch.where(lower.isinf(), torch.inf, distance).sort(dim=1).values[:, :count]
        found[rows] = distance
        # All others are at least as far as the last candidate may be; nothing is nearer than 0.
        last = distance[:, -1]
        is_open = (lower[:, -1].double() - cloud.tiny < (last * cloud.scale).square()) & (last > 0)
        rows = rows[is_open]
        if len(rows) <= _FEW:
            break
    for some in rows.split(256):
        best = found.new_full((len(some), count), float("inf"))
        for columns in torch.arange(len(points), device=points.device).split(_block(points)):
            distance = exact(points[some], points[columns])
            distance[some[:, None] == columns] = torch.inf
            best = torch.cat((best, distance), dim=1).topk(count, dim=1, largest=False).values
        found[some] = best
    return found


def tiles(
    x: Tensor, y: Tensor, x_square: Tensor, y_square: Tensor, symmetric: bool = False
) -> Iterator[tuple[slice, slice, Tensor]]:
    """x_square + y_square - 2 x y of rows of x [N, D] and of y [M, D], tile by tile; a tile lives until the
    next is asked for.

    symmetric: y is x; tiles are the squares on the diagonal and what lies to the right of them.
    """
    on_cpu = x.device.type == "cpu"
    num_rows, num_columns = (_TILE_ROWS, _TILE_COLUMNS) if on_cpu else (_WIDE_ROWS, _WIDE_COLUMNS)
    buffer = x.new_empty(num_rows * num_columns)
    for top in range(0, len(x), num_rows):
        rows = slice(top, min(top + num_rows, len(x)))
        lefts = [top, *range(rows.stop, len(y), num_columns)] if symmetric else range(0, len(y), num_columns)
        for left in lefts:
            columns = rows if symmetric and left == top else slice(left, min(left + num_columns, len(y)))
            sizes = (rows.stop - rows.start, columns.stop - columns.start)
            tile = buffer[: sizes[0] * sizes[1]].view(sizes)
            torch.add(x_square[rows, None], y_square[columns], out=tile)
            yield rows, columns, tile.addmm_(x[rows], y[columns].T, alpha=-2)


def _candidates(cloud: Cloud, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` other points whose squared distance may be least: lower bounds, ascending, and places, both
    [R, count]; infinite where there are not so many.
    """
    every = len(rows) == len(cloud.point)
    lower = cloud.square * (1 - cloud.slack)
    some, some_lower = (cloud.point, lower) if every else (cloud.point[rows], lower[rows])
    best = cloud.point.new_full((count, len(rows)), float("inf"))
    place = torch.zeros(count, len(rows), dtype=torch.long, device=rows.device)

    def merge(at: slice, value: Tensor, where: Tensor) -> None:
        value, order = torch.cat((best[:, at], value)).sort(dim=0)
        best[:, at] = value[:count]
        place[:, at] = torch.cat((place[:, at], where)).gather(0, order[:count])

    # Each pair is computed once and serves both of its points.
    for at, columns, bound in tiles(some, cloud.point, some_lower, lower, symmetric=every):
        inside = ((rows[at] >= columns.start) & (rows[at] < columns.stop)).nonzero()[:, 0]
        bound[inside, rows[at][inside] - columns.start] = torch.inf
        value, where = _smallest(bound, count, dim=1)
        merge(at, value, where + columns.start)
        if every and at != columns:
            value, where = _smallest(bound, count, dim=0)
            merge(columns, value, where + at.start)
    return best.T, place.T


def _smallest(values: Tensor, count: int, dim: int) -> tuple[Tensor, Tensor]:
    """The `count` smallest along `dim` (all, if there are fewer), in no order, and their places: [R, C] ->
    twice [count, C] or [count, R].

    The dimension is folded, and each fold is first seen through its minimum: the `count` smallest numbers lie
    in the `count` folds with the smallest minima. That is three times as fast as looking at every number.
    """
    length = values.shape[dim]
    fold_size = 16 if length > 1024 else 8  # as many folds as numbers in the folds that are kept
    num_folds = length // fold_size
    if num_folds <= count:
        value, place = values.topk(min(count, length), dim=dim, largest=False, sorted=False)
        return (value, place) if dim == 0 else (value.T, place.T)
    folded = values.narrow(dim, 0, num_folds * fold_size).unflatten(dim, (fold_size, num_folds))
    fold = folded.amin(dim).topk(count, dim=dim, largest=False, sorted=False).indices.unsqueeze(dim)
    sizes = list(folded.shape)
    sizes[dim + 1] = count
    inside = folded.gather(dim + 1, fold.expand(sizes)).flatten(dim, dim + 1)
    rest = values.narrow(dim, num_folds * fold_size, length - num_folds * fold_size)
    found = torch.cat((inside, rest), dim=dim)
    value, order = found.topk(count, dim=dim, largest=False, sorted=False)
    fold = fold.squeeze(dim)
    if dim == 1:
        value, order, fold = value.T, order.T, fold.T
    of_fold = fold.gather(0, order % count) + order // count * num_folds
    return value, torch.where(order < fold_size * count, of_fold, order + (num_folds - count) * fold_size)


def _block(points: Tensor) -> int:
    return max(1, _EXACT_NUMBERS // max(1, points.shape[1]))
