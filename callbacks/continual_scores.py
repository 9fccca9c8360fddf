"""The matrix of every score after every task on every task, kept, written, drawn and put into words."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lit_gen.evaluation.scores import ReportsScores, Score, kind_of
from lit_gen.evaluation.tables import draw_matrices, format_matrix, format_number
from lit_gen.metrics.task_matrix import backward_transfer, final_mean, forgetting, is_lower_better
from lit_gen.tracking.pictures import batches_seen, log_picture

log = logging.getLogger(__name__)

COLUMNS = ("after_task", "on_task", *(name for name in Score._fields if name != "on_task"))
MAIN = (
    *("fid", "precision", "recall", "prd_precision", "prd_recall"),
    *("nll", "bits_per_dim", "active_units", "mutual_information"),
)
_DRAWN = ("fid", "precision", "recall")


class Summary(NamedTuple):
    """What one metric says at the end of a run. NaN where there is no such number."""

    mean: float  # over tasks, of the last row
    forgetting: float
    backward_transfer: float
    all: float  # over all tasks seen, as one set of images


class ContinualScores(Callback):
    """Fills one row per task from the callbacks that report scores, and keeps it in every checkpoint.

    A row that is filled again, as after a resume, replaces the old one. `scores.csv` and `matrix.png` are
    rewritten from the matrix each time.

    List it after the callbacks that report scores.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.num_tasks = 0
        self.rows: dict[int, tuple[Score, ...]] = {}  # by the task after which they were measured

    def state_dict(self) -> dict[str, Any]:
        rows = [[after, *score] for after, scores in sorted(self.rows.items()) for score in scores]
        return {"num_tasks": self.num_tasks, "rows": rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_tasks, self.rows = state_dict["num_tasks"], {}
        for after, *score in state_dict["rows"]:
            self.rows[after] = (*self.rows.get(after, ()), Score(*score))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        reports = [callback for callback in trainer.callbacks if isinstance(callback, ReportsScores)]
        scores = tuple(s for report in reports for s in report.scores if s.split == "test")
        if not scores or trainer.fast_dev_run:
            return
        self.num_tasks = len(trainer.datamodule.tasks)
        self.rows[trainer.datamodule.current_task] = scores
        if trainer.is_global_zero:
            self._write(trainer)

    def kinds(self) -> list[tuple[str, str]]:
        """Pairs of metric and extractor for which there are scores, in the order they came."""
        return list(dict.fromkeys((s.metric, s.extractor) for row in self.rows.values() for s in row))

    def matrix(self, metric: str, extractor: str) -> Tensor:
        """float64 [T, T]: after task i (row) on task j (column), NaN where there is none."""
        matrix = torch.full((self.num_tasks, self.num_tasks), math.nan, dtype=torch.float64)
        for after, scores in self.rows.items():
            for score in scores:
                if (score.metric, score.extractor) == (metric, extractor) and score.on_task is not None:
                    matrix[after, score.on_task] = score.value
        return matrix

    def summary(self) -> dict[str, Summary]:
        """By "<metric>/<extractor>", or the metric alone; floors left out."""
        found = {}
        for metric, extractor in self.kinds():
            if not metric.startswith("floor_"):
                matrix, lower = self.matrix(metric, extractor), is_lower_better(metric)
                found[kind_of(metric, extractor)] = Summary(
                    final_mean(matrix),
                    forgetting(matrix, lower),
                    backward_transfer(matrix, lower),
                    self._over_all(metric, extractor),
                )
        return found

    def table(self) -> str:
        """The matrices of the main metrics as text, each beside its floor; empty before the first row."""
        blocks, lines = [], []
        for metric, extractor in self.kinds():
            if metric not in MAIN:
                continue
            title = f"{metric} ({extractor})" if extractor else metric
            matrix = self.matrix(metric, extractor)
            if matrix.isnan().all():
                lines.append(format_number(title, *self._over_all_and_floor(metric, extractor)))
            else:
                blocks.append(format_matrix(title, matrix, self.matrix(f"floor_{metric}", extractor)))
        return "\n\n".join([*blocks, *(["\n".join(lines)] if lines else [])])

    def csv_text(self) -> str:
        """What scores.csv holds: every score, exact to the last bit."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for after, scores in sorted(self.rows.items()):
            for score in scores:
                on_task = "all" if score.on_task is None else score.on_task
                writer.writerow([after, on_task, score.metric, repr(float(score.value)), *score[3:]])
        return text.getvalue()

    def _over_all_and_floor(self, metric: str, extractor: str) -> tuple[float, float]:
        return self._over_all(metric, extractor), self._over_all(f"floor_{metric}", extractor)

    def _over_all(self, metric: str, extractor: str) -> float:
        last = self.rows[max(self.rows)]
        values = [s.value for s in last if s[:2] == (None, metric) and s.extractor == extractor]
        return values[0] if values else math.nan

    def _write(self, trainer: Trainer) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = self.folder / "scores.csv.tmp"
        fresh.write_text(self.csv_text(), encoding="utf-8", newline="")
        os.replace(fresh, self.folder / "scores.csv")
        step = batches_seen(trainer)
        values = {}
        for kind, summary in self.summary().items():
            values[f"test/mean/{kind}"] = summary.mean
            values[f"test/forgetting/{kind}"] = summary.forgetting
        values = {name: value for name, value in values.items() if not math.isnan(value)}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)
        panels = {f"{m} ({e})": self.matrix(m, e) for m, e in self.kinds() if m in _DRAWN}
        if panels and any((~matrix.isnan()).any() for matrix in panels.values()):
            picture = draw_matrices(panels, self.folder / "matrix.png")
            log_picture(trainer, "matrix", picture, step)
