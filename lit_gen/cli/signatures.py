"""The composed config against the signatures of what it names, before anything starts.

For every node with `_target_`: the target exists, every key is one of its parameters, every value fits the
parameter's hint, required parameters are there. pydantic decides what fits, strictly: "1" is no number, true
is no int, 1 is no bool, while an int is a float. What it cannot know, nodes, is decided here: does the target
make what the hint asks for? Where that is not known, and where a hint says nothing, nothing is checked.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import annotated_types as at
from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import SchemaError

from lit_gen.cli import did_you_mean
from lit_gen.cli.allowed import locate
from lit_gen.cli.ranges import AtLeast0, narrower, too_large
from lit_gen.core.types import InputError, Positive

MOST = 2**32 - 1
"""The largest whole number that is taken: what generators of torch and numpy count to."""
_SPECIAL = {"_target_": str, "_partial_": bool, "_args_": list}
_MOST_PROBLEMS = 8
_NO_NAN = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
_TOP = {
    # torch's and numpy's generators both take 32 bits.
    "seed": Annotated[int, at.Ge(0), at.Lt(2**32)],
    "name": str | None,
    "output_dir": str | None,
    "resume": str | None,
    "cpu_threads": Literal["auto"] | Positive,
    "max_phase_epochs": Positive | None,
    "scores": Literal["now", "later"],
    "published": dict[str, float | str | None] | None,
    "compile": Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None,
}
# Below the top, where there is no signature.
_BELOW = {"checkpoint.min_seconds": AtLeast0}


class _Problem(NamedTuple):
    key: str
    text: str
    is_own: bool = True  # the value stands here, it was not taken over from another key


def check(config: dict[str, Any], source: dict[str, Any] | None = None) -> None:
    """Raises InputError that lists what is wrong, one line each.

    Args:
        config: resolved.
        source: the same before interpolation; lets a message name the key that a wrong value was taken from.
    """
    problems = [
        _Problem(key, mismatch(hint, config[key]))
        for key, hint in _TOP.items()
        if key in config and not fits(hint, config[key])
    ]
    problems += [
        _Problem(key, mismatch(hint, config[top][name]))
        for key, hint in _BELOW.items()
        for top, name in [key.split(".")]
        if name in (config.get(top) or {}) and not fits(hint, config[top][name])
    ]
    problems += _walk("", config, config if source is None else source)
    if not problems:
        problems += [_Problem(*found) for found in too_large(config)]
    # What was taken over is wrong, more often than not, because of what stands elsewhere.
    found: dict[str, str] = {}
    for key, text, _ in [problem for problem in problems if problem.is_own] or problems:
        found.setdefault(key, f"{key}: {text}")
    if found:
        more = [f"and {len(found) - _MOST_PROBLEMS} more"] if len(found) > _MOST_PROBLEMS else []
        raise InputError("\n".join([*found.values()][:_MOST_PROBLEMS] + more))


def all_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key below a node, nodes and leaves, without Hydra's own such as _target_."""
    for name, child in _children(node):
        if not str(name).startswith("_"):
            yield f"{prefix}{name}"
            yield from all_keys(child, f"{prefix}{name}.")


def _children(node: Any) -> Iterable[tuple[Any, Any]]:
    return node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()


def _walk(key: str, node: Any, source: Any) -> Iterator[_Problem]:
    if is_node(node):
        yield from _check_node(key, node, source)
    raw = dict(_children(source))
    for name, child in _children(node):
        # A node that was taken over from elsewhere is checked there.
        if not isinstance(raw.get(name), str):
            yield from _walk(f"{key}.{name}" if key else str(name), child, raw.get(name))


