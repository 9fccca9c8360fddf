"""What a matrix of scores says about learning task after task.

A matrix is [T, T]: row i holds the scores after task i, column j those on task j, NaN where there is none.
The last row that holds any number counts as the last one, so that an unfinished run has values too.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Better = Literal["lower", "higher", ""]
"""What is good in a metric: less, more, or neither."""


def final_mean(matrix: Tensor) -> float:
    """Mean over tasks of the last row; NaN without any score."""
    last = _last_row(matrix)
    return float("nan") if last is None else float(matrix[last].nanmean())


def forgetting(matrix: Tensor, lower_is_better: bool) -> float:
    """Mean over all tasks but the last of the best earlier score minus the final one; positive = forgotten.

    Source: Chaudhry et al. 2018 (arXiv:1801.10112), section 4.2, the best of all earlier rows. For distances
    the sign is turned: final minus smallest. NaN with fewer than two rows.
    """
    last = _last_row(matrix)
    if last is None or last == 0:
        return float("nan")
    better = -matrix if lower_is_better else matrix
    earlier = better[:last, :last]
    best = earlier.nan_to_num(nan=-float("inf")).amax(dim=0)
    best = torch.where(earlier.isnan().all(dim=0), torch.nan, best)
    return float((best - better[last, :last]).nanmean())


def backward_transfer(matrix: Tensor, lower_is_better: bool) -> float:
    """Mean over all tasks but the last of the final score minus the one right after the task; negative =
    forgotten.

    Source: Lopez-Paz & Ranzato 2017 (arXiv:1706.08840), eq. 3. For distances the sign is turned, so that
    positive always means that later tasks helped. NaN with fewer than two rows.
    """
    last = _last_row(matrix)
    if last is None or last == 0:
        return float("nan")
    change = matrix[last, :last] - matrix.diagonal()[:last]
    return float((-change if lower_is_better else change).nanmean())


def _last_row(matrix: Tensor) -> int | None:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"a task matrix is [T, T], got {list(matrix.shape)}")
    scored = (~matrix.isnan()).any(dim=1).nonzero()
    return int(scored[-1]) if len(scored) else None
