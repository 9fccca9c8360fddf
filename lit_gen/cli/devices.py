"""The processes of a command that trains nothing, on the devices that training would choose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lightning import Fabric

from lit_gen.cli.config import build, plain_errors
from lit_gen.cli.words import key_of
from lit_gen.core.processes import united
from lit_gen.core.random import processes
from lit_gen.core.types import InputError

_USED = ("accelerator", "devices", "num_nodes", "strategy", "precision", "plugins")
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
    given = {name: trainer[name] for name in _USED if name in trainer}
    with plain_errors("trainer", given):
        plugins = build(given.pop("plugins", None), "trainer.plugins")
        try:
            fabric = Fabric(**given, plugins=plugins)
        except RuntimeError as error:  # where Trainer raises one of its own
            raise ValueError(str(error)) from error
        fabric.launch()
    return fabric


def with_one_device(words: Sequence[str]) -> list[str]:
    """The words over a checkpoint's configuration, whose own trainer counts no more."""
    return [*words] if any(key_of(word) == "trainer" for word in words) else ["trainer=default", *words]


def without_groups(words: Sequence[str]) -> list[str]:
    """Those that `refuse_unused` is to look at: a whole trainer brings what no such command uses."""
    return [word for word in words if key_of(word) != "trainer"]


@contextmanager
def wrong_for_all() -> Iterator[None]:
    """What cannot be used by one process ends all of them at the end of the block, which all reach; the first
    says what every one has found.
    """
    said: set[str] = set()
    try:
        yield
    except InputError as error:
        said.add(str(error))
    if wrong := united(said):
        if processes()[1] > 0:
            raise SystemExit(0)  # another code, and the first is killed before it has spoken
        raise InputError("\n".join(wrong))
