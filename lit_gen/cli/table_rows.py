"""Config files with a table of rows, such as conf/paper/knop.yaml: `paper=knop/cwae_mnist` is one of them.

Settings that all rows share stand in the file as in any other. A row has keys as on the command line, groups
among them (`data: mnist`, `model.weight: 5.0`), and is laid over; the words of the command line change it.
Under `shared:` stand parts of rows, by YAML anchors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from lit_gen.cli import rows
from lit_gen.cli.words import Word


def with_rows(words: Sequence[Word], conf: Path) -> list[Word]:
    """The words, after those of the rows that they choose."""
    own = []
    for word in words:
        table, _, row = str(word.value).rpartition("/")
        file = conf / word.key / f"{table}.yaml"
        if table and row in rows(file):
            values = OmegaConf.to_container(OmegaConf.load(file), resolve=False)["rows"][row]
            own += [Word(f"{key}={value}", "", key, value) for key, value in values.items()]
    return [*own, *words]


def file_of(conf: Path, group: str, choice: str | None) -> str | None:
    """The name of the file that has a choice: of a row its table, of any other the choice itself."""
    table, _, row = (choice or "").rpartition("/")
    return table if table and row in rows(conf / group / f"{table}.yaml") else choice
