"""What a config node may say: the parameters of its target, with their hints."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from lit_gen.cli import did_you_mean
from lit_gen.core.types import InputError

ANYTHING = inspect.Parameter.empty
"""The hint of a parameter that has none."""


class Parameter(NamedTuple):
    """One thing that a target takes by name."""

    hint: Any
    required: bool


class Signature(NamedTuple):
    """All that a target takes."""

    parameters: dict[str, Parameter]
    is_open: bool  # takes further names that cannot be known


def locate(path: str) -> Callable[..., Any]:
    """The class or function at a dotted path.

    Raises:
        InputError: there is none; an ImportError inside an existing module is not caught.
    """
    parts = path.split(".")
    if not all(part.isidentifier() for part in parts) or len(parts) < 2:
        raise InputError(f"{path!r} is no dotted path such as lit_gen.families.vae.VAE.")
    found, depth = None, 0
    for depth in range(len(parts), 0, -1):
        name = ".".join(parts[:depth])
        try:
            found = importlib.import_module(name)
            break
        except ModuleNotFoundError as error:
            # A module that exists, but lacks one of its own imports, is a failure and no wrong path.
            if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
                raise
    if found is None:
        raise InputError(f"{path}: there is no package {parts[0]!r}.")
    way = ".".join(parts[:depth])
    for part in parts[depth:]:
        if not hasattr(found, part):
            names = [name for name in dir(found) if not name.startswith("_")]
            if hasattr(found, "__path__"):
                names += [module.name for module in pkgutil.iter_modules(found.__path__)]
            raise InputError(f"{path}: {way} has no {part!r}.{did_you_mean(part, names)}")
        found, way = getattr(found, part), f"{way}.{part}"
    if not callable(found):
        raise InputError(f"{path} is a {type(found).__name__}; a target is a class or a function.")
    return found


def signature_of(target: Callable[..., Any]) -> Signature:
    """Parameters by name; for a class with `**base` also those of the constructors that it hands them to."""
    if not inspect.isclass(target):
        return _of_function(target)
    parameters: dict[str, Parameter] = {}
    given_by_child: set[str] = set()
    for cls in target.__mro__:
        constructor = cls.__dict__.get("__init__")
        if cls in (nn.Module, object):
            break
        if not inspect.isfunction(constructor):
            continue
        own = _of_function(constructor, skip=1)
        call = _call_of_super(constructor) if own.is_open else None
        names = list(own.parameters)
        for name in names:
            if name not in given_by_child:
                parameters.setdefault(name, own.parameters[name])
        if not own.is_open:
            return Signature(parameters, False)
        if call is None:
            return Signature(parameters, True)
        given_by_child |= {keyword.arg for keyword in call.keywords if keyword.arg}
        given_by_child |= _positional_names(target, cls, len(call.args))
    else:
        return Signature(parameters, False)
    if not parameters and target.__init__ is object.__init__ and target.__new__ is not object.__new__:
        return _of_function(target)  # NamedTuple
    return Signature(parameters, False)


def produced_by(target: Callable[..., Any]) -> type | None:
    """The class of what calling the target gives; None if that is not known."""
    if inspect.isclass(target):
        return target
    hint = _hints(target).get("return")
    hint = typing.get_origin(hint) or hint
    return hint if inspect.isclass(hint) else None


def _of_function(function: Callable[..., Any], skip: int = 0) -> Signature:
    try:
        listed = list(inspect.signature(function).parameters.values())[skip:]
    except (TypeError, ValueError):  # written in C
        return Signature({}, True)
    hints = _hints(function)
    parameters = {
        p.name: Parameter(hints.get(p.name, ANYTHING), p.default is p.empty)
        for p in listed
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    return Signature(parameters, any(p.kind is p.VAR_KEYWORD for p in listed))


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Evaluated hints, with Annotated kept; without those that only a type checker can evaluate."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):
        pass
    bare = inspect.unwrap(function)
    hints = {}
    for name, text in getattr(bare, "__annotations__", {}).items():
        try:
            hints[name] = (
                eval(text, getattr(bare, "__globals__", {}))  # what get_type_hints does, one by one
                if isinstance(text, str)
                else text
            )
        except (NameError, TypeError, AttributeError):
            continue
    return hints


def _call_of_super(constructor: Callable[..., Any]) -> ast.Call | None:
    """The call `super().__init__(..., **rest)` that hands unknown names up; None if there is none."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(constructor)))
    except (OSError, TypeError, SyntaxError):
        return None
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "__init__"
            and isinstance(node.func.value, ast.Call)
            and getattr(node.func.value.func, "id", "") == "super"
            and any(keyword.arg is None for keyword in node.keywords)
        ):
            return node
    return None


def _positional_names(target: type, cls: type, count: int) -> set[str]:
    """Names of the first parameters of the constructor that comes after `cls`."""
    later = target.__mro__[target.__mro__.index(cls) + 1 :]
    constructor = next((c.__dict__["__init__"] for c in later if "__init__" in c.__dict__), None)
    return (
        set(list(inspect.signature(constructor).parameters)[1 : count + 1])
        if constructor and count
        else set()
    )
