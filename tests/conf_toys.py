"""What the files of conf/ say of themselves in their comments, for tests over all of them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lit_gen.cli import CONF, choices


@contextmanager
def files_read_once() -> Iterator[None]:
    """Hydra parses what the defaults lists name again for every config, which takes half of the time."""
    load = functools.cache(OmegaConf.load)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            OmegaConf,
            "load",
            lambda file: load(Path(getattr(file, "name", "") if hasattr(file, "read") else file)).copy(),
        )
        yield


def partners(group: str, name: str) -> list[str]:
    """The words that a file needs beside it, from its line "# with: model=wgan_gp data=synthetic"."""
    return [word for line in _said(group, name, "with") for word in line.split()]


def smallest_image(model: str, net: str | None) -> int:
    """The side length that the model's or the net's file has in a line "# smallest image: 28"; 4 without."""
    said = _said("model", model, "smallest image") + (_said("net", net, "smallest image") if net else [])
    return max(map(int, said), default=4)


def class_of(model: str) -> str:
    """The class that a model's file names at the end of its first comment."""
    return _text("model", model).partition("\n")[0].rpartition(" ")[2]


def models_of_classes() -> dict[str, str]:
    """Every class of conf/model with the first model of it."""
    return {class_of(model): model for model in reversed(choices("model"))}


def net_of(model: str) -> str | None:
    """The net that a model's file brings along, itself or by what it is made from; None: its own."""
    text = _text("model", model)
    if own := re.search(r"/net@_here_: (\w+)", text):
        return own[1]
    base = re.search(r"^defaults: \[(\w+)", text, flags=re.MULTILINE)
    return net_of(base[1]) if base else None


def _said(group: str, name: str, what: str) -> list[str]:
    return re.findall(rf"^# {what}: (.*)$", _text(group, name), flags=re.MULTILINE)


def _text(group: str, name: str) -> str:
    file = CONF / group / f"{name}.yaml"
    return file.read_text(encoding="utf-8") if file.is_file() else ""  # a row of a table
