"""Which code an image gets: assignments of rows to columns, each column once, at a small sum of costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Gt
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def greedy(cost: Tensor) -> Tensor:
    """Each row in its turn takes the cheapest column that is left: [B, N] with B <= N -> int64 [B].

    All rows choose at once, and of those with the same column the first keeps it, until none is in dispute.
    That ends where one row after the other would, in few rounds.
    """
    cost, rows = cost.clone(), torch.arange(len(cost), device=cost.device)
    while True:
        column = cost.argmin(1)
        first = torch.full((cost.shape[1],), len(cost), device=cost.device)
        first.scatter_reduce_(0, column, rows, "amin")
        lost = first[column] != rows
        if not lost.any():
            return column
        cost[rows[lost], column[lost]] = torch.inf


def hungarian(cost: Tensor) -> Tensor:
    """The smallest sum of costs: [B, N] with B <= N -> int64 [B]."""
    columns = _candidates(cost)
    _, chosen = linear_sum_assignment(cost[:, columns].double().cpu().numpy())
    return columns[torch.from_numpy(chosen).to(cost.device)]


def auction(cost: Tensor, step: Annotated[float, Gt(0)] = 0.5) -> Tensor:
    """A sum of costs that is at most B * step above the smallest: [B, N] with B <= N -> int64 [B].

    Source: Bertsekas 1988, "The auction algorithm". Rows without a column bid for what they value most, its
    price rises by at least `step`, and whoever bids most takes it from the row that had it.
    """
    columns = _candidates(cost)
    value = -cost[:, columns].double()
    count, price = len(cost), value.new_zeros(len(columns))
    owner = torch.full((len(columns),), -1, device=cost.device)
    chosen = torch.full((count,), -1, device=cost.device)
    while (waiting := (chosen < 0).nonzero().flatten()).numel():
        profit = value[waiting] - price
        best = profit.topk(min(2, profit.shape[1]), 1)
        place, rise = best.indices[:, 0], best.values[:, 0] - best.values[:, -1] + step
        bid = price[place] + rise
        highest = torch.full_like(price, -torch.inf).scatter_reduce_(0, place, bid, "amax")
        # Of equal bids the first one counts.
        first = torch.full_like(owner, count).scatter_reduce_(
            0, place, torch.where(bid == highest[place], waiting, count), "amin"
        )
        won = place.unique()
        before = owner[won]
        chosen[before[before >= 0]] = -1
        owner[won] = first[won]
        chosen[first[won]] = won
        price[won] = highest[won]
    return columns[chosen]


def _candidates(cost: Tensor) -> Tensor:
    """Columns that a best assignment can do with: of every row the B cheapest, since others take B - 1."""
    return cost.topk(min(len(cost), cost.shape[1]), 1, largest=False).indices.unique()


ASSIGN: dict[str, Callable[[Tensor], Tensor]] = {
    "greedy": greedy,
    "auction": auction,
    "hungarian": hungarian,
}
"""By name."""
