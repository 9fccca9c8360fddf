"""The processes of a command that trains nothing, on the devices that training would choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning import Fabric

from lit_gen.cli.building import build, plain_errors
from lit_gen.cli.config import Composed, compose, recompose
from lit_gen.cli.launchers import patience, settle
from lit_gen.cli.words import key_of

_PLACE = ("accelerator", "devices", "num_nodes", "strategy", "plugins")
_USED = (*_PLACE, "precision")
KEYS = tuple(f"trainer.{name}" for name in _USED)
"""What such a command uses of a trainer, for `refuse_unused`."""


def launched(trainer: Mapping[str, Any]) -> Fabric:
    """Starts this command again for every further device, or finds its place among those that torchrun or
    srun have started; then all of them are here.

    Args:
        trainer: the node of a configuration.

    Raises:
        InputError: there are no such devices, or no such strategy.
    """
    settle(trainer)
    given = {name: trainer[name] for name in _USED if name in trainer}
    with plain_errors("trainer", given):
        plugins = build(given.pop("plugins", None), "trainer.plugins")
        try:
            fabric = Fabric(**given, plugins=plugins)
        except RuntimeError as error:  # where Trainer raises one of its own
            raise ValueError(str(error)) from error
        with patience(fabric.strategy):
            fabric.launch()
    return fabric


def moved_to(source: Mapping[str, Any], words: Sequence[str]) -> Composed:
    """A run's stored configuration with words over it. Of these `trainer=NAME` says only where it goes on:
    all else of the Trainer stays as it was stored, unless a word names the key.

    Raises:
        InputError: see `recompose`.
    """
    groups = [word for word in words if key_of(word) == "trainer"]
    if groups:
        chosen = compose("train", groups).source
        places = {name: chosen["trainer"][name] for name in _PLACE if name in chosen["trainer"]}
        kept = {name: value for name, value in source["trainer"].items() if name not in _PLACE}
        choices = source.get("choices", {}) | {"trainer": chosen["choices"]["trainer"]}
        source = {**source, "trainer": kept | places, "choices": choices}
    return recompose(source, [word for word in words if word not in groups])


def with_one_device(words: Sequence[str]) -> list[str]:
    """The words over a checkpoint's configuration, whose own trainer counts no more."""
    return [*words] if any(key_of(word) == "trainer" for word in words) else ["trainer=default", *words]


def without_choice(words: Sequence[str]) -> list[str]:
    """Those that `refuse_unused` is to look at: `trainer=ddp` also brings what no such command uses."""
    return [word for word in words if key_of(word) != "trainer"]
