"""One table over many runs: what each kind of model reached, mean and standard deviation over its seeds."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lit_gen.core.frozen import trainable
from lit_gen.core.types import InputError
from lit_gen.evaluation.plots import panels
from lit_gen.evaluation.subject import Encodes, Restores, Subject
from lit_gen.evaluation.uses.probe import Probe
from lit_gen.evaluation.uses.reconstruction import reconstruction_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes


log = logging.getLogger(__name__)


class Column(NamedTuple):
    """One quantity of the table."""

    key: str
    title: str
    better: str  # "lower", "higher", or "" where neither is


COLUMNS = (
    Column("fid", "FID", "lower"),
    Column("precision", "precision", "higher"),
    Column("recall", "recall", "higher"),
    Column("coverage", "coverage", "higher"),
    Column("prd_precision", "PRD precision", "higher"),
    Column("prd_recall", "PRD recall", "higher"),
    Column("nll", "NLL, nats", "lower"),
    Column("mse", "squared error per pixel", "lower"),
    Column("linear_accuracy", "linear probe", "higher"),
    Column("knn_accuracy", "k-NN probe", "higher"),
    Column("images_per_second", "images/s", "higher"),
    Column("train_seconds", "training, s", ""),
    Column("epochs", "epochs", ""),
    Column("parameters", "parameters", ""),
)
_SCORES = ("fid", "precision", "recall", "coverage", "prd_precision", "prd_recall")


class RunNumbers(NamedTuple):
    """What one run reached; a quantity that the model cannot have (no codes, no samples) is missing."""

    model: str  # runs of one name are one row of the table
    seed: int
    values: Mapping[str, float]
    judge: str  # what the scores were taken with: extractor, hash, counts; "" without scores


class Cell(NamedTuple):
    """A quantity over the seeds of a model."""

    mean: float
    std: float  # of a sample; NaN for one seed
    count: int


class Row(NamedTuple):
    """A model's line."""

    model: str
    seeds: tuple[int, ...]
    cells: Mapping[str, Cell]  # by key of COLUMNS


def read_scores(folder: Path) -> tuple[dict[str, float], str]:
    """Scores over all tasks after the last one, from a run folder's scores.csv, and who judged.

    A run without that file has none. Of several extractors the first counts.

    Raises:
        InputError: the file is none of ours.
    """
    file = folder / "scores.csv"
    if not file.is_file():
        return {}, ""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    try:
        last = max((int(row["after_task"]) for row in rows), default=0)
        rows = [r for r in rows if int(r["after_task"]) == last and r["on_task"] == "all"]
        found = {r["metric"]: float(r["value"]) for r in rows if r["metric"] == "nll"}
        rows = [r for r in rows if r["metric"] in _SCORES]
        rows = [r for r in rows if r["extractor"] == rows[0]["extractor"]]
        found |= {row["metric"]: float(row["value"]) for row in rows}
        judges = [
            f"{r['extractor']} ({r['extractor_hash']}), {r['num_real']} real and {r['num_fake']} generated "
            "images"
            for r in rows
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as a run's scores ({error})") from error
    return {name: value for name, value in found.items() if math.isfinite(value)}, judges[0] if judges else ""


def read_summary(folder: Path) -> dict[str, float]:
    """Seconds of training (without validation and scoring) and images per second, from summary.json.

    Raises:
        InputError: the run has not ended well, or the file is none of ours.
    """
    file = folder / "summary.json"
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
        status, phases = summary["status"], summary["phases"]
        images = sum(phase["images"] for phase in phases)
        seconds = sum(phase["seconds"] for phase in phases)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}: holds no finished run ({file.name} is missing or cannot be read); lit-gen train "
            f"resume={folder} finishes it"
        ) from error
    if status != "FINISHED":
        raise InputError(f"{folder}: this run is {status}; lit-gen train resume={folder} goes on with it")
    return {"train_seconds": seconds, **({"images_per_second": images / seconds} if seconds else {})}


def measure(subject: Subject, probe: Probe) -> dict[str, float]:
    """What needs the model itself: reconstruction error, accuracy of probes, number of parameters."""
    values: dict[str, float] = {"parameters": sum(p.numel() for p in trainable(subject.model))}
    able = subject.model.abilities()
    if isinstance(able, Restores):
        values["mse"] = float(reconstruction_errors(subject).mean())
    if isinstance(able, Encodes):
        try:
            row = probe(subject).table[0]
        except InputError as reason:  # images without classes are no reason against the rest of the table
            log.warning("%s: no probe, since %s", subject.name, reason)
        else:
            values |= {name: float(row[name]) for name in ("linear_accuracy", "knn_accuracy")}
    return values


