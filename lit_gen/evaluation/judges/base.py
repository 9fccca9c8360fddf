"""What a judge is: it gives rows about a model, from a callback or from a notebook without any Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from lit_gen.core.types import Split
from lit_gen.evaluation.board import Row
from lit_gen.evaluation.context import Context
from lit_gen.metrics.task_matrix import Better


class Judge(Protocol):
    """Scores a model.

    One that has more to say than rows can hold also has `keep(folder, after_task)`: it writes what the newest
    rows were made from into the run folder and gives pictures for loggers by name, uint8 [H, W, C].

    Attributes:
        every_n_epochs: in a fit; 0 judges in tests only.
        better: what is good in each metric that it gives; known when there are rows.
    """

    every_n_epochs: int
    better: Mapping[str, Better]

    def check(self, context: Context) -> None:
        """Asked before anything starts. Raises InputError if it cannot judge this model on this data."""

    def rows(self, context: Context, split: Split) -> list[Row]:
        """The same on every process. Leaves the model's modes and all random numbers as they are."""


def at_least(least: int, **values: float) -> None:
    """Raises ValueError for the first value that is less."""
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name}={value}: must be at least {least}")
