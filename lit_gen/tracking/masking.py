"""Secrets are taken out of all that is kept or shown. Imports nothing slow, for the command line's sake."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

MASK = "***"
_NAME = (
    r"(?:[\w.\-]*[._\-])?"
    r"(?:pass(?:word|wd|phrase)|token|secret|credentials?|(?:api|access|private|secret)_?key)"
)
_GIVEN = re.compile(rf"(?<![\w.\-])({_NAME}=)(?!null\b|\$\{{)([^\s&;,'\"]+)", re.I)
_ADDRESS = re.compile(r"([a-z][a-z0-9+.\-]*)://([^\s<>]*)", re.I)


def without_secrets(value: Any, key: str = "") -> Any:
    """A text, or a nested configuration, without user, password and values of the query of every address in
    it, and without what has a name such as `password` or `api_key`.

    The user of a server goes without a trace, since it has variables of its own; elsewhere `MASK` tells that
    something is missing.

    Args:
        key: that the value stands under.
    """
    if isinstance(value, Mapping):
        return {name: without_secrets(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(inner, key) for inner in value]
    if not isinstance(value, str):
        return value
    if value and re.fullmatch(_NAME, key, re.I) and not value.startswith("${"):
        return MASK
    return _GIVEN.sub(rf"\1{MASK}", _ADDRESS.sub(_masked, value))


def split_user(rest: str) -> tuple[str, str]:
    """User and password of what follows `://`, as they are, and what follows them.

    The last @ ends them, since a password may hold any of `/ @ : ? #`. In an address without a user that has
    an @ in its path, `host/a@1`, there is no colon before it.
    """
    head = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, _, place = rest.rpartition("@") if "@" in head or ":" in head else ("", "", rest)
    return user, place


def masked_keys(config: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and text of everything in a nested configuration that lacks a secret."""
    parts = config.items() if isinstance(config, Mapping) else enumerate(config)
    for name, value in parts:
        place = f"{key}.{name}" if key else str(name)
        if isinstance(value, Mapping | list | tuple):
            yield from masked_keys(value, place)
        elif isinstance(value, str) and MASK in value:
            yield place, value


def _masked(found: re.Match[str]) -> str:
    scheme, rest = found.groups()
    user, place = split_user(rest)
    shown = f"{MASK}@" if user and not scheme.lower().startswith("http") else ""
    path, mark, query = place.partition("?")
    return f"{scheme}://{shown}{path}{mark}" + re.sub(r"=[^&;'\"]+", f"={MASK}", query)
