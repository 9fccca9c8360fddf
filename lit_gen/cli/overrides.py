"""Words of the command line, `key=value`: what they say, and laying them over a plain config.

The grammar is Hydra's ("basic override syntax" in its manual); laying over is done here, so that a mistake
can be answered with the key that was probably meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from lit_gen.cli import did_you_mean
from lit_gen.core.types import InputError

TEXT_KEYS = frozenset({"data.root", "name", "output_dir", "resume"})
"""Their values are paths or names, taken letter for letter: `resume=a/epoch=3.ckpt` needs no quotes."""


class Word(NamedTuple):
    """One override."""

    text: str  # as it was given
    key: str  # "model.beta"
    sign: Literal["", "+", "++", "~"]
    value: Any  # plain Python; None for a bare "~key"


def parse(words: Iterable[str]) -> list[Word]:
    """Reads `key=value`, `+key=value`, `++key=value`, `~key`.

    Raises:
        InputError: a word that is none of these.
    """
    return [_parse(word) for word in words]


def lay_over(config: dict[str, Any], words: Iterable[Word]) -> None:
    """Changes `config` (plain containers, before interpolation) in place.

    A key that is not there is taken only below a node with `_target_`, whose signature the check knows.

    Raises:
        InputError: a key that leads nowhere.
    """
    for word in words:
        _lay(config, word)


def all_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key below a node, nodes and leaves, without Hydra's own such as _target_."""
    children = (
        node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    )
    for name, child in children:
        if str(name).startswith("_"):
            continue
        key = f"{prefix}.{name}" if prefix else str(name)
        yield key
        yield from all_keys(child, key)


def _parse(text: str) -> Word:
    sign, key, value = re.fullmatch(r"(\+\+|\+|~|)([^=]*)=?(.*)", text, flags=re.DOTALL).groups()
    if key in TEXT_KEYS and "=" in text and sign != "~" and not re.fullmatch(r"null|'.*'|\".*\"", value):
        return Word(text, key, sign, value)
    if "=" not in text and sign != "~":
        raise InputError(
            f"{text!r} is no key=value; write for example seed=1 or model=vae. See lit-gen <verb> --help."
        )
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{text}: cannot be read ({reason}). Quote values that hold one of = , : {{ }} [ ] or a space, "
            f"for the shell too: '{sign}{key}=\"{value}\"'"
        ) from error
    if override.is_sweep_override():
        raise InputError(
            f"{text}: a list of values to sweep over is not taken here. One list as a value is written "
            f"{sign}{key}=[{value}]; a text with commas {sign}{key}='\"{value}\"'."
        )
    if override.package is not None:
        raise InputError(f"{text}: @package is not taken; write {override.key_or_group}=...")
    return Word(text, override.key_or_group, sign, override.value())


def _lay(config: dict[str, Any], word: Word) -> None:
    parts = [int(p) if p.isdigit() else p for p in re.split(r"[.\[\]]+", word.key) if p]
    node, way = config, []
    for part in parts[:-1]:
        if not _has(node, part):
            if word.sign not in ("+", "++") or not isinstance(node, dict):
                raise _no_such_key(config, word)
            node[part] = {}
        way.append(str(part))
        node = node[part]
        if isinstance(node, str) and node.startswith("${"):
            origin = node[2:-1] if re.fullmatch(r"\$\{[\w.]+\}", node) else None
            rest = ".".join(map(str, parts[len(way) :]))
            hint = f" Set {origin}.{rest} instead." if origin and not origin.startswith(".") else ""
            raise InputError(f"{word.text}: {'.'.join(way)} is {node}, it has no keys of its own.{hint}")
        if not isinstance(node, dict | list):
            raise InputError(f"{word.text}: {'.'.join(way)} is {node!r}, it has no keys below it.")
    last = parts[-1]
    there = _has(node, last)
    if word.sign == "~":
        if not there:
            raise _no_such_key(config, word)
        del node[last]
        return
    if not there and not word.sign and not (isinstance(node, dict) and "_target_" in node):
        raise _no_such_key(config, word)
    if not there and isinstance(node, list):
        raise InputError(f"{word.text}: {'.'.join(way)} has {len(node)} items, numbered from 0.")
    old = node[last] if there else None
    if word.sign == "+" and old is not None and not isinstance(word.value, dict):
        raise InputError(f"{word.text}: {word.key} is there already; write {word.text[1:]} without the +.")
    if isinstance(old, dict) and not isinstance(word.value, dict) and word.value is not None:
        example = next((key for key in old if not str(key).startswith("_")), "_target_")
        raise InputError(
            f"{word.text}: {word.key} is a node with the keys {', '.join(map(str, old))}; "
            f"set one of them, as {word.key}.{example}=..."
        )
    node[last] = merged(old, word.value) if isinstance(old, dict) and word.value is not None else word.value


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """A new dictionary: the keys of both, the values of `above` where both have one, dictionaries merged."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _has(node: Any, part: str | int) -> bool:
    if isinstance(node, list):
        return isinstance(part, int) and part < len(node)
    return isinstance(node, dict) and part in node


def _no_such_key(config: dict[str, Any], word: Word) -> InputError:
    parent = word.key.rpartition(".")[0]
    guess = did_you_mean(word.key, all_keys(config))
    add = f" To add a key of your own, write +{word.key}=..." if parent and word.sign != "~" else ""
    top = "" if parent else f" The keys at the top are {', '.join(map(str, config))}."
    return InputError(f"{word.text}: there is no key {word.key!r}.{guess}{top}{add}")
