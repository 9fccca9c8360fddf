"""What `--help` and `--list` say, read from the files as text: no verb is imported and no config composed."""

from __future__ import annotations

import re
from pathlib import Path

from lit_gen.cli import CONF, choices, default_choices, did_you_mean, group_names, rows

_INTRODUCTION = """\
lit-gen <verb> [key=value ...]

  trains deep generative models, one task after the other if asked, and scores what they generate

verbs:
{verbs}

  lit-gen <verb> --help           usage and examples
  lit-gen <verb> --cfg [k=v ...]  the composed and checked config, as YAML; nothing is started
  lit-gen --list [group]          the choices of every config group, or of one
  lit-gen --version

keys:
  model=vae               takes the config of a group by its file's name in conf/model
  model.beta=0.5          sets one value of it
  callbacks=[default,ema] takes several files of one group
  +logger.tags.note=x     adds a key that is not there
  ~key                    removes one
  trust=my_package        lets configurations build what this package of yours defines"""


class UnknownGroup(Exception):
    """`--list` of a group that there is not; the message lists what there is."""


def verbs(folder: Path = Path(__file__).parent) -> dict[str, str]:
    """The verbs and their help texts: files of this folder with HELP."""
    texts = {file.stem: file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py"))}
    found = {verb: re.search(r'^HELP = """(.*?)"""', text, re.M | re.S) for verb, text in texts.items()}
    return {verb: said[1].strip("\n") for verb, said in found.items() if said}


def overview() -> str:
    """What `lit-gen --help` prints: the first descriptive line of every verb's help."""
    lines = [f"  {verb:<10} {_summary(verb, text)}" for verb, text in verbs().items()]
    return _INTRODUCTION.format(verbs="\n".join(lines))


def listing(group: str | None = None, conf: Path = CONF) -> str:
    """The choices of one or every config group, with the first comment of each file; "*" marks the default.

    Raises:
        UnknownGroup: there is no such group.
    """
    groups = group_names(conf)
    if group is not None and group not in groups:
        raise UnknownGroup(
            f"there is no config group {group!r}. {did_you_mean(group, groups)}There are {', '.join(groups)}."
        )
    defaults = default_choices(conf / "train.yaml")
    parts = []
    for name in groups if group is None else [group]:
        lines = [name]
        for choice in choices(name, conf):
            mark = "*" if defaults.get(name) == choice else " "
            lines.append(f"  {mark} {choice:<28} {describe(conf / name / f'{choice}.yaml')}".rstrip())
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def describe(file: Path) -> str:
    """The first comment line of a config file that is not an instruction to Hydra; "" if it has none.

    Of a row of a table, such as knop/cwae_mnist.yaml, the row's comment.
    """
    if not file.is_file():
        return rows(file.parent.with_suffix(".yaml")).get(file.stem, "")
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("#") and "@package" not in line:
                return line.lstrip("# ").strip()
    return ""


def _summary(verb: str, text: str) -> str:
    """The first line of a help text that is not the usage itself."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line and not line.startswith((f"lit-gen {verb}", "usage"))), "")
