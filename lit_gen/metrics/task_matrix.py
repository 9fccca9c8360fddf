"""What a matrix of scores says about learning task after task.

A matrix is [T, T]: row i holds the scores after task i, column j those on task j, NaN where there is none.
Scores right of the diagonal are those on tasks to come; nothing but the forward transfer is made of them.
The row that counts as the last one is given, or the last row that holds any number, so that an unfinished run
has values too. A mean is over the tasks that have a score, and says over how many.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Better = Literal["lower", "higher", ""]
"""What is good in a metric: less, more, or neither."""


class Mean(NamedTuple):
    """A mean over tasks."""

    value: float  # NaN over none
    over: int  # tasks with a score
    of: int  # tasks that should have one

    def in_words(self, shown: str) -> str:
        """The value, which is shown so, and over how many tasks it is where one is missing."""
        return shown if self.over == self.of else f"{shown} over {self.over} of {self.of} tasks"


def final_mean(matrix: Tensor, last: int | None = None) -> Mean:
    """Of the last row."""
    last = _last_row(matrix) if last is None else last
    return Mean(math.nan, 0, 0) if last is None else _mean(matrix[last, : last + 1])


def forgetting(matrix: Tensor, lower_is_better: bool, last: int | None = None) -> Mean:
    """Over all tasks but the last of the best earlier score minus the final one; positive = forgotten.

    Source: Chaudhry et al. 2018 (arXiv:1801.10112), section 4.2, the best of all rows since the task. For
    distances the sign is turned: final minus smallest. Joint training, which has one row, has none.
    """
    last = _last_row(matrix) if last is None else last
    if not last or matrix[:last].isnan().all():
        return Mean(math.nan, 0, 0)
    better = -matrix if lower_is_better else matrix
    since = torch.ones_like(better, dtype=torch.bool).tril()
    earlier = torch.where(since, better, torch.nan)[:last, :last]
    best = earlier.nan_to_num(nan=-float("inf")).amax(dim=0)
    best = torch.where(earlier.isnan().all(dim=0), torch.nan, best)
    return _mean(best - better[last, :last])


def backward_transfer(matrix: Tensor, lower_is_better: bool, last: int | None = None) -> Mean:
    """Over all tasks but the last of the final score minus the one right after the task; negative =
    forgotten.

    Source: Lopez-Paz & Ranzato 2017 (arXiv:1706.08840), eq. 3. For distances the sign is turned, so that
    positive always means that later tasks helped.
    """
    last = _last_row(matrix) if last is None else last
    if not last or matrix[:last].isnan().all():
        return Mean(math.nan, 0, 0)
    change = matrix[last, :last] - matrix.diagonal()[:last]
    return _mean(-change if lower_is_better else change)


def forward_transfer(matrix: Tensor, floor: Tensor, lower_is_better: bool, last: int | None = None) -> Mean:
    """Over all tasks but the first of the score right before the task minus its floor; positive = earlier
    tasks helped.

    Source: Lopez-Paz & Ranzato 2017 (arXiv:1706.08840), eq. 4. For distances the sign is turned. It is over
    no task where none was scored before it was learned.

    Args:
        floor: [T], the scores of what has learned nothing. In the source that is an untrained network.
    """
    last = _last_row(matrix) if last is None else last
    before = matrix.diagonal(1)[: 0 if last is None else last + 1]
    if before.isnan().all():
        return Mean(math.nan, 0, 0)
    gain = before - floor[1 : len(before) + 1]
    return _mean(-gain if lower_is_better else gain)


def _mean(scores: Tensor) -> Mean:
    return Mean(float(scores.nanmean()), int((~scores.isnan()).sum()), len(scores))


def _last_row(matrix: Tensor) -> int | None:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"a task matrix is [T, T], got {list(matrix.shape)}")
    scored = (~matrix.isnan()).any(dim=1).nonzero()
    return int(scored[-1]) if len(scored) else None
