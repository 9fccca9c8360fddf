"""lit-gen compare: one table over several models, trained the same way, or over runs that there are."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt, Lt

from lit_gen.cli.config import compose
from lit_gen.cli.log import log_to
from lit_gen.cli.open_run import label_of, open_run, refuse_unused
from lit_gen.cli.run_folder import SUMMARY, RunFolder
from lit_gen.cli.runs import SETTINGS, Series
from lit_gen.cli.words import key_of, own_words
from lit_gen.core.checkpoint import read_newest
from lit_gen.core.files import new_or_empty, writable_folder, write_json, write_text
from lit_gen.core.progress import stored_epochs
from lit_gen.core.types import InputError, NonNegative, Positive
from lit_gen.evaluation.overview import (
    RunNumbers,
    frame_of,
    markdown,
    measure,
    memory_kept,
    overview_of,
    picture_of,
    read_scores,
    training_speed,
)
from lit_gen.evaluation.plots import write_picture
from lit_gen.evaluation.tables import as_csv
from lit_gen.evaluation.uses.probe import Probe

log = logging.getLogger(__name__)

HELP = """lit-gen compare models=NAME,... out=FOLDER [seeds=0,1] [epochs=N | minutes=M] [KEY=VALUE ...]
lit-gen compare experiments=NAME,... out=FOLDER [seeds=0,1] [epochs=N | minutes=M] [KEY=VALUE ...]
lit-gen compare runs=RUN,... out=FOLDER [KEY=VALUE ...]

One table over several models: quality of samples, reconstruction, probes of codes, speed, size.

  models       each is a row, and is trained with each seed, one run after the other, in out/<model>/seed-<k>:
               a run that is finished is not repeated, one that was stopped goes on, one that fails is named
               at the end
  experiments  the same with named runs, in place of models
  runs         the same with run folders that there are; those that differ in their seed only are one row
  seeds        numbers with commas; the table has means and standard deviations over them
  epochs       of every run, in place of its own
  minutes      of training, without validation and scoring: every row gets as many epochs as fit, by a trial
               of it. A model that says itself how long its phases last keeps to that
  KEY          changes every run: data=mnist, recipe=autoencoder, net=conv, data.root=..., logger=csv, ...;
               of runs= only data.* and callbacks.ema.use
  out          overview.md, .csv and .png, and runs.csv with every run's own numbers; a new folder, or one of
               a comparison before: of models= and experiments= with the same settings

Examples
  lit-gen compare models=ae,vae,cwae recipe=autoencoder seeds=0,1,2 out=overview
  lit-gen compare models=ae,vae net=conv data=mnist recipe=autoencoder minutes=3 out=overview data.root=~/data
  lit-gen compare experiments=dcgan_mnist,wgan_gp_mnist seeds=0,1 epochs=5 out=overview
  lit-gen compare runs=runs/a,runs/b,runs/c out=overview
