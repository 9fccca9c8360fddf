"""The words of a verb's own, such as `ckpt=` and `out=`, told apart from words about a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_origin

from pydantic import TypeAdapter, ValidationError

from lit_gen.cli import did_you_mean
from lit_gen.cli.check import describe
from lit_gen.core.types import InputError


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
        top = key.lstrip("+~").partition(".")[0]
        if key in own and text.strip("[], "):
            try:
                values[key] = _value(own[key], text)
            except ValidationError:
                wrong.append(f"{word}: expected {describe(own[key])}")
        elif key in own or (not sign and not key.startswith("~")):
            wrong.append(f"{word}: expected key=value.{did_you_mean(key, own)}")
        elif others is not None and top not in others:
            wrong.append(f"{word}: the keys here are {', '.join(known)}.{did_you_mean(key, known)}")
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
