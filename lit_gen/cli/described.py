"""Objects of a session as nodes of a configuration, from which they are built again."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from lit_gen.core.module import LitModel


class Undescribed(Exception):
    """Says what no configuration can hold."""


def described(value: Any, name: str) -> Any:
    """The node, list or plain value that `build` makes the same of.

    Models say what they were made with, data classes and named tuples what they hold, partials what they
    call, and of functions and of objects that are made with nothing their names are enough.

    Args:
        name: of its key, for messages.

    Raises:
        Undescribed: it is none of these, such as a network that was made by hand.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {key: described(each, f"{name}.{key}") for key, each in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return [described(each, f"{name}.{number}") for number, each in enumerate(value)]
    if isinstance(value, partial):
        node = _node(value.func, value.keywords, name) | {"_partial_": True}
        return node | ({"_args_": described(value.args, name)} if value.args else {})
    if inspect.isfunction(value) or inspect.isclass(value):
        return _node(value, {}, name) | {"_partial_": True}
    if isinstance(value, LitModel):
        args, options = value.made_with
        return _node(type(value), inspect.signature(type(value)).bind(*args, **options).arguments, name)
    if hasattr(value, "_fields"):
        return _node(type(value), value._asdict(), name)
    if dataclasses.is_dataclass(value):
        names = [each.name for each in dataclasses.fields(value) if each.init]
        return _node(type(value), {each: getattr(value, each) for each in names}, name)
    if type(value).__init__ in (object.__init__, nn.Module.__init__):
        return _node(type(value), {}, name)
    raise Undescribed(f"{name}, a {type(value).__name__}")


def _node(target: Any, values: Mapping[str, Any], name: str) -> dict[str, Any]:
    if "<" in target.__qualname__:
        raise Undescribed(f"{name}, {target.__qualname__}, which has no name from outside")
    place = target.__module__
    package = sys.modules.get(place.rpartition(".")[0])
    if getattr(package, target.__qualname__, None) is target:  # torch.optim.Adam, which is torch.optim.adam's
        place = package.__name__
    parts = {key: described(value, f"{name}.{key}") for key, value in values.items()}
    return {"_target_": f"{place}.{target.__qualname__}", **parts}
