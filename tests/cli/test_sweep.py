"""Every parameter of every constructor that a shipped config names, with values that no run could use."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from conf_toys import net_of, partners, smallest_image
from omegaconf import OmegaConf
from torch import nn

from lit_gen.cli import CONF, choices, group_names
from lit_gen.cli.allowed import locate
from lit_gen.cli.building import build
from lit_gen.cli.config import compose
from lit_gen.cli.signatures import check, signature_of
from lit_gen.core import memory
from lit_gen.core.types import InputError

NUMBERS = [0, -1, 10**9, 10**18, float("nan"), float("inf")]
VALUES = [*NUMBERS, "text", [], [0], [-5], [10**9]]
# What the house gives itself, whatever the config says: the rest of a partial, and the Trainer's own.
GIVEN = {"params", "num_features", "callbacks", "logger", "default_root_dir"}
# The others change what these build.
GROUPS = set(group_names()) - {"budget", "paper", "recipe", "debug"}
TOGETHER = [
    f"callbacks=[{','.join(choices('callbacks'))}]",
    f"judges=[{','.join(choices('judges'))}]",
    *partners("callbacks", "classifier"),
    "sampler=latent",
]
FILES = [(group, name) for group in sorted(GROUPS) for name in choices(group)]


class Place(NamedTuple):
    key: str
    node: dict[str, Any]


@pytest.fixture(scope="module")
def places() -> dict[str, Place]:
    """target -> where it stands in a config, and as what; from as few configs as have them all."""
    load, found = functools.cache(OmegaConf.load), {}

    def walk(key: str, node: Any) -> None:
        if isinstance(node, dict) and "_target_" in node:
            found.setdefault(node["_target_"], Place(key, node))
        parts = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for name, part in parts:
            walk(f"{key}.{name}" if key else str(name), part)

    with pytest.MonkeyPatch.context() as patch:
        # By path, or as Hydra does by an open file.
        path_of = lambda file: file if isinstance(file, Path) else Path(file.name)  # noqa: E731
        patch.setattr(OmegaConf, "load", lambda file: load(path_of(file)).copy())
        walk("", compose("train", TOGETHER).config)
        for group, name in FILES:
            # A row of a table is looked for in the table.
            if targets(CONF / group / f"{name.partition('/')[0]}.yaml") - found.keys():
                words = [*partners(group, name), *(["data=mnist"] if group == "stream" else [])]
                model = next((word.removeprefix("model=") for word in words if "model=" in word), name)
                size = smallest_image(model, name if group == "net" else net_of(model))
                words += [f"data.spec.size={size}"] if size > 8 and group in ("model", "net") else []
                walk("", compose("train", [*words, f"{group}={name}"]).config)
    return found


def targets(file: Path) -> set[str]:
    return set(re.findall(r"^[^#]*_target_: ([\w.]+)", file.read_text(encoding="utf-8"), flags=re.MULTILINE))


def tries(places: dict[str, Place]) -> Iterator[tuple[str, str, Place]]:
    for target, (key, node) in places.items():
        names = dict.fromkeys([*signature_of(locate(target)).parameters, *node])
        for name in names:
            is_part = isinstance(node.get(name), dict) and "_target_" in node[name]
            if not is_part and name not in GIVEN and not name.startswith("_"):
                yield target, name, Place(key, node)


def answer(place: Place, name: str, value: Any, builds: bool = True) -> str:
    """What a config with this value leads to: "" for a part that is built, or what the user is told."""
    node = place.node | {name: value}
    config: Any = node
    for part in reversed(place.key.split(".")):
        config = {part: config}
    try:
        check(config)
        made = build(node, place.key) if builds else None
        if made is not None and node.get("_partial_"):
            if ".optim." in node["_target_"]:
                made([nn.Parameter(torch.zeros(2))])
            if ".metrics." in node["_target_"]:
                made(84)
    except InputError as error:
        return str(error)
    return ""


def test_every_shipped_target_is_there(places):
    named = set.union(*(targets(file) for file in CONF.rglob("*.yaml")))
    assert named <= places.keys()


def test_no_value_of_any_parameter_ends_in_a_traceback(places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "machine_memory", lambda: 2**28)
    wrong, count = [], 0
    for target, name, place in tries(places):
        said = ""
        for value in VALUES:
            count += 1
            is_same = value == 10**18 and not said  # a number that need not be whole, and 10**9 was taken
            try:
                said = answer(place, name, value, builds=not is_same)
            except Exception as error:
                wrong.append(f"{target} {name}={value}: {type(error).__name__}: {error}")
                continue
            if said and not re.search(rf"\b{name}\b", said):
                wrong.append(f"{target} {name}={value}: does not name it: {said}")
            if not said and value != value:
                wrong.append(f"{target} {name}={value}: was taken")
    assert count > 5000
    assert not wrong, "\n".join(wrong)
    assert not list(tmp_path.iterdir())
