"""The command line, one file per verb.

A verb is a module of this folder that assigns HELP a text in triple quotes (usage and examples, read without
importing the file) and has `run(words: list[str]) -> int` (takes the words after the verb, returns the exit
code).

`--help` and `--list` must be quick, so nothing in this file imports torch, Lightning or Hydra.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

CONF = Path(__file__).resolve().parent.parent.parent / "conf"
"""The folder of config groups, found from any working directory."""


def group_names(conf: Path = CONF) -> list[str]:
    """Folders of `conf` that hold configs: "data", "model", ..."""
    return sorted(folder.name for folder in conf.iterdir() if folder.is_dir() and any(folder.rglob("*.yaml")))


def choices(group: str, conf: Path = CONF) -> list[str]:
    """Names of the configs of a group; files that begin with "_" are parts of others and no choices.

    A file with a table of rows is as many choices: "knop/cwae_mnist" is a row of knop.yaml.
    """
    folder, found = conf / group, []
    for file in folder.rglob("*.yaml"):
        if not file.name.startswith("_"):
            name = file.relative_to(folder).with_suffix("").as_posix()
            found += [f"{name}/{row}" for row in rows(file)] or [name]
    return sorted(found)


def rows(file: Path) -> dict[str, str]:
    """The rows of a config's table with the comment of each; {} where there is no table or no file."""
    if not file.is_file():
        return {}
    table = file.read_text(encoding="utf-8").partition("\nrows:\n")[2]
    return dict(re.findall(r"^  (\w+):(?: # (.*))?$", table, flags=re.MULTILINE))


def default_choices(file: Path) -> dict[str, str]:
    """group -> choice ("null": none) of a config's defaults list.

    By lines, one entry on each: a YAML parser would take longer than all the rest of `--list`.
    """
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    entry = r"^ *- (?:optional |override /)*([\w/]+): *([^#\n]+?) *(?:#.*)?$"
    return dict(re.findall(entry, text, flags=re.MULTILINE))


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The most similar name, or None. The last part of a dotted key counts more than the path to it."""
    names, last = list(names), name.rpartition(".")[2]
    by_end: dict[str, list[str]] = {}
    for key in names:
        by_end.setdefault(key.rpartition(".")[2], []).append(key)
    if last in by_end:
        return max(by_end[last], key=lambda key: difflib.SequenceMatcher(None, key, name).ratio())
    close = difflib.get_close_matches(name, names, 1)
    close += [by_end[end][0] for end in difflib.get_close_matches(last, by_end, 1)]
    return close[0] if close else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """What an error message says first of what can be done: "Did you mean X? ", or nothing."""
    close = nearest(name, names)
    return f"Did you mean {close}? " if close else ""


def no_such_choice(word: str, group: str, name: str, there: Sequence[str]) -> str:
    """What is said of a word that names no file of a group."""
    return (
        f"{word}: there is no such choice. {did_you_mean(name, there)}{group} is the name of a file in "
        f"conf/{group}: {', '.join(there) or '(nothing yet)'}."
    )


def mistyped(words: Iterable[str], config: Path) -> list[str]:
    """What is wrong with words about a group that name no file of it, and with those whose key begins with no
    group and no key at the top of a config. What else may be wrong is found with torch and Hydra, later.
    """
    conf, text = config.parent, config.read_text(encoding="utf-8") if config.is_file() else ""
    groups, wrong = group_names(conf), []
    top = [*groups, *re.findall(r"^(?!defaults)(\w+):", text, flags=re.MULTILINE)]
    for word in words:
        key, sign, value = word.partition("=")
        first = re.split(r"[./\[]", key)[0]
        if text and sign and first.isidentifier() and first not in top:
            keys = f"The keys at the top are {', '.join(top)}."
            wrong.append(f"{word}: there is no key {key!r}. {did_you_mean(first, top)}{keys}")
        group = key.partition("/")[0]  # model/learner=vae is a choice of model
        if sign and group in groups and re.fullmatch(r"[\w/]+|\[[\w/, ]+\]", value):
            there = ["null", "none", *choices(group, conf)]
            names = re.findall(r"[\w/]+", value)
            wrong += [no_such_choice(word, group, name, there[2:]) for name in names if name not in there]
    return wrong
