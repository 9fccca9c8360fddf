"""Words of the command line, `key=value`: a verb's own, such as `ckpt=`, and those about a configuration.

The grammar of these is Hydra's ("basic override syntax" in its manual), read by its parser. Values are laid
over here, so that a mistake can be answered with the key that was probably meant.

A config file may hold a table of rows: `paper=knop/cwae_mnist` is a row of conf/paper/knop.yaml. A row has
keys as on the command line, groups among them (`data: mnist`, `model.weight: 5.0`), and is laid over what
else stands in the file; the words of the command line change it. Under `shared:` stand parts of rows, by YAML
anchors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from pydantic import TypeAdapter, ValidationError

from lit_gen.cli import did_you_mean, rows
from lit_gen.cli.signatures import all_keys, describe, fits, mismatch
from lit_gen.core.types import InputError

_TEXTS = ("data.root", "name", "output_dir", "resume")
"""Their values are paths or names, taken letter for letter: `resume=a/epoch=3.ckpt` needs no quotes."""


class Word(NamedTuple):
    """One override: `key=value`, `+key=value`, `++key=value` or `~key`."""

    text: str  # as it was given
    sign: str
    key: str  # "model.beta"
    value: Any  # plain; None for "~key"


def parse(text: str) -> Word:
    """Reads a word by Hydra's grammar; InputError where it is none."""
    sign, key, equals, value = re.fullmatch(r"(\+\+|\+|~|)([^=]*)(=?)(.*)", text, flags=re.DOTALL).groups()
    if key in _TEXTS and equals and not re.fullmatch(r"null|'.*'|\".*\"", value):
        return Word(text, sign, key, value)
    if not equals and sign != "~":
        raise InputError(f"{text!r} is no key=value; write for example seed=1 or model=vae.")
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise InputError(
            f"{text}: cannot be read ({str(error).splitlines()[0]}). Quote values that hold one of = , : {{ "
            f"}} [ ] or a space, for the shell too: '{sign}{key}=\"{value}\"'"
        ) from error
    if override.is_sweep_override() or override.package is not None:
        raise InputError(
            f"{text}: neither @package nor a list of values to sweep over is taken here. One list as a value "
            f"is written {sign}{key}=[{value}]; a text with commas {sign}{key}='\"{value}\"'."
        )
    return Word(text, sign, override.key_or_group, None if sign == "~" else override.value())


def lay_over(config: dict[str, Any], word: Word) -> None:
    """Changes `config` (plain, before interpolation) in place.

    A key that is not there is taken only below a node with `_target_`, whose signature the check knows.

    Raises:
        InputError: the key leads nowhere.
    """
    parts = [int(p) if p.isdigit() else p for p in re.split(r"[.\[\]]+", word.key) if p]
    node: Any = config
    for depth, part in enumerate(parts):
        is_there = part in (range(len(node)) if isinstance(node, list) else node)
        is_last = depth == len(parts) - 1
        may_add = isinstance(node, dict) and ("+" in word.sign or (is_last and "_target_" in node))
        if not is_there and (not may_add or word.sign == "~"):
            raise _no_such_key(config, word)
        if is_last:
            break
        node = node[part] if is_there else node.setdefault(part, {})
        if not isinstance(node, dict | list):
            way, rest = (".".join(map(str, p)) for p in (parts[: depth + 1], parts[depth + 1 :]))
            origin = re.fullmatch(r"\$\{(\w[\w.]*)\}", str(node))
            hint = f" Set {origin[1]}.{rest} instead." if origin else ""
            raise InputError(f"{word.text}: {way} is {node!r}, it has no keys of its own.{hint}")
    if word.sign == "~":
        del node[part]
        return
    old = node[part] if is_there else None
    if word.sign == "+" and old is not None and not isinstance(word.value, dict):
        raise InputError(f"{word.text}: {word.key} is there already; write {word.text[1:]} without the +.")
    if isinstance(old, dict) and not isinstance(word.value, dict | None):
        raise InputError(
            f"{word.text}: {word.key} is a node with the keys {', '.join(map(str, old))}; set one of them"
        )
    is_merged = isinstance(old, dict) and word.value is not None
    node[part] = OmegaConf.to_container(OmegaConf.merge(old, word.value)) if is_merged else word.value


def _no_such_key(config: dict[str, Any], word: Word) -> InputError:
    guess = did_you_mean(word.key, all_keys(config))
    way_out = f"The keys at the top are {', '.join(map(str, config))}."
    if "." in word.key:
        way_out = "" if word.sign == "~" else f"To add a key of your own, write +{word.key}=..."
    return InputError(f"{word.text}: there is no key {word.key!r}. {guess}{way_out}".rstrip())


def own_words(
    words: Sequence[str],
    own: Mapping[str, Any],
    needed: Sequence[str] = (),
    others: Sequence[str] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """The values of a verb's own keys, and the other words.

    Args:
        own: key -> type with its range; `list[...]` takes values with commas.
        needed: of them.
        others: first parts of the keys that the other words may have; None: any.

    Raises:
        InputError: all that is wrong.
    """
    values, rest, wrong = {}, [], []
    known = [*own, *(others or ())]
    for word in words:
        key, sign, text = word.partition("=")
        top = key_of(word).partition(".")[0]
        if key in own and text.strip("[], "):
            try:
                values[key] = _value(own[key], text)
            except ValidationError:
                wrong.append(f"{word}: expected {describe(own[key])}")
            else:
                # nan, and what is too large to count.
                if not fits(own[key], values[key]):
                    wrong.append(f"{word}: {mismatch(own[key], values[key])}")
        elif key in own or (not sign and not key.startswith("~")):
            wrong.append(f"{word}: expected key=value. {did_you_mean(key, own)}".rstrip())
        elif others is not None and top not in others:
            wrong.append(f"{word}: {did_you_mean(key, known)}The keys here are {', '.join(known)}.")
        else:
            rest.append(word)
    given = {word.partition("=")[0] for word in words}
    wrong += [f"{key}= is missing: {key}={describe(own[key])}" for key in needed if key not in given]
    if wrong:
        raise InputError("\n".join(wrong))
    return values, rest


def _value(hint: Any, text: str) -> Any:
    adapter = TypeAdapter(hint)
    if get_origin(hint) is list:
        return adapter.validate_python([part.strip() for part in text.strip("[]").split(",") if part.strip()])
    return adapter.validate_strings(text)


def key_of(text: str) -> str:
    """The key of a word: "model.beta" of "+model.beta=2"."""
    return text.partition("=")[0].lstrip("+~")


def with_rows(words: Sequence[Word], conf: Path) -> list[Word]:
    """The words, after those of the rows that they choose."""
    own = []
    for word in words:
        if table := table_of(conf, word.key, str(word.value)):
            values = OmegaConf.load(conf / word.key / f"{table}.yaml")["rows"][word.value.rpartition("/")[2]]
            values = OmegaConf.to_container(values, resolve=False)
            own += [Word(f"{key}={value}", "", key, value) for key, value in values.items()]
    return [*own, *words]


def table_of(conf: Path, group: str, choice: str | None) -> str:
    """The name of the file whose row a choice is; "" of any other choice."""
    table, _, row = (choice or "").rpartition("/")
    return table if table and row in rows(conf / group / f"{table}.yaml") else ""