def rows_of(runs: Sequence[RunNumbers]) -> list[Row]:
    """One row per model, in the order in which they come first."""
    rows = []
    for model in dict.fromkeys(run.model for run in runs):
        same = [run for run in runs if run.model == model]
        cells = {}
        for column in COLUMNS:
            values = [run.values[column.key] for run in same if column.key in run.values]
            if values:
                cells[column.key] = _cell(values)
        rows.append(Row(model, tuple(run.seed for run in same), cells))
    return rows


def used_columns(rows: Sequence[Row]) -> list[Column]:
    """The columns in which some model has a number."""
    return [column for column in COLUMNS if any(column.key in row.cells for row in rows)]


def markdown(rows: Sequence[Row], notes: Sequence[str] = ()) -> str:
    """The table as Markdown, the best mean of a column in bold, and notes below it."""
    columns = used_columns(rows)
    lines = [
        f"| {' | '.join(['model', 'seeds', *(column.title for column in columns)])} |",
        f"|{'---|' * (len(columns) + 2)}",
    ]
    for row in rows:
        cells = [_in_words(column, row, rows) for column in columns]
        lines.append(f"| {' | '.join([row.model, str(len(row.seeds)), *cells])} |")
    return "\n".join([*lines, *(f"\n{note}" for note in notes)]) + "\n"


def csv_of_rows(rows: Sequence[Row]) -> str:
    """The table with every digit: mean, standard deviation (empty for one seed) and number of seeds."""
    columns = used_columns(rows)
    names = [name for column in columns for name in (column.key, f"{column.key}_std", f"{column.key}_n")]
    lines: list[list[object]] = [["model", "seeds", *names]]
    for row in rows:
        line: list[object] = [row.model, " ".join(map(str, row.seeds))]
        for column in columns:
            cell = row.cells.get(column.key)
            line += ["", "", 0] if cell is None else [cell.mean, _digits(cell.std), cell.count]
        lines.append(line)
    return _csv(lines)


def csv_of_runs(runs: Sequence[RunNumbers]) -> str:
    """Every run's own numbers."""
    keys = [column.key for column in COLUMNS if any(column.key in run.values for run in runs)]
    lines = [[run.model, run.seed, *(run.values.get(key, "") for key in keys), run.judge] for run in runs]
    return _csv([["model", "seed", *keys, "scored_with"], *lines])


def bars(rows: Sequence[Row]) -> Tensor:
    """A panel per quantity, a bar per model with the standard deviation over seeds: uint8 [H, W, 3]."""
    names = [row.model for row in rows]

    def panel(column: Column) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            cells = [row.cells.get(column.key, Cell(math.nan, math.nan, 0)) for row in rows]
            errors = [0.0 if math.isnan(cell.std) else cell.std for cell in cells]
            places = range(len(rows))
            colours = [f"C{place % 10}" for place in places]
            axes.barh(places, [cell.mean for cell in cells], xerr=errors, color=colours, capsize=2)
            axes.set_yticks(places, names, fontsize=7)
            axes.invert_yaxis()
            axes.tick_params(axis="x", labelsize=7)
            better = f", {column.better} is better" if column.better else ""
            axes.set_title(f"{column.title}{better}", fontsize=9)

        return draw

    height = 0.8 + 0.22 * len(rows)
    return panels([panel(column) for column in used_columns(rows)], 3.9, max(height, 1.6))


def _cell(values: Sequence[float]) -> Cell:
    numbers = torch.tensor(values, dtype=torch.float64)
    return Cell(float(numbers.mean()), float(numbers.std()) if len(numbers) > 1 else math.nan, len(numbers))


def _in_words(column: Column, row: Row, rows: Sequence[Row]) -> str:
    cell = row.cells.get(column.key)
    if cell is None:
        return "-"
    text = number(cell.mean)
    if not math.isnan(cell.std) and (cell.std > 0 or column.better):
        text = f"{text} +- {number(cell.std)}"
    if cell.count != len(row.seeds):
        text += f" ({cell.count} of {len(row.seeds)})"
    means = [other.cells[column.key].mean for other in rows if column.key in other.cells]
    best = min(means) if column.better == "lower" else max(means)
    return f"**{text}**" if column.better and cell.mean == best and len(means) > 1 else text


def number(value: float) -> str:
    """Three digits that matter; counts are whole."""
    if not math.isfinite(value):
        return "-"
    if value == round(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, 3 if abs(value) >= 0.1 else 5)}f}"


def _digits(value: float) -> float | str:
    return "" if math.isnan(value) else value


def _csv(lines: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
