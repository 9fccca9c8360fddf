"""The scores of a run: rows after every task, and what can be read from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_gen.evaluation.tables import as_csv, as_text, short
from lit_gen.metrics.task_matrix import (
    Better,
    Mean,
    backward_transfer,
    final_mean,
    forgetting,
    forward_transfer,
)

FLOOR = "floor_"
"""Begins the name of what to compare a metric with: its value between real training images and real test
images or, of an accuracy, by chance."""

LOCAL = "local_"
"""Begins the name of a metric of samples from what learned a task, before it was consolidated."""

MAIN = (
    *("fid", "precision", "recall", "prd_precision", "prd_recall"),
    *("nll", "bits_per_dim", "active_units", "mutual_information"),
    *("accuracy", "task_accuracy"),
)
"""The metrics that are shown at the end of a run, in the order in which they come."""


class Row(NamedTuple):
    """One number about a model, with all that is needed to know what it means."""

    on_task: int | None  # None: all tasks seen so far
    metric: str  # "fid", "floor_fid", "local_fid"
    value: float  # NaN where there were too few images
    extractor: str  # empty where there is none
    extractor_hash: str
    split: str  # "val" or "test"
    num_real: int
    num_fake: int
    seed: int


class Summary(NamedTuple):
    """What one metric says at the end of a run. NaN where there is no such number."""

    mean: float  # over tasks, of the last row
    mean_over: int  # tasks that have a score there
    forgetting: float
    forgetting_over: int
    backward_transfer: float
    backward_transfer_over: int
    forward_transfer: float
    forward_transfer_over: int
    all: float  # over all tasks seen, as one set of images


class Board:
    """The rows of every task's end. Rows that come again, as after a resume, have their new values.

    Attributes:
        num_tasks: of the whole stream.
        rows: by the task after which they were measured.
        better: what is good, by metric.
    """

    def __init__(self) -> None:
        self.num_tasks = 0
        self.rows: dict[int, tuple[Row, ...]] = {}
        self.better: dict[str, Better] = {}

    def put(self, after: int, rows: Sequence[Row], num_tasks: int, better: Mapping[str, Better]) -> None:
        """Keeps the rows that were measured after a task; those of other extractors stay beside them."""
        kept = {
            (row.on_task, row.metric, row.extractor, row.split): row
            for row in (*self.rows.get(after, ()), *rows)
        }
        self.rows[after], self.num_tasks = tuple(kept.values()), num_tasks
        self.rows = dict(sorted(self.rows.items()))
        self.better |= better

    def state(self) -> dict[str, Any]:
        """Plain lists for a checkpoint."""
        rows = [[after, *row] for after, rows in self.rows.items() for row in rows]
        return {"num_tasks": self.num_tasks, "rows": rows, "better": dict(self.better)}

    def load(self, state: Mapping[str, Any]) -> None:
        self.num_tasks, self.better, self.rows = state["num_tasks"], dict(state["better"]), {}
        for after, *row in state["rows"]:
            self.rows[after] = (*self.rows.get(after, ()), Row(*row))

    def until(self, after: int) -> Board:
        """What there was after a task."""
        board = Board()
        board.num_tasks, board.better = self.num_tasks, self.better
        board.rows = {each: rows for each, rows in self.rows.items() if each <= after}
        return board

    def kinds(self) -> list[tuple[str, str]]:
        """Pairs of metric and extractor for which there are rows, in the order they came."""
        return list(dict.fromkeys((r.metric, r.extractor) for rows in self.rows.values() for r in rows))

    def matrix(self, metric: str, extractor: str) -> Tensor:
        """float64 [T, T]: after task i (row) on task j (column), NaN where there is none."""
        matrix = torch.full((self.num_tasks, self.num_tasks), math.nan, dtype=torch.float64)
        for after, row in self._of(metric, extractor):
            if row.on_task is not None:
                matrix[after, row.on_task] = row.value
        return matrix

    def measured(self, metric: str, extractor: str) -> list[int]:
        """The tasks after which single tasks were scored, ascending, whether that gave numbers or not."""
        return list(dict.fromkeys(after for after, r in self._of(metric, extractor) if r.on_task is not None))

    def over_all(self, metric: str, extractor: str) -> float:
        """The newest score of all tasks together; NaN where there is none."""
        last = max(self.rows, default=0)
        found = [r.value for after, r in self._of(metric, extractor) if r.on_task is None and after == last]
        return found[0] if found else math.nan

    def means(self, metric: str, extractor: str) -> dict[str, Mean]:
        """Mean, forgetting, backward and forward transfer; over 0 of 0 tasks where there is no number."""
        names = ("mean", "forgetting", "backward_transfer", "forward_transfer")
        found = dict.fromkeys(names, Mean(math.nan, 0, 0))
        matrix, way = self.matrix(metric, extractor), self.better.get(metric)
        for last in self.measured(metric, extractor)[-1:]:
            found["mean"] = final_mean(matrix, last)
            if way:
                is_cost, floor = way == "lower", self.matrix(FLOOR + metric, extractor)[last]
                found["forgetting"] = forgetting(matrix, is_cost, last)
                found["backward_transfer"] = backward_transfer(matrix, is_cost, last)
                found["forward_transfer"] = forward_transfer(matrix, floor, is_cost, last)
        return found

    def in_words(self, metric: str, extractor: str) -> str:
        """The means that exist, and over how many tasks they are where a score is missing."""
        return ", ".join(
            f"{name.replace('_', ' ')} {mean.in_words(short(mean.value))}"
            for name, mean in self.means(metric, extractor).items()
            if mean.of or name == "mean"
        )

    def summary(self) -> dict[str, Summary]:
        """By "<metric>/<extractor>", or the metric alone; floors and local scores left out."""
        found = {}
        for metric, extractor in self.kinds():
            if not metric.startswith((FLOOR, LOCAL)):
                means = self.means(metric, extractor).values()
                numbers = (number for mean in means for number in (mean.value, mean.over))
                name = f"{metric}/{extractor}" if extractor else metric
                found[name] = Summary(*numbers, self.over_all(metric, extractor))
        return found

    def csv(self) -> str:
        """What scores.csv holds: every row, exact to the last bit; `on_task` is "all" over all tasks."""
        lines = [
            {"after_task": after, **row._asdict(), "on_task": "all" if row.on_task is None else row.on_task}
            | {"better": self.better.get(row.metric, "")}
            for after, rows in self.rows.items()
            for row in rows
        ]
        return as_csv(lines, missing="nan")

    def table(self) -> str:
        """The matrices of the main metrics as text, each beside its floor; empty before the first row."""
        blocks, lines = [], []
        for metric, extractor in self.kinds():
            if metric not in MAIN:
                continue
            title = f"{metric} ({extractor})" if extractor else metric
            better, matrix = self.better.get(metric, ""), self.matrix(metric, extractor)
            measured = self.measured(metric, extractor)
            if not measured:
                floor = self.over_all(FLOOR + metric, extractor)
                row = {"score": title, "value": _or_nan(self.over_all(metric, extractor)), "better": better}
                lines.append(row | ({} if math.isnan(floor) else {"floor": short(floor)}))
            else:
                floor = self.matrix(FLOOR + metric, extractor)
                shown = [*matrix_lines(matrix, floor, measured), *self._local_line(metric, extractor)]
                text = as_text(shown, head=f"{title}, {better} is better")
                blocks.append(f"{text}\n{self.in_words(metric, extractor)}")
        return "\n\n".join([*blocks, *([as_text(lines)] if lines else [])])

    def _local_line(self, metric: str, extractor: str) -> list[dict[str, str]]:
        """Every task's score before it was consolidated; nothing where there is none."""
        scores = self.matrix(LOCAL + metric, extractor).diagonal()
        if scores.isnan().all():
            return []
        return [{"": "local"} | {f"task {j}": short(value) for j, value in enumerate(scores.tolist())}]

    def _of(self, metric: str, extractor: str) -> Iterator[tuple[int, Row]]:
        for after, rows in self.rows.items():
            for row in rows:
                if (row.metric, row.extractor) == (metric, extractor):
                    yield after, row


def matrix_lines(matrix: Tensor, floor: Tensor, measured: Sequence[int]) -> list[dict[str, str]]:
    """A line for every row [T, T] that was measured, and one for the last row of the floor that holds a
    number. A score that came out as NaN is "nan", one that is not there a dash.
    """
    lines = [
        {"": f"after {i}"}
        | {f"task {j}": _or_nan(v) if j <= i else short(v) for j, v in enumerate(matrix[i].tolist())}
        for i in measured
    ]
    floors = [row for row in floor.tolist() if not all(map(math.isnan, row))][-1:]
    return lines + [{"": "floor"} | {f"task {j}": short(v) for j, v in enumerate(row)} for row in floors]


def _or_nan(value: float) -> str:
    return "nan" if math.isnan(value) else short(value)