def _check_node(key: str, node: dict[str, Any], source: Any) -> Iterator[_Problem]:
    try:
        target = locate(node["_target_"])
    except InputError as error:
        yield _Problem(f"{key}._target_", str(error))
        return
    parameters, is_open = signature_of(target)
    raw = dict(_children(source))
    for name, value in node.items():
        full, origin = f"{key}.{name}", _origin(f"{key}.{name}", raw.get(name))
        if name not in parameters and name not in _SPECIAL:
            if not is_open:
                yield _Problem(full, _unknown(key, name, target, parameters, node))
            continue
        hint = _SPECIAL[name] if name in _SPECIAL else parameters[name].hint
        hint = narrower(target, name, hint)
        if fits(hint, value):
            continue
        if origin is None:
            yield _Problem(full, mismatch(hint, value), "${" not in str(raw.get(name)))
        else:
            yield _Problem(origin, f"{mismatch(hint, value)} (it is {full})", False)
    if not node.get("_partial_") and not node.get("_args_"):
        for name, parameter in parameters.items():
            if parameter.required and name not in node:
                yield _Problem(f"{key}.{name}", f"is missing; {target.__qualname__} needs it")


def _unknown(
    key: str, name: str, target: Callable[..., Any], parameters: Collection[str], node: dict[str, Any]
) -> str:
    names = [f"{key}.{each}" for each in (*parameters, *all_keys(node)) if each != name]
    taken = f"It takes {', '.join(parameters) or 'nothing'}." if len(parameters) < 25 else ""
    return f"{target.__qualname__} takes no {name!r}. {did_you_mean(f'{key}.{name}', names)}{taken}".rstrip()


def _origin(key: str, raw: Any) -> str | None:
    """The key that a value was taken from: "a.b" of "${a.b}", and of "${..b}" in a node a.c."""
    match = re.fullmatch(r"\$\{(\.*)(\w[\w.]*)\}", raw) if isinstance(raw, str) else None
    if match is None:
        return None
    dots, path = match.groups()
    return ".".join([*(key.split(".")[: -len(dots)] if dots else []), path])


class Parameter(NamedTuple):
    """One thing that a target takes by name."""

    hint: Any
    required: bool


class Signature(NamedTuple):
    """All that a target takes."""

    parameters: dict[str, Parameter]
    is_open: bool  # takes further names that cannot be known


@functools.cache
def signature_of(target: Callable[..., Any]) -> Signature:
    """Parameters by name, with evaluated hints."""
    has_init = inspect.isclass(target) and target.__init__ is not object.__init__  # a NamedTuple has none
    try:
        listed = inspect.signature(target).parameters.values()
        hints = typing.get_type_hints(target.__init__ if has_init else target, include_extras=True)
    except (TypeError, ValueError, NameError):  # written in C, or hints for a type checker alone
        return Signature({}, True)
    taken = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = {
        each.name: Parameter(hints.get(each.name, Any), each.default is each.empty)
        for each in listed
        if each.kind in taken
    }
    return Signature(parameters, any(each.kind is each.VAR_KEYWORD for each in listed))


def is_node(value: Any) -> bool:
    """Whether this describes an object to build."""
    return isinstance(value, dict) and "_target_" in value


def takes_path(node: Any, name: str) -> bool:
    """Whether what a node makes takes a path by this name."""
    if not is_node(node):
        return False
    parameter = signature_of(locate(node["_target_"])).parameters.get(name)
    return parameter is not None and Path in (parameter.hint, *get_args(parameter.hint))


def _makes(wanted: Any, node: dict[str, Any]) -> bool:
    """Whether calling the node's target gives what is wanted; where that is not known, yes."""
    try:
        target = locate(node["_target_"])
    except InputError:
        return True  # has its own message
    if not inspect.isclass(wanted) or getattr(wanted, "_is_protocol", False):
        return True
    if node.get("_partial_"):
        return issubclass(Callable, wanted)
    made = target
    if not inspect.isclass(target):
        made = typing.get_type_hints(target).get("return") if inspect.isfunction(target) else None
        made = get_origin(made) or made
    if not inspect.isclass(made) or issubclass(made, wanted) or (wanted is float and made is int):
        return True
    # A function may say less about its result than it could.
    return made is not target and issubclass(wanted, made)


