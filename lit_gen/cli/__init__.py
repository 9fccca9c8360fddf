"""The command line, one file per verb.

A verb is a module of this folder with `HELP: str` (usage and examples, a plain literal: it is read without
importing the file) and `run(words: list[str]) -> int` (takes the words after the verb, returns the exit
code).

`--help` and `--list` must be quick, so nothing in this file imports torch, Lightning or Hydra.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

CONF = Path(__file__).resolve().parent.parent.parent / "conf"
"""The folder of config groups, found from any working directory."""


def group_names(conf: Path = CONF) -> list[str]:
    """Folders of `conf` that hold configs: "data", "model", ..."""
    return sorted(folder.name for folder in conf.iterdir() if folder.is_dir() and any(folder.rglob("*.yaml")))


def choices(group: str, conf: Path = CONF) -> list[str]:
    """Names of the configs of a group; files that begin with "_" are parts of others and no choices."""
    folder = conf / group
    files = (file.relative_to(folder).with_suffix("") for file in folder.rglob("*.yaml"))
    return sorted(file.as_posix() for file in files if not file.name.startswith("_"))


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The most similar name, or None. The last part of a dotted key counts more than the path to it."""
    names = list(names)
    close = difflib.get_close_matches(name, names, 1)
    last = name.rpartition(".")[2]
    same_end = [key for key in names if key.rpartition(".")[2] == last]
    if same_end:
        return max(same_end, key=lambda key: difflib.SequenceMatcher(None, key, name).ratio())
    if close:
        return close[0]
    by_end = {key.rpartition(".")[2]: key for key in reversed(names)}
    close = difflib.get_close_matches(last, by_end, 1)
    return by_end[close[0]] if close else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of an error message: " Did you mean X?", or nothing."""
    close = nearest(name, names)
    return f" Did you mean {close}?" if close else ""
