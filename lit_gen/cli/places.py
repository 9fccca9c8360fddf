"""Places that a user names: `~`, and what is relative, which a run keeps as absolute."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_HOME = re.compile(r"^~(?=/)|(?:(?<=[=,\[ '\"])|(?<=:///))~(?:(?=[/,\]'\"]|$)|[\w.-]+(?=/))")


def at_home(value: Any) -> Any:
    """A text, or all texts of a config, in which `~` or `~user` at the beginning of a path is a folder.

    Shells put it in only at the beginning of a word.

    Raises:
        InputError: nobody knows that folder.
    """
    if isinstance(value, dict):
        return {key: at_home(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return list(map(at_home, value))

    def home(found: re.Match[str]) -> str:
        folder = os.path.expanduser(found[0])
        if folder.startswith("~"):
            from lit_gen.core.types import InputError  # with torch, which help has no need of

            raise InputError(f"{value}: nobody knows where {found[0]} is; write the path, or set HOME")
        return folder

    return re.sub(_HOME, home, value) if isinstance(value, str) and "~" in value else value


@contextmanager
def some_home() -> Iterator[None]:
    """Inside there is a home, if only for as long: packages look for one and need nothing in it."""
    if os.path.expanduser("~") != "~":
        yield
        return
    with tempfile.TemporaryDirectory(prefix="lit-gen-home-", ignore_cleanup_errors=True) as folder:
        os.environ["HOME"] = folder
        try:
            yield
        finally:
            os.environ.pop("HOME", None)


def absolute(path: str) -> str:
    """A path that does not depend on where one stands; a name that no file has, as of weights in the package,
    stays.
    """
    return str(Path(path).absolute()) if "/" in path or Path(path).exists() else path
