"""From a node of a configuration to an object, and from what its constructor raises to a message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_gen.cli import group_names
from lit_gen.cli.allowed import locate
from lit_gen.core.memory import OutOfMemory, WithinMemory, is_beyond_memory
from lit_gen.core.types import InputError, below

_MISTAKES = (ValueError, TypeError, MisconfigurationException, ModuleNotFoundError)


def build(node: Any, name: str, **given: Any) -> Any:
    """The object that a node with `_target_` describes, or the objects in a list or dictionary of nodes.

    Args:
        name: the node's key, for messages.
        given: arguments that no config can hold, handed over as they are.

    Raises:
        InputError: a constructor refused its arguments.
    """
    if not node:
        return None
    if isinstance(node, list):
        return [_part(each, f"{name}.{number}") for number, each in enumerate(node)]
    values = {key: _part(each, f"{name}.{key}") for key, each in node.items()}
    if "_target_" not in node:
        return values
    target, args = values.pop("_target_"), values.pop("_args_", [])
    with plain_errors(name, node), WithinMemory():
        target, is_partial = locate(target), values.pop("_partial_", False)
        if given or not is_partial:
            return target(*args, **values, **given)
        # Without arguments as it is: a loss is called in every step, and a partial takes its time.
        return partial(target, *args, **values) if args or values else target


def _part(node: Any, name: str) -> Any:
    return build(node, name) if node and isinstance(node, dict | list) else node


@contextmanager
def plain_errors(name: str, node: Any = None) -> Iterator[None]:
    """Turns what constructors and Lightning raise about their arguments into InputError "name: ...".

    A message that begins with one of the arguments becomes "name.argument=...", one that begins with a whole
    key stays as it is. Where memory does not suffice, the largest number of the node is named. Other
    exceptions leave as they were.
    """
    try:
        yield
    except Exception as error:
        cause, text = error, str(error)
        largest = max(_numbers(node, name), default=None)
        if is_beyond_memory(cause):
            cause = OutOfMemory(f"this takes more memory than there is ({first_lines(cause)}).")
        if isinstance(cause, OutOfMemory):
            there = f" The largest number there is {largest[1]}={largest[0]}." if largest else ""
            raise InputError(f"{name}: {cause}{there}") from error
        if isinstance(cause, KeyError) and text.startswith("'SLURM_"):
            raise InputError(
                f"{name}: {text} is not set. trainer=slurm is for processes that srun has started, see "
                "docs/slurm.sbatch; elsewhere take trainer=ddp."
            ) from cause
        first = re.match(r"(\w+)[\w.]*[=:]", text)
        is_whole = first and first[1] in (name.partition(".")[0], *group_names())
        if isinstance(cause, _MISTAKES) and not (isinstance(cause, InputError) and is_whole):
            raise InputError(below(name, text)) from cause
        raise


def _numbers(node: Any, key: str) -> Iterator[tuple[int, str]]:
    """Every whole number of a node, with its key."""
    if isinstance(node, int) and not isinstance(node, bool):
        yield node, key
    parts = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, part in parts:
        yield from _numbers(part, f"{key}.{name}")


def first_lines(error: Exception) -> str:
    """The first three lines of what an exception says, in one."""
    return " ".join([line.strip() for line in str(error).splitlines() if line.strip()][:3])
