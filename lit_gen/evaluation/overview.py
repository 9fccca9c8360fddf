"""One table over many runs: what each kind of model reached, mean and standard deviation over its seeds."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from torch import Tensor

from lit_gen.core.frozen import trainable
from lit_gen.core.types import Encodes, InputError, Restores
from lit_gen.evaluation.context import Context
from lit_gen.evaluation.plots import bars
from lit_gen.evaluation.scores_file import read_board
from lit_gen.evaluation.tables import as_markdown, short
from lit_gen.evaluation.uses.probe import Probe
from lit_gen.evaluation.uses.reconstruction import distortion
from lit_gen.metrics.task_matrix import Better

log = logging.getLogger(__name__)


class Column(NamedTuple):
    """One quantity of the table."""

    title: str
    better: Better


COLUMNS = {
    "fid": Column("FID", "lower"),
    "precision": Column("precision", "higher"),
    "recall": Column("recall", "higher"),
    "coverage": Column("coverage", "higher"),
    "prd_precision": Column("PRD precision", "higher"),
    "prd_recall": Column("PRD recall", "higher"),
    "nll": Column("NLL, nats", "lower"),
    "accuracy": Column("accuracy", "higher"),
    "task_accuracy": Column("accuracy, task told", "higher"),
    "mse": Column("squared error per pixel", "lower"),
    "linear_accuracy": Column("linear probe", "higher"),
    "knn_accuracy": Column("k-NN probe", "higher"),
    "images_per_second": Column("images/s", "higher"),
    "train_seconds": Column("training, s", ""),
    "memory_kept": Column("memory kept, MB", "lower"),
    "epochs": Column("epochs", ""),
    "parameters": Column("parameters", ""),
}
_OF_THE_MODEL = ("nll", "accuracy", "task_accuracy")
_SCORES = ("fid", "precision", "recall", "coverage", "prd_precision", "prd_recall")


class RunNumbers(NamedTuple):
    """What one run reached; a quantity that the model cannot have (no codes, no samples) is missing."""

    model: str  # runs of one name are one row of the table
    seed: int
    values: Mapping[str, float]
    judge: str  # what the scores were taken with: extractor, hash, counts; "" without scores


def read_scores(folder: Path) -> tuple[dict[str, float], str]:
    """Scores over all tasks after the last one, from a run folder's scores.csv, and who judged.

    A run without that file has none. Of several extractors the first counts.

    Raises:
        InputError: see `read_board`.
    """
    found = read_board(folder).rows
    rows = [row for row in found.get(max(found, default=0), ()) if row.on_task is None]
    judged = [row for row in rows if row.metric in _SCORES]
    judged = [row for row in judged if row.extractor == judged[0].extractor]
    kept = [*(row for row in rows if row.metric in _OF_THE_MODEL), *judged]
    judge = [
        f"{row.extractor} ({row.extractor_hash}), {row.num_real} real and {row.num_fake} generated images"
        for row in judged[:1]
    ]
    return {row.metric: row.value for row in kept if math.isfinite(row.value)}, "".join(judge)


def training_speed(phases: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Seconds of training (without validation and scoring) and images per second, of a summary's phases."""
    images, seconds = (sum(phase[key] for phase in phases) for key in ("images", "seconds"))
    return {"train_seconds": seconds, **({"images_per_second": images / seconds} if seconds else {})}


def memory_kept(tasks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Megabytes that a method of several tasks keeps of the past at most, of a summary's tasks."""
    sums = [sum(size for name, size in task.items() if name.startswith("bytes_of_")) for task in tasks]
    return {"memory_kept": max(sums) / 1e6} if len(sums) > 1 else {}


def measure(context: Context, probe: Probe) -> dict[str, float]:
    """What needs the model itself: reconstruction error, accuracy of probes, number of parameters."""
    values: dict[str, float] = {"parameters": sum(p.numel() for p in trainable(context.model))}
    able = context.model.abilities()
    if isinstance(able, Restores):
        values["mse"] = distortion(context)["mse"]
    if isinstance(able, Encodes):
        try:
            row = probe(context).table[0]
        except InputError as reason:  # images without classes are no reason against the rest of the table
            log.warning("%s: no probe, since %s", context.name, reason)
        else:
            values |= {name: float(row[name]) for name in ("linear_accuracy", "knn_accuracy")}
    return values


def frame_of(runs: Sequence[RunNumbers]) -> pd.DataFrame:
    """A line per run: model, seed, the quantities that some run has, and what the scores were taken with."""
    keys = [key for key in COLUMNS if any(key in run.values for run in runs)]
    lines = [[run.model, run.seed, *(run.values.get(key) for key in keys), run.judge] for run in runs]
    return pd.DataFrame(lines, columns=["model", "seed", *keys, "scored_with"], dtype=object)


def overview_of(frame: pd.DataFrame) -> pd.DataFrame:
    """A line per model, in the order in which they come first: its seeds, and of every quantity the mean over
    seeds, the standard deviation ("fid_std", NaN for one seed) and the number of seeds with it ("fid_n").
    """
    groups = frame.groupby("model", sort=False)
    parts = {"seeds": groups["seed"].agg(lambda seeds: " ".join(map(str, seeds)))}
    for key in [key for key in COLUMNS if key in frame]:
        numbers = frame[key].astype(float).groupby(frame["model"], sort=False)
        parts |= {key: numbers.mean(), f"{key}_std": numbers.std(), f"{key}_n": numbers.count()}
    return pd.DataFrame(parts).reset_index()


def markdown(overview: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """The table as Markdown, the best mean of a column in bold, and notes below it."""
    lines = []
    for row in overview.to_dict("records"):
        count = len(row["seeds"].split())
        line = {"model": row["model"], "seeds": count}
        for key, (title, better) in COLUMNS.items():
            if key not in row:
                continue
            mean, std, known = row[key], row[f"{key}_std"], row[f"{key}_n"]
            text = short(mean)
            if not math.isnan(std) and (std > 0 or better):
                text = f"{text} +- {short(std)}"
            if known not in (0, count):
                text = f"{text} ({known} of {count})"
            means = overview[key].dropna()
            best = means.min() if better == "lower" else means.max()
            line[title] = f"**{text}**" if better and mean == best and len(means) > 1 else text
        lines.append(line)
    return "\n".join([as_markdown(lines), *(f"\n{note}" for note in notes)]) + "\n"


def picture_of(overview: pd.DataFrame) -> Tensor:
    """A panel per quantity, a bar per model with the standard deviation over seeds: uint8 [H, W, 3]."""
    panels = {}
    for key, (title, better) in COLUMNS.items():
        if key in overview:
            lengths = zip(overview[key], overview[f"{key}_std"], strict=True)
            lengths = dict(zip(overview["model"], lengths, strict=True))
            panels[f"{title}, {better} is better" if better else title] = lengths
    return bars(panels)
