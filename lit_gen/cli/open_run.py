"""From a checkpoint to the configuration, the model and the data that it was trained with."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from callbacks.ema import use_average
from lit_gen.cli.building import plain_errors
from lit_gen.cli.config import CHOSEN_ONCE, FIXED, Composed, recompose
from lit_gen.cli.run_folder import START, RunFolder
from lit_gen.cli.words import key_of
from lit_gen.core.checkpoint import LAST, PREVIOUS, Stored, load_weights, read
from lit_gen.core.module import LitGenerator, LitModel
from lit_gen.core.types import Classifies, InputError, StreamData, together
from lit_gen.evaluation.context import Context

log = logging.getLogger(__name__)


class Rebuilt(NamedTuple):
    """A model as it was when the checkpoint was written, in evaluation mode."""

    composed: Composed
    module: LitModel
    stage: int  # place in the stages of its datamodule
    current_task: int  # the last task seen
    label_counts: tuple[tuple[int, ...], ...]  # training images per class of the tasks seen; () is not known


class Opened(NamedTuple):
    """A run's model and data, ready to be looked at."""

    context: Context
    stored: Stored
    composed: Composed
    stage: int  # place in the stages of its datamodule
    folder: Path  # of the run; of the checkpoint, if that lies somewhere else
    moment: str  # "" for the newest checkpoint, "task-2" for task-2.ckpt


def read_own(path: str | Path) -> Stored:
    """A checkpoint file, or the newest one of a run folder; InputError where it is of another run."""
    stored, folder = read(path), RunFolder(Path(path).absolute())
    if (folder.path / START).is_file():
        folder.refuse_foreign(stored)
    return stored


def recomposed(stored: Stored, words: Sequence[str] = ()) -> Composed:
    """The words laid over the stored configuration, but for what belongs to the weights."""
    return recompose(stored.config, words, FIXED)


def rebuild(
    stored: Stored, words: Sequence[str] = (), device: str = "cpu", module: LitModel | None = None
) -> Rebuilt:
    """Lays the words over the stored configuration, builds the model and loads its weights.

    Args:
        module: is taken in place of the one that the configuration describes.

    Raises:
        InputError: a word is refused or wrong, the weights fit no more, or the device cannot be used.
    """
    composed = recomposed(stored, words)
    module = module or built_model(composed)
    load_weights(module, stored)
    ema = (composed.config["callbacks"] or {}).get("ema") or {}
    if ema.get("use") is not None:
        use_average(module, stored.state["callbacks"], ema["use"])
    try:
        module.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={device}: cannot be used ({str(error).splitlines()[0]})") from error
    stream = composed.config["stream"]
    current_task = stream["num_tasks"] - 1 if stream["joint"] else stored.stage
    counts = tuple(map(tuple, stored.record.get("label_counts", ())[: current_task + 1]))
    return Rebuilt(composed, module.eval(), stored.stage, current_task, counts)


def built_model(composed: Composed) -> LitModel:
    """The configuration's model with its sampler; InputError where that cannot draw from it, or where the
    configuration could not hold the model.
    """
    if composed.config["model"] is None:
        raise InputError(
            "model: this run's holds networks that were made by hand, as no configuration can. Make it again "
            "and give it: lit_gen.open_run(run, model=...), lit_gen.fit(model, data, resume=run)"
        )
    module, sampler = composed.build("model"), composed.build("sampler")
    if sampler is not None:
        if not isinstance(module, LitGenerator):
            raise InputError(f"sampler: {type(module).__name__} draws no images; use sampler=default")
        with plain_errors("sampler"):
            module.sampler = sampler
    return module


