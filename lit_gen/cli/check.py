"""The composed config against the signatures of what it names, before anything starts.

For every node with `_target_`: the target exists, every key is one of its parameters, every value fits the
parameter's hint, required parameters are there. Where a hint says nothing, nothing is checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import annotated_types as at
from lightning import Trainer
from pydantic import StringConstraints

from lit_gen.cli import did_you_mean
from lit_gen.cli.hints import fits, mismatch, shown
from lit_gen.cli.overrides import all_keys
from lit_gen.cli.signatures import Parameter, locate, signature_of
from lit_gen.core.types import InputError

_SPECIAL = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")
_MOST_PROBLEMS = 8
_Natural = Annotated[int, at.Gt(0)]
_TOP = {
    # torch's and numpy's generators both take 32 bits.
    "seed": Annotated[int, at.Ge(0), at.Lt(2**32)],
    "name": str | None,
    "output_dir": str | None,
    "resume": str | None,
    "cpu_threads": Literal["auto"] | _Natural,
    "max_phase_epochs": _Natural | None,
}
# Null until the run begins, which gives them their values; what refers to them is checked again then.
_GIVEN_LATER = ("name", "output_dir")
# Lightning takes any text and any number here and says what is wrong with it only later.
_NARROWER: dict[tuple[Any, str], tuple[Any, str]] = {
    (Trainer, "devices"): (
        _Natural
        | Literal[-1]
        | list[Annotated[int, at.Ge(0)]]
        | Annotated[str, StringConstraints(pattern=r"^(auto|-1|\d+(,\d+)*,?)$")],
        'a number of devices (-1: all there are), a list of their indices such as [0,2], or "auto"',
    ),
    (Trainer, "num_nodes"): (_Natural, "int > 0"),
    (Trainer, "accumulate_grad_batches"): (_Natural, "int > 0"),
}


class _Problem(NamedTuple):
    key: str
    text: str
    is_own: bool  # the value stands here, it was not taken over from another key


def check(config: dict[str, Any], source: dict[str, Any] | None = None) -> None:
    """Raises InputError that lists what is wrong, one line each.

    Args:
        config: resolved.
        source: the same before interpolation; lets a message name the key that a wrong value was taken from.
    """
    source = config if source is None else source
    problems = [
        _Problem(key, f"{key}: {mismatch(hint, config[key])}", True)
        for key, hint in _TOP.items()
        if key in config and not fits(hint, config[key])
    ]
    problems += _walk("", config, source)
    lines: dict[str, str] = {}
    # What was taken over is wrong, more often than not, because of what stands elsewhere.
    for problem in [p for p in problems if p.is_own] or problems:
        lines.setdefault(problem.key, problem.text)
    if lines:
        listed = list(lines.values())
        more = [f"and {len(listed) - _MOST_PROBLEMS} more"] if len(listed) > _MOST_PROBLEMS else []
        raise InputError("\n".join(listed[:_MOST_PROBLEMS] + more))


def _walk(key: str, node: Any, source: Any) -> Iterator[_Problem]:
    if isinstance(node, dict) and "_target_" in node:
        yield from _check_node(key, node, source)
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, child in items:
        raw = _child(source, name)
        # A node that was taken over from elsewhere is checked there.
        if isinstance(child, dict | list) and not isinstance(raw, str):
            yield from _walk(f"{key}.{name}" if key else str(name), child, raw)


def _check_node(key: str, node: dict[str, Any], source: Any) -> Iterator[_Problem]:
    try:
        target = locate(node["_target_"]) if isinstance(node["_target_"], str) else None
    except InputError as error:
        yield _Problem(f"{key}._target_", f"{key}._target_: {error}", True)
        return
    if target is None:
        yield _Problem(
            f"{key}._target_", f"{key}._target_: expected a dotted path, got {shown(node['_target_'])}", True
        )
        return
    parameters, is_open = signature_of(target)
    for special in ("_partial_", "_recursive_"):
        if not isinstance(node.get(special, True), bool):
            full = f"{key}.{special}"
            yield _Problem(full, f"{full}: expected bool, got {shown(node[special])}", True)
    for name, value in node.items():
        if name in _SPECIAL:
            continue
        full, raw = f"{key}.{name}", _child(source, name)
        origin = _origin(full, raw)
        if origin in _GIVEN_LATER and value is None:
            continue
        if name not in parameters:
            if not is_open:
                yield _Problem(full, _unknown(key, name, target, parameters, node), True)
            continue
        hint, expected = _NARROWER.get((target, name), (parameters[name].hint, None))
        if not fits(hint, value):
            wrong = mismatch(hint, value, expected)
            if origin is None:
                yield _Problem(full, f"{full}: {wrong}", not (isinstance(raw, str) and "${" in raw))
            else:
                yield _Problem(origin, f"{origin}: {wrong} (it is {full})", False)
    if not node.get("_partial_") and not node.get("_args_"):
        for name, parameter in parameters.items():
            if parameter.required and name not in node:
                full = f"{key}.{name}"
                yield _Problem(full, f"{full}: is missing; {_name(target)} needs it", True)


def _unknown(
    key: str, name: str, target: Callable[..., Any], parameters: Mapping[str, Parameter], node: dict[str, Any]
) -> str:
    guess = did_you_mean(name, [*parameters, *(k for k in all_keys(node) if k != name)]).replace(
        "mean ", f"mean {key}."
    )
    taken = f" It takes {', '.join(parameters) or 'nothing'}." if len(parameters) < 25 else ""
    return f"{key}.{name}: {_name(target)} takes no {name!r}.{guess}{taken}"


def _origin(key: str, raw: Any) -> str | None:
    """The key that a value was taken from: "a.b" of "${a.b}", and of "${..b}" in a node a.c."""
    match = re.fullmatch(r"\$\{(\.*)(\w[\w.]*)\}", raw) if isinstance(raw, str) else None
    if match is None:
        return None
    dots, path = match.groups()
    return ".".join([*(key.split(".")[: -len(dots)] if dots else []), path])


def _child(node: Any, name: Any) -> Any:
    if isinstance(node, dict):
        return node.get(name)
    return node[name] if isinstance(node, list) and isinstance(name, int) else None


def _name(target: Callable[..., Any]) -> str:
    return getattr(target, "__qualname__", str(target))
