"""Fidelity and diversity from nearest neighbours.

Sources: precision and recall, Kynkaanniemi et al. 2019 (arXiv:1904.06991); density and coverage, Naeem et al.
2020 (arXiv:2002.09797).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lit_gen.core.types import Positive
from lit_gen.metrics.base import GatheringMetric

# Pairs in one tile of distances: 4 MB of float32, so that the passes after the matrix product stay in the
# cache.
_TILE_ROWS, _TILE_COLUMNS = 512, 2048
# On an accelerator a launch costs more than a cache miss.
_WIDE_ROWS, _WIDE_COLUMNS = 4096, 16384
# Numbers of a tile that are first seen through their minimum, when its few smallest are searched.
_FOLD = 16


class Neighbours(GatheringMetric):
    """With a ball around each image that reaches to its k-th neighbour among its own kind:

    precision: part of the generated images inside a ball of a real one (k = num_neighbours).
    recall: part of the real images inside a ball of a generated one (k = num_neighbours).
    density: mean number of real balls a generated image lies in, over k; 1 is expected of a perfect model,
        more is possible (k = num_density_neighbours).
    coverage: part of the real balls that hold a generated image (k = num_density_neighbours).

    All but density lie in [0, 1]. Balls are closed. Memory beyond one copy of the features does not grow with
    N^2.

        >>> metric = Neighbours()
        >>> metric.update(torch.randn(200, 4), real=True)
        >>> metric.update(torch.randn(200, 4), real=False)
        >>> sorted(metric.compute())
        ['coverage', 'density', 'precision', 'recall']
    """

    names = dict.fromkeys(("precision", "recall", "density", "coverage"), "higher")
    one_sided = frozenset({"recall", "coverage"})

    def __init__(
        self,
        num_features: int | None = None,
        num_neighbours: Positive = 3,
        num_density_neighbours: Positive = 5,
    ) -> None:
        super().__init__(num_features)
        self.num_neighbours, self.num_density_neighbours = num_neighbours, num_density_neighbours

    def score(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        most = max(self.num_neighbours, self.num_density_neighbours)
        if len(real) <= most or len(fake) <= self.num_neighbours:
            return self._nothing(
                f"more than {most} real and {self.num_neighbours} generated images are needed, "
                f"got {len(real)} and {len(fake)}"
            )
        # |x|^2 + |y|^2 - 2 x y cancels less when the common mean is gone.
        centre = real.mean(dim=0)
        real -= centre
        fake -= centre
        reach = nearest_squared(real, most)
        real_reach = reach[:, self.num_neighbours - 1]
        density_reach = reach[:, self.num_density_neighbours - 1]
        fake_reach = nearest_squared(fake, self.num_neighbours)[:, -1]

        inside_real = torch.zeros(len(fake), dtype=torch.bool, device=real.device)
        inside_fake = torch.zeros(len(real), dtype=torch.bool, device=real.device)
        nearest_fake = torch.full_like(density_reach, float("inf"))
        num_in_balls = 0
        for rows, columns, distance in _tiles(fake, real):
            num_in_balls += int(torch.count_nonzero(distance <= density_reach[columns]))
            torch.minimum(nearest_fake[columns], distance.amin(dim=0), out=nearest_fake[columns])
            # min(d - r) <= 0 is any(d <= r) at a third of its cost; both are exact.
            inside_fake[columns] |= (distance - fake_reach[rows, None]).amin(dim=0) <= 0
            inside_real[rows] |= distance.sub_(real_reach[columns]).amin(dim=1) <= 0
        return {
            "precision": inside_real.float().mean(),
            "recall": inside_fake.float().mean(),
            "density": torch.tensor(num_in_balls / (self.num_density_neighbours * len(fake))),
            "coverage": (nearest_fake <= density_reach).float().mean(),
        }


def nearest_squared(points: Tensor, count: int) -> Tensor:
    """Squared Euclidean distances to the `count` nearest other points, ascending: [N, D] -> [N, count], N >
    count.

    Each pair is computed once and serves both of its points.
    """
    best = torch.full((count, len(points)), float("inf"), device=points.device)
    for rows, columns, distance in _tiles(points, points, symmetric=True):
        if rows == columns:
            distance.fill_diagonal_(float("inf"))
        else:
            best[:, columns] = _merged(best[:, columns], _smallest(distance, count, dim=0))
        best[:, rows] = _merged(best[:, rows], _smallest(distance, count, dim=1))
    return best.T


def _merged(best: Tensor, found: Tensor) -> Tensor:
    return torch.cat((best, found)).sort(dim=0).values[: len(best)]


def _smallest(distance: Tensor, count: int, dim: int) -> Tensor:
    """The `count` smallest along `dim` (all, if there are fewer), in no order: [R, C] -> [count, C] or
    [count, R].

    The dimension is folded, and each fold is first seen through its minimum: the `count` smallest numbers lie
    in the `count` folds with the smallest minima. That is three times as fast as looking at every number.
    """
    length = distance.shape[dim]
    num_folds = length // _FOLD
    if num_folds <= count:
        found = distance.topk(min(count, length), dim=dim, largest=False, sorted=False).values
        return found if dim == 0 else found.T
    folded = distance.narrow(dim, 0, num_folds * _FOLD).unflatten(dim, (_FOLD, num_folds))
    fold = folded.amin(dim).topk(count, dim=dim, largest=False, sorted=False).indices.unsqueeze(dim)
    sizes = list(folded.shape)
    sizes[dim + 1] = count
    inside = folded.gather(dim + 1, fold.expand(sizes)).flatten(dim, dim + 1)
    rest = distance.narrow(dim, num_folds * _FOLD, length - num_folds * _FOLD)
    found = torch.cat((inside, rest), dim=dim).topk(count, dim=dim, largest=False, sorted=False).values
    return found if dim == 0 else found.T


def _tiles(x: Tensor, y: Tensor, symmetric: bool = False) -> Iterator[tuple[slice, slice, Tensor]]:
    """Squared distances between rows of x [N, D] and of y [M, D], tile by tile; a tile lives until the next
    is asked for.

    symmetric: y is x; tiles are the squares on the diagonal and what lies to the right of them.
    """
    on_cpu = x.device.type == "cpu"
    num_rows, num_columns = (_TILE_ROWS, _TILE_COLUMNS) if on_cpu else (_WIDE_ROWS, _WIDE_COLUMNS)
    buffer = torch.empty(num_rows * num_columns, device=x.device)
    x_square = x.square().sum(dim=1)
    y_square = x_square if symmetric else y.square().sum(dim=1)
    for top in range(0, len(x), num_rows):
        rows = slice(top, min(top + num_rows, len(x)))
        lefts = [top, *range(rows.stop, len(y), num_columns)] if symmetric else range(0, len(y), num_columns)
        for left in lefts:
            columns = rows if symmetric and left == top else slice(left, min(left + num_columns, len(y)))
            sizes = (rows.stop - rows.start, columns.stop - columns.start)
            tile = buffer[: sizes[0] * sizes[1]].view(sizes)
            torch.add(x_square[rows, None], y_square[columns], out=tile)
            tile.addmm_(x[rows], y[columns].T, alpha=-2).clamp_min_(0)
            yield rows, columns, tile