def check_parts(module: LitModel, data: StreamData, callbacks: Sequence[Any] = ()) -> None:
    """Raises InputError with what model and data, and callbacks with a `check`, have against each other."""
    if module.needs_pairs != getattr(data, "gives_pairs", False):
        what = ("two domains", "one domain") if module.needs_pairs else ("single images", "two domains")
        way_out = "data=unpaired_folders or so" if module.needs_pairs else "other data, or model=cyclegan"
        raise InputError(
            f"model: {type(module).__name__} learns from {what[0]}, and {type(data).__name__} has {what[1]}; "
            f"use {way_out}"
        )
    if _needs_classes(module) and getattr(data.dataset("train", [0]), "label", torch.empty(0)).ndim > 1:
        raise InputError(
            f"model: {type(module).__name__} learns one class of each image here, and {type(data).__name__} "
            "has attributes; leave model.condition=label out, or use data with classes"
        )
    together(*(partial(each.check, module, data) for each in callbacks if hasattr(each, "check")))


def _needs_classes(module: LitModel) -> bool:
    return "label" in getattr(module, "conditions", ()) or isinstance(module.abilities(), Classifies)


def refuse_unused(words: Sequence[str], used: Sequence[str], what: str, unused: Sequence[str] = ()) -> None:
    """Refuses words about a configuration that would be taken and change nothing.

    What belongs to a checkpoint is left to `recompose`, which says so.

    Args:
        used: keys, and with them all below.
        what: uses only these, for the message.
        unused: of what is below those; `*` and the like stand for a part of a key.

    Raises:
        InputError: names every such word, and what is used.
    """

    def is_below(key: str, tops: Sequence[str]) -> bool:
        parts, ways = key.split("."), [top.split(".") for top in tops]
        return any(len(way) <= len(parts) and all(map(fnmatch, parts, way)) for way in ways)

    keys = {word: key_of(word) for word in words}
    wrong = [
        f"{word}: would change nothing; {what} uses {', '.join(used)}"
        for word, key in keys.items()
        if not is_below(key, (*FIXED, *CHOSEN_ONCE)) and (not is_below(key, used) or is_below(key, unused))
    ]
    if wrong:
        raise InputError("\n".join(wrong))


def open_run(path: str, words: Sequence[str] = (), seed: int = 0, device: str = "cpu") -> Opened:
    """Rebuilds the model of a run folder or a checkpoint and sets its data up.

    Raises:
        InputError: the checkpoint, a word or the device cannot be used.
    """
    stored = read_own(path)
    use_own_threads(stored)
    composed, module, stage, current_task, _ = rebuild(stored, words, device=device)
    data = composed.build("data")
    data.prepare_data()
    data.setup("test")
    check_parts(module, data)
    data.current_task = current_task
    place = stored.path.absolute().parent
    folder = place.parent if place.name == "checkpoints" else place
    if changes := data.changes_since(folder / "split"):
        log.warning("%s: the data are not those of the run: %s", folder, "; ".join(changes))
    moment = "" if stored.path.name in (LAST, PREVIOUS) else stored.path.stem
    kind = label_of(composed.choices)
    context = Context(module, data, current_task + 1, name=folder.name, kind=kind, seed=seed)
    return Opened(context, stored, composed, stage, folder, moment)


def use_own_threads(stored: Stored) -> None:
    """As many CPU threads as in training, so that the numbers come out the same."""
    if isinstance(threads := stored.record.get("cpu_threads"), int):
        torch.set_num_threads(threads)


def with_distinct_names(runs: Sequence[Opened]) -> list[Opened]:
    """Each named by the last parts of its place that tell it apart; InputError where one is there twice."""
    places = [(*each.folder.parts[1:], *([each.moment] if each.moment else [])) for each in runs]
    if len(set(places)) < len(places):
        raise InputError("ckpt=: the same checkpoint is given twice; give every one once")
    count = 1
    while len({place[-count:] for place in places}) < len(places):
        count += 1
    return [
        each._replace(context=dataclasses.replace(each.context, name="/".join(place[-count:])))
        for each, place in zip(runs, places, strict=True)
    ]


def label_of(choices: dict[str, str]) -> str:
    """What a run with these choices is called in tables: its experiment, or its model."""
    return choices.get("experiment") or choices.get("paper") or choices["model"]
