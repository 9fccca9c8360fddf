"""Whether a value of a config fits a type hint, and how to say what the hint asks for.

pydantic decides, strictly: "1" is no number, true is no int, 1 is no bool, while an int is a float. Signs
and ranges come from hints such as `Annotated[int, Gt(0)]`. What pydantic cannot know, nodes with `_target_`,
is decided here: does the target make what the hint asks for? Where that is not known, the answer is yes.
"""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as at
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import SchemaError

from lit_gen.cli.signatures import ANYTHING, locate, produced_by
from lit_gen.core.types import InputError


def fits(hint: Any, value: Any) -> bool:
    """Whether a constructor with this hint can be given the value (plain containers, nodes among them)."""
    if hint in (ANYTHING, Any, object) or isinstance(hint, typing.TypeVar):
        return True
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(arg, value) for arg in args)
    if is_node(value):
        return _node_fits(hint, value)
    if isinstance(value, dict | list) and _holds_nodes(value):
        if origin is Annotated:
            return fits(args[0], value)
        return _items_fit(hint, value)
    if isinstance(value, dict | list) and inspect.isclass(hint) and not _is_container(hint):
        return False
    return _valid(hint, value)


def _valid(hint: Any, value: Any) -> bool:
    """Whether pydantic takes it. As JSON, which is what a config says: a list is a tuple, a text a path."""
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except (PydanticUserError, SchemaError, NameError, TypeError):
        return True  # pydantic has no opinion on this hint
    try:
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError:
        return False
    except TypeError:
        return True
    return True


def _items_fit(hint: Any, value: dict[Any, Any] | list[Any]) -> bool:
    """A list or dictionary with nodes in it, whose items are looked at one by one."""
    origin, args = get_origin(hint) or hint, get_args(hint)
    if not inspect.isclass(origin):
        return True
    if not _is_container(origin) or issubclass(origin, Mapping) != isinstance(value, dict):
        return origin is typing.Protocol or bool(getattr(origin, "_is_protocol", False))
    if isinstance(value, dict):
        return len(args) < 2 or all(fits(args[1], item) for item in value.values())
    if origin is tuple and args and args[-1] is not Ellipsis:
        return len(args) == len(value) and all(map(fits, args, value))
    return not args or all(fits(args[0], item) for item in value)


def _node_fits(hint: Any, node: dict[str, Any]) -> bool:
    """Whether what the node makes is what is asked for; where that is not known, yes."""
    if get_origin(hint) is Annotated:
        return _node_fits(get_args(hint)[0], node)
    wanted = get_origin(hint) or hint
    if wanted is Literal or wanted is None or wanted is type(None):
        return False
    try:
        target = locate(node["_target_"])
    except (InputError, AttributeError):
        return True  # has its own message
    if node.get("_partial_"):
        return not inspect.isclass(wanted) or issubclass(Callable, wanted) or _is_protocol(wanted)
    made = produced_by(target)
    if made is None or not inspect.isclass(wanted) or _is_protocol(wanted):
        return True
    if issubclass(made, wanted) or (wanted is float and made is int):
        return True
    # A function may say less about its result than it could.
    return not inspect.isclass(target) and issubclass(wanted, made)


def mismatch(hint: Any, value: Any, expected: str | None = None) -> str:
    """What to say where it does not fit: "expected float, got 'abc'"."""
    return f"expected {expected or describe(hint)}, got {shown(value)}"


def describe(hint: Any) -> str:
    """A hint as a person would say it."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is None or hint is type(None):
        return "null"
    if origin is Annotated:
        bounds = " and ".join(filter(None, map(_bound, _constraints(args[1:]))))
        return f"{describe(args[0])} {bounds}".rstrip()
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(describe, args)))
    if origin is Literal:
        shown = [repr(arg) if isinstance(arg, str) else json.dumps(arg) for arg in args]
        return f"one of {', '.join(shown)}" if len(shown) > 1 else shown[0]
    if origin is not None and inspect.isclass(origin):
        if issubclass(origin, Mapping):
            return "a dictionary"
        if issubclass(origin, Callable):
            return "a function (a node with _target_)"
        items = dict.fromkeys(describe(arg) for arg in args if arg is not Ellipsis)
        return f"a list of {' and '.join(items)}" if _is_container(origin) else origin.__name__
    if inspect.isclass(hint) and hint.__module__ not in ("builtins", "pathlib"):
        return f"{hint.__name__} (a node with _target_)"
    return getattr(hint, "__name__", str(hint))


def _constraints(metadata: tuple[Any, ...]) -> Iterator[Any]:
    for item in metadata:
        if isinstance(item, at.GroupedMetadata):
            yield from item
        else:
            yield from getattr(item, "metadata", [item])  # pydantic.Field keeps a list of them


def _bound(constraint: Any) -> str:
    for kind, sign, attribute in (
        (at.Gt, ">", "gt"),
        (at.Ge, ">=", "ge"),
        (at.Lt, "<", "lt"),
        (at.Le, "<=", "le"),
    ):
        if isinstance(constraint, kind):
            return f"{sign} {getattr(constraint, attribute)}"
    return ""


def is_node(value: Any) -> bool:
    """Whether this describes an object to build."""
    return isinstance(value, dict) and "_target_" in value


def _holds_nodes(value: Any) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return is_node(value) or any(map(_holds_nodes, items))


def _is_container(cls: Any) -> bool:
    builtin = (list, tuple, set, frozenset, dict)
    return (
        cls in builtin
        or getattr(cls, "__module__", "") in ("collections.abc", "typing")
        or typing.is_typeddict(cls)
    )


def _is_protocol(cls: Any) -> bool:
    return bool(getattr(cls, "_is_protocol", False))


def shown(value: Any) -> str:
    """A value for a message: as in YAML, a node by its target, nothing longer than 80 characters."""
    if is_node(value):
        partial = " (_partial_)" if value.get("_partial_") else ""
        return f"{value['_target_']}{partial}"
    text = json.dumps(value) if isinstance(value, bool | None | dict | list) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