def fits(hint: Any, value: Any) -> bool:
    """Whether a constructor with this hint can be given the value (plain containers, nodes among them)."""
    adapter = _adapter(hint)
    try:
        # As JSON, which is what a config says: a list is a tuple, a text a path.
        if adapter is not None:
            adapter.validate_json(json.dumps(value), strict=True)
            if _largest(value) > MOST:
                # Only as a number that need not be whole.
                adapter.validate_json(json.dumps(_as_floats(value)), strict=True)
    except ValidationError:
        return False
    except TypeError:  # a node, whose range cannot be looked at
        pass
    return True


@functools.cache
def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(_or_node(hint), config=_NO_NAN)
    except (PydanticUserError, SchemaError, NameError, TypeError):
        return None  # pydantic has no opinion on this hint


def _or_node(hint: Any) -> Any:
    """The hint for pydantic: wherever it asks for an object, a node that makes one does as well."""
    origin, args = get_origin(hint), get_args(hint)
    if hint in (Any, type(None)) or origin is Literal:
        return hint
    if hint is object or isinstance(hint, typing.TypeVar):
        return Any
    if origin in (Union, types.UnionType):
        return Union[tuple(map(_or_node, args))]  # noqa: UP007
    if origin is Annotated:
        return Annotated[(_or_node(args[0]), *args[1:])]
    wanted = origin or hint

    def made(node: dict[str, Any]) -> dict[str, Any]:
        if not is_node(node) or not _makes(wanted, node):
            raise ValueError
        return node

    node = Annotated[dict[str, Any], AfterValidator(made)]
    if not _is_plain(wanted):
        return node
    if args:
        kind = list if wanted is Iterable else wanted  # pydantic would not look at what is in it
        hint = kind[tuple(each if each is ... else _or_node(each) for each in args)]
    return hint | node


def _is_plain(cls: Any) -> bool:
    """Whether a config can say it without a node."""
    module = getattr(cls, "__module__", "")
    return cls is not Callable and (module in ("builtins", "pathlib", "collections.abc", "typing"))


def mismatch(hint: Any, value: Any) -> str:
    """What to say where it does not fit: "expected float, got 'abc'"."""
    end = f"; whole numbers end at {MOST}" if _largest(value) > MOST else ""
    return f"expected {describe(hint)}, got {shown(value)}{end}"


def _largest(value: Any) -> int:
    """The largest whole number in a value; 0 without any, and in a node, which is checked by itself."""
    if isinstance(value, int):
        return value
    return max(map(_largest, value), default=0) if isinstance(value, list) else 0


def _as_floats(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_floats(each) for each in value]
    return 1e300 if isinstance(value, int) and value > MOST else value


def describe(hint: Any) -> str:
    """A hint as a person would say it."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is type(None):
        return "null"
    if origin is Annotated:
        signs = {at.Gt: ">", at.Ge: ">=", at.Lt: "<", at.Le: "<="}
        bounds = [
            f"{signs[type(m)]} {getattr(m, type(m).__name__.lower())}" for m in args[1:] if type(m) in signs
        ]
        in_words = [text for text in args[1:] if isinstance(text, str)]
        return in_words[0] if in_words else f"{describe(args[0])} {' and '.join(bounds)}".rstrip()
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(describe, args)))
    if origin is Literal:
        values = [repr(arg) if isinstance(arg, str) else json.dumps(arg) for arg in args]
        return f"one of {', '.join(values)}" if len(values) > 1 else values[0]
    kind = origin or hint
    if kind is Callable:
        return "a function (a node with _target_)"
    if not _is_plain(kind):
        return f"{getattr(kind, '__name__', kind)} (a node with _target_)"
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        return "a dictionary"
    items = " and ".join(dict.fromkeys(describe(arg) for arg in args if arg is not ...))
    return f"a list of {items}" if items else kind.__name__


def shown(value: Any) -> str:
    """A value for a message: as in YAML, a node by its target, nothing longer than 80 characters."""
    if is_node(value):
        return f"{value['_target_']}{' (_partial_)' if value.get('_partial_') else ''}"
    text = json.dumps(value) if isinstance(value, bool | None | dict | list) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