"""

_ROWS = ("models", "experiments", "runs")
_OWN = {
    **dict.fromkeys(_ROWS, list[str]),
    "seeds": list[NonNegative],
    "out": Path,
    "epochs": Positive,
    "minutes": Annotated[float, Gt(0), Lt(math.inf)],
}
_FILES = ("overview.md", "overview.csv", "overview.png", "runs.csv")
_PER_RUN = ("seed", "output_dir", "resume", "name")
_WHERE = ("logger", "checkpoint", "cpu_threads")  # no run computes anything else by them
_PROBE = Probe()
_FORMAT = 1  # raised when `measure` measures something else


def run(words: list[str]) -> int:
    log_to(None, logging.WARNING)
    own, others = own_words(words, _OWN, needed=("out",))
    given = [key for key in _ROWS if key in own]
    if len(given) != 1:
        raise InputError("give one of models=, experiments= and runs=; see lit-gen compare --help")
    if given == ["runs"]:
        for key in ("seeds", "epochs", "minutes"):
            if key in own:
                raise InputError(f"{key}={own[key]}: the runs of runs= are trained already; leave it out")
        refuse_unused(others, ("data", "callbacks.ema.use"), "runs=", ("data.flip",))
        new_or_empty("out", own["out"], lambda path: path.name in _FILES)
        labels = _labels([Path(path) for path in dict.fromkeys(own["runs"])])
        numbers, failures = [_numbers(label, folder, others) for folder, label in labels.items()], []
        writable_folder("out", own["out"])
    else:
        numbers, failures = _trained(_series(given[0], own, others))
    if numbers:
        print(_write(numbers, own["out"]))
    for failure in failures:
        print(f"failed: {failure}")
    return 1 if failures else 0


def _trained(series: Series) -> tuple[list[RunNumbers], list[str]]:
    """Numbers of the runs that reached their end, and what to say about the others."""
    numbers, failures = [], []
    for each in series.runs:
        failure = series.train(each)
        if failure is None:
            try:
                numbers.append(_numbers(each.name, each.folder, ()))
            except InputError as mistake:
                failure = f"{each}: {mistake}"
        if failure is not None:
            failures.append(failure)
    return numbers, failures


def _series(rows: str, own: Mapping[str, Any], overrides: Sequence[str]) -> Series:
    """The runs to be made; InputError where a row does not compose with the overrides."""
    group, names = rows.removesuffix("s"), list(dict.fromkeys(own[rows]))
    seeds, epochs, minutes = own.get("seeds", [0]), own.get("epochs"), own.get("minutes")
    if epochs and minutes:
        raise InputError("give either epochs= or minutes=: both say how long a run trains")
    for word in overrides:
        key = key_of(word)
        if key in (group, *_PER_RUN):
            raise InputError(f"{word}: every run has its own; use {rows}=, seeds= and out=")
        if key == "trainer.max_epochs" and (epochs or minutes):
            raise InputError(f"{word}: epochs= and minutes= set it; give one of them")
    for name in names:
        compose("train", [f"{group}={name}", f"seed={seeds[0]}", *overrides])
    if not (own["out"] / SETTINGS).is_file():
        new_or_empty("out", own["out"], lambda path: path.name in names)
    out = writable_folder("out", own["out"])
    return Series(group, names, list(dict.fromkeys(seeds)), out, overrides, epochs, minutes)


def _labels(folders: Sequence[Path]) -> dict[Path, str]:
    """By experiment or model, other settings of it with a number; InputError where a folder holds no run."""
    known: dict[str, list[str]] = {}  # label -> settings but for the seed, in the order they came
    labels = {}
    for folder in folders:
        config = read_newest(folder).config
        label = label_of(config["choices"])
        computed = {key: value for key, value in config.items() if key not in (*_PER_RUN, *_WHERE)}
        computed["data"] = {key: value for key, value in config["data"].items() if key != "root"}
        settings = json.dumps(computed, sort_keys=True)
        ways = known.setdefault(label, [])
        if settings not in ways:
            ways.append(settings)
        number = ways.index(settings) + 1
        labels[folder] = label if number == 1 else f"{label} ({number})"
    return labels


def _numbers(label: str, folder: Path, overrides: Sequence[str]) -> RunNumbers:
    """What a run wrote down, and what is measured on its model; that is kept in the run's folder.

    Raises:
        InputError: the run is not finished or cannot be read.
    """
    scores, judge = read_scores(folder)
    summary = RunFolder(folder).read_summary()
    if summary.get("status") != "FINISHED":
        how = summary.get("status", f"not finished ({SUMMARY} is missing)")
        raise InputError(f"{folder}: this run is {how}; lit-gen train resume={folder} goes on with it")
    values = scores | training_speed(summary["phases"]) | memory_kept(summary.get("tasks", ()))
    stored = read_newest(folder)
    values["epochs"] = stored_epochs(stored.state)
    stamp = stored.path.stat()
    about = {
        "format": _FORMAT,
        "checkpoint": [stamp.st_size, stamp.st_mtime_ns],
        "probe": dataclasses.asdict(_PROBE),
        "overrides": list(overrides),
    }
    kept = folder / "analysis" / "overview.json"
    measured = _kept(kept, about)
    if measured is None:
        measured = measure(open_run(str(folder), overrides).context, _PROBE)
        writable_folder("runs", kept.parent)
        write_json(kept, {"about": about, "values": measured})
    seed = int(stored.config["seed"])
    return RunNumbers(label, seed, values | measured, judge)


def _kept(file: Path, about: dict[str, Any]) -> dict[str, float] | None:
    """What was measured before in the same way; None if nothing was."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        return known["values"] if known["about"] == about else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        log.warning("%s cannot be read; measured again", file)
        return None


def _write(numbers: Sequence[RunNumbers], out: Path) -> str:
    """Writes the table's files and returns it as Markdown."""
    frame = frame_of(numbers)
    overview = overview_of(frame)
    text = markdown(overview, _notes(numbers))
    write_text(out / "overview.md", text)
    write_text(out / "overview.csv", as_csv(overview))
    write_text(out / "runs.csv", as_csv(frame))
    write_picture(out / "overview.png", picture_of(overview))
    return f"{text}\n{out / 'overview.md'}, .csv, .png and {out / 'runs.csv'}"


def _notes(numbers: Sequence[RunNumbers]) -> list[str]:
    judges = list(dict.fromkeys(each.judge for each in numbers if each.judge))
    scored = [f"Scores of samples: {'; '.join(judges)}."] if judges else []
    if len(judges) > 1:
        scored.append("They were not all taken with the same judge and counts, and cannot be compared then.")
    return [
        *scored,
        "Mean +- standard deviation over seeds. Squared error per pixel: of test images, pixels from 0 to 1. "
        f"Probes: accuracy on codes of test images, fitted on {_PROBE.n:,} codes of training images at most; "
        f"k = {_PROBE.neighbours}. Training: seconds without validation and scoring.",
    ]
