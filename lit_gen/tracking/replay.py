"""What MLflow is told along a run, told once more from the run folder, where it heard too little."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lit_gen.tracking.metrics_file import read_metrics
from lit_gen.tracking.mlflow import TrackingLogger

TEXTS = ("config.yaml", "scores.csv", "summary.json")
_GRID = re.compile(r"task\d+-epoch(\d+)(?:-(\w+))?")


class Clock(NamedTuple):
    """When a run was, in ms since 1970. Its records have no times; they are laid evenly from begin to end."""

    began: int
    ended: int

    def times(self, count: int) -> list[int]:
        return np.linspace(self.began, self.ended, count).astype(int).tolist()


def clock_of(folder: Path) -> Clock:
    """From the first line of the log to the last change of the summary or, without one, of the metrics."""
    files = [folder / name for name in ("summary.json", "metrics.csv", "config.yaml")]
    ended = next((file.stat().st_mtime for file in files if file.is_file()), time.time())
    began = ended
    if (folder / "log.txt").is_file():
        with (folder / "log.txt").open(encoding="utf-8", errors="replace") as lines:
            stamp = re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", next(lines, ""))
        if stamp:
            began = min(ended, time.mktime(time.strptime(stamp[0], "%Y-%m-%d %H:%M:%S")))
    return Clock(int(began * 1000), int(ended * 1000))


def replay(
    tracker: TrackingLogger,
    folder: Path,
    about: Mapping[str, Any],
    clock: Clock,
    tested: Sequence[int],
    scores: Mapping[str, str],
    summary: Mapping[str, Any],
) -> None:
    """Tells whatever MLflow lacks of metrics, scores, pictures, texts, and what the run is `about`.

    Args:
        about: see `provenance.about_run`; {} of a folder without it.
        tested: the tasks after which there are scores.
        scores: see `TakesScores`.
        summary: see `RunRecord.finish`; {} of a folder without it.

    Raises:
        InputError: metrics.csv is damaged.
    """
    tracker.courier.takes_all = True
    tracker.look_again()
    tell_about(tracker, about)
    rows = read_metrics(folder / "metrics.csv")
    tracker.catch_up([(step, name, value) for step, _, name, value in rows], clock.times(len(rows)))
    tracker.log_scores(scores)
    ends = _ends(rows, tested)
    for key, file, step in _pictures(folder, rows, ends):
        tracker.log_picture(key, file, step)
    for name in TEXTS:
        if (folder / name).is_file():
            tracker.log_text((folder / name).read_text(encoding="utf-8"), name)
    tell_costs(tracker, summary)


def tell_costs(tracker: TrackingLogger, summary: Mapping[str, Any]) -> None:
    """What each task of a finished run of several has cost, `cost/seconds` and so on, with its number for the
    step.
    """
    tasks = summary["tasks"] if summary.get("status") == "FINISHED" and "tasks" in summary else ()
    for task in tasks if len(tasks) > 1 else ():
        named = {f"cost/{name}": value for name, value in task.items() if name != "task"}
        tracker.log_metrics({n: v for n, v in named.items() if v is not None}, step=task["task"])


def tell_about(tracker: TrackingLogger, about: Mapping[str, Any]) -> None:
    """Tags and data of a run, as `provenance.about_run` has found them."""
    tracker.set_tags(about.get("tags", {}))
    for part in about.get("data", ()):
        tracker.log_dataset(**part)


def _ends(rows: Sequence[tuple[int, int | None, str, float]], tasks: Sequence[int]) -> dict[int, int]:
    """The steps at which tasks were tested; {} where that cannot be told."""
    steps = sorted({step for step, _, name, _ in rows if name.startswith("test/")})
    return dict(zip(tasks, steps, strict=True)) if len(steps) == len(tasks) else {}


def _pictures(
    folder: Path, rows: Sequence[tuple[int, int | None, str, float]], ends: Mapping[int, int]
) -> Iterator[tuple[str, Path, int]]:
    """Key, file and step of the pictures that loggers are given."""
    last: dict[int, int] = {}  # the first step of every epoch is the one after the last of those before
    for step, epoch, _, _ in rows:
        last[epoch or 0] = max(step, last.get(epoch or 0, 0))
    for file in sorted((folder / "samples").glob("*.png")):
        if grid := _GRID.fullmatch(file.stem):
            before = [step for epoch, step in last.items() if epoch < int(grid[1])]
            yield grid[2] or "samples", file, max(before, default=-1) + 1
    for key in ("latent_map", "collapse"):
        for task, step in ends.items():
            if (file := folder / key / f"task{task}.png").is_file():
                yield key, file, step
    if ends and (file := folder / "matrix.png").is_file():
        yield "matrix", file, max(ends.values())
