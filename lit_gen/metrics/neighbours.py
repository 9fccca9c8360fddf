"""Fidelity and diversity from nearest neighbours.

Sources: precision and recall, Kynkaanniemi et al. 2019 (arXiv:1904.06991); density and coverage, Naeem et al.
2020 (arXiv:2002.09797).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lit_gen.core.types import Positive
from lit_gen.metrics.base import GatheringMetric
from lit_gen.metrics.distances import Cloud, common_frame, exact, exact_pairs, nearest, tiles

_MANY = 0.1  # of a tile's pairs; all of them at once are faster than so many one by one


class Neighbours(GatheringMetric):
    """With a ball around each image that reaches to its k-th neighbour among its own kind:

    precision: part of the generated images inside a ball of a real one (k = num_neighbours).
    recall: part of the real images inside a ball of a generated one (k = num_neighbours).
    density: mean number of real balls a generated image lies in, over k; 1 is expected of a perfect model,
        more is possible (k = num_density_neighbours).
    coverage: part of the real balls that hold a generated image (k = num_density_neighbours).

    All but density lie in [0, 1]. Balls are closed, and the numbers are those of distances from differences
    in float64, ties included. Memory beyond two copies of the features does not grow with N^2.

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
        reach = nearest(real, most)
        real_reach = reach[:, self.num_neighbours - 1]
        density_reach = reach[:, self.num_density_neighbours - 1]
        fake_reach = nearest(fake, self.num_neighbours)[:, -1]

        frame = common_frame(real, fake)
        x, y = (Cloud.of(each, *frame) for each in (fake, real))
        eps = torch.finfo(torch.float32).eps
        wide = [(each * x.scale).square() for each in (real_reach, density_reach, fake_reach)]
        real_square, density_square, fake_square = (each.float() for each in wide)
        # How far a pair's rounded distance may be off: a part from either point, and what the rounding of
        # the squared reach adds to it.
        real_margin, density_margin, fake_margin = ((4 * eps * each).float() for each in wide)
        x_margin, y_margin = ((each.slack * each.square * 1.001 + each.tiny).float() for each in (x, y))

        inside_real = torch.zeros(len(fake), dtype=torch.bool, device=real.device)
        inside_fake, covered = (
            torch.zeros(len(real), dtype=torch.bool, device=real.device) for _ in range(2)
        )
        num_in_balls = 0
        for rows, columns, square in tiles(x.point, y.point, x.square, y.square):
            some_fake, some_real = fake[rows], real[columns]

            def distance(row: Tensor, column: Tensor, x: Tensor = some_fake, y: Tensor = some_real) -> Tensor:
                if len(row) > _MANY * len(x) * len(y):
                    return exact(x, y)[row, column]
                return exact_pairs(x, y, row, column)

            reach, margin = density_square[columns], density_margin[columns] + y_margin[columns]
            margin = margin + x_margin[rows].max()
            is_in = square <= reach - margin
            num_sure = int(torch.count_nonzero(is_in))
            may_be = square <= reach + margin
            if num_sure < int(torch.count_nonzero(may_be)):
                row, column = (may_be ^ is_in).nonzero(as_tuple=True)
                is_inside = distance(row, column) <= density_reach[columns][column]
                num_sure += int(torch.count_nonzero(is_inside))
                covered[columns.start + column[is_inside]] = True
            num_in_balls += num_sure
            covered[columns] |= square.amin(dim=0) <= reach - margin

            inside_fake[columns] = _in_any(
                (square - fake_square[rows, None]).T,
                y_margin[columns],
                x_margin[rows] + fake_margin[rows],
                inside_fake[columns],
                lambda column, row, at=rows, of=distance: of(row, column) <= fake_reach[at][row],
            )
            inside_real[rows] = _in_any(
                square.sub_(real_square[columns]),
                x_margin[rows],
                y_margin[columns] + real_margin[columns],
                inside_real[rows],
                lambda row, column, at=columns, of=distance: of(row, column) <= real_reach[at][column],
            )
        return {
            "precision": inside_real.double().mean(),
            "recall": inside_fake.double().mean(),
            "density": torch.tensor(num_in_balls / (self.num_density_neighbours * len(fake))),
            "coverage": covered.double().mean(),
        }


def _in_any(
    excess: Tensor,
    point_margin: Tensor,
    ball_margin: Tensor,
    known: Tensor,
    holds: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Which of N points lie in any of M balls, bool [N].

    Args:
        excess: squared distances less the squared reach of the ball, [N, M], off by at most the sum of both
            margins, [N] and [M].
        known: bool [N], those that lie in some ball anyway.
        holds: exactly, for places of points and of balls, int64 [P] twice -> bool [P].
    """
    # min(d - r) <= 0 is any(d <= r) at a third of its cost.
    least, margin = excess.amin(dim=1), point_margin + ball_margin.max()
    found = known | (least <= -margin)
    unsure = (~found & (least <= margin)).nonzero()[:, 0]
    if len(unsure):
        near = excess[unsure] <= point_margin[unsure, None] + ball_margin
        point, ball = near.nonzero(as_tuple=True)
        point = unsure[point]
        found[point[holds(point, ball)]] = True
    return found
