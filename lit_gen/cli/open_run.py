"""From a run to what the analyses of lit_gen.evaluation.uses are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from lit_gen.cli.compose import Composed
from lit_gen.cli.rebuild import rebuild
from lit_gen.core.checkpoint import LAST, PREVIOUS, Stored, read
from lit_gen.core.types import InputError
from lit_gen.evaluation.subject import Subject


class Opened(NamedTuple):
    """A run's model and data, ready to be looked at."""

    subject: Subject
    stored: Stored
    composed: Composed
    folder: Path  # of the run; of the checkpoint, if that lies somewhere else
    moment: str  # "" for the newest checkpoint, "task-2" for task-2.ckpt


def open_run(path: str, overrides: Sequence[str] = (), seed: int = 0, device: str = "cpu") -> Opened:
    """Rebuilds the model of a run folder or a checkpoint and sets its data up.

    Raises:
        InputError: the checkpoint, an override or the device cannot be used.
    """
    stored = read(path)
    if isinstance(threads := stored.record.get("cpu_threads"), int):
        torch.set_num_threads(threads)  # as in training, so that the numbers come out the same
    composed, module, _, current_task = rebuild(stored, overrides)
    data = composed.build("data")
    data.prepare_data()
    data.setup("test")
    data.current_task = current_task
    try:
        module.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={device}: cannot be used ({str(error).splitlines()[0]})") from error
    folder = folder_of(stored.path)
    moment = "" if stored.path.name in (LAST, PREVIOUS) else stored.path.stem
    subject = Subject(folder.name, label_of(composed), module, data, current_task + 1, seed)
    return Opened(subject, stored, composed, folder, moment)


def with_distinct_names(runs: Sequence[Opened]) -> list[Opened]:
    """Names each run by as many of the last parts of its place as tell it from the others.

    Raises:
        InputError: a checkpoint is there twice.
    """
    places = [(*each.folder.parts[1:], *([each.moment] if each.moment else [])) for each in runs]
    if len(set(places)) < len(places):
        raise InputError("ckpt=: the same checkpoint is given twice; give every one once")
    count = 1
    while len({place[-count:] for place in places}) < len(places):
        count += 1
    names = ["/".join(place[-count:]) for place in places]
    return [
        each._replace(subject=dataclasses.replace(each.subject, name=name))
        for each, name in zip(runs, names, strict=True)
    ]


def folder_of(checkpoint: Path) -> Path:
    """The run folder that a checkpoint file lies in, or else the folder that it lies in."""
    place = checkpoint.absolute().parent
    return place.parent if place.name == "checkpoints" else place


def label_of(composed: Composed) -> str:
    """What a run of this configuration is called in tables: its experiment, or its model."""
    return composed.choices.get("experiment") or composed.choices.get("paper") or composed.choices["model"]
