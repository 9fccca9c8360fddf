"""The processes of a command that trains nothing, on the devices that training would choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning import Fabric

from lit_gen.cli.config import build, plain_errors
from lit_gen.cli.words import key_of

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


def without_choice(words: Sequence[str]) -> list[str]:
    """Those that `refuse_unused` is to look at: `trainer=ddp` also brings what no such command uses."""
    return [word for word in words if key_of(word) != "trainer"]
