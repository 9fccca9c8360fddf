"""The words of a verb's own, such as `ckpt=` and `out=`, told apart from overrides of a configuration."""

from __future__ import annotations

from collections.abc import Sequence

from lit_gen.cli import did_you_mean
from lit_gen.core.types import InputError


def split_words(words: Sequence[str], own: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The verb's own keys with their values, and the other words.

    Raises:
        InputError: a word is no key=value.
    """
    values: dict[str, str] = {}
    others = []
    for word in words:
        key, sign, value = word.partition("=")
        if not sign:
            raise InputError(f"{word}: expected key=value.{did_you_mean(word, own)}")
        if key in own:
            values[key] = value
        else:
            others.append(word)
    return values, others


def as_count(key: str, text: str, least: int = 0) -> int:
    """An integer of at least `least`.

    Raises:
        InputError: the text is none.
    """
    try:
        number = int(text)
    except ValueError:
        raise InputError(f"{key}={text}: expected an integer") from None
    if number < least:
        raise InputError(f"{key}={text}: must be at least {least}")
    return number
