"""Every command in the help texts and in README.md is one: it is read, composed and asked what it needs.

Nothing is trained, and no data set or checkpoint is read: data are replaced by made-up ones of the same kind.
"""

from __future__ import annotations

import functools
import re
import shlex

import pytest
from conf_toys import files_read_once
from PIL import Image

from datamodules.synthetic import SyntheticData
from datamodules.unpaired import UnpairedData
from lit_gen.__main__ import main
from lit_gen.cli import (
    CONF,
    analyse,
    assembly,
    check,
    choices,
    compare,
    evaluate,
    group_names,
    plan,
    sample,
    scores,
    stats,
    track,
    train,
    translate,
)
from lit_gen.cli.building import build
from lit_gen.cli.config import FIXED, Composed, compose, recompose
from lit_gen.cli.help import verbs
from lit_gen.cli.open_run import built_model, check_parts
from lit_gen.cli.words import own_words
from lit_gen.core.types import ImageSpec

README = (CONF.parent / "README.md").read_text(encoding="utf-8")
PLACEHOLDERS = {"<row>": "quickstart", "experiment=NAME": "experiment=dcgan_mnist", ",...": "", "~": "."}


class Reached(Exception):
    """A command got as far as its checkpoint or its images."""


def commands() -> list[str]:
    """Of the help texts' examples and of README's code, each once, without what it is only read by people."""
    examples = [line for text in verbs().values() for line in re.findall(r"^  (lit-gen .*)$", text, re.M)]
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", README, re.M | re.S)).replace("\\\n", "")
    examples += [" ".join(code.split()) for code in re.findall(r"^(?:\w+=\S+ )*(lit-gen .*)$", blocks, re.M)]
    inline = re.sub(r"^```.*?^```", "", README, flags=re.M | re.S)
    for code in map(" ".join, map(str.split, re.findall(r"`([^`]+)`", inline))):
        words = code.split()
        if words[0] == "lit-gen":
            examples.append(code)
        elif all(word.partition("=")[0].partition(".")[0] in group_names() for word in words[1:]):
            if words[0] in choices("experiment"):
                examples.append(f"lit-gen train experiment={code}")
            elif (
                len(words) > 1 and words[0].partition("=")[0] in group_names() and words[0].partition("=")[2]
            ):
                examples.append(f"lit-gen train {code}")
    for placeholder, value in PLACEHOLDERS.items():
        examples = [example.replace(placeholder, value) for example in examples]
    # Where a run's files are, and on what it runs, makes no other command of it.
    different = {re.sub(r" (data.root|output_dir|trainer|cpu_threads|seed)=\S+", "", e): e for e in examples}
    # What needs a file that README.md shows is run in tests/test_readme.py.
    return [example for example in different.values() if not re.search(r"[ /]\w+=flow\b", example)]


@pytest.fixture(scope="module", autouse=True)
def _every_file_is_read_once():
    with files_read_once():
        yield


def made_up(data: dict) -> SyntheticData | UnpairedData:
    """Data of this configuration's kind that need no files."""
    spec = ImageSpec(**{key: value for key, value in data["spec"].items() if key != "_target_"})
    settings = {
        "num_images": 20 * max(10, spec.num_classes),
        "num_test_images": 10 * max(10, spec.num_classes),
    }
    if "a" in data:
        a, b = (SyntheticData(spec=spec, **settings) for _ in "ab")
        made = UnpairedData(spec=spec, a=a, b=b)
    else:
        made = SyntheticData(
            spec=spec,
            split=build(data["split"], "data.split"),
            num_tasks=data["num_tasks"],
            joint=data["joint"],
            binarize=data["binarize"],
            **settings,
        )
    made.prepare_data()
    made.setup()
    return made


def ask(words: list[str]) -> None:
    """All that training asks of a configuration before it begins, but for the files."""
    composed = compose("train", words)
    if composed.choices["extractor"] == "inception":
        composed.config["judges"].pop("quality")  # its weights are not here
    module, data = built_model(composed), made_up(composed.config["data"])
    check_parts(module, data, [assembly.scoring_of(composed), *assembly._chosen(composed)])


@functools.cache
def stored() -> dict:
    return compose("train").source


@pytest.fixture
def dry(monkeypatch, tmp_path):
    """A folder of pictures under every name that the examples use, and no checkpoint behind any."""
    composed = []

    def reached(path, words=(), *_, **__):
        if words:
            recompose(stored(), words, FIXED)
        raise Reached

    def first_alone(config_name, words):
        group, _, name = words[0].partition("=")
        assert name in choices(group)
        if not composed:
            composed.append(compose(config_name, words))

    monkeypatch.chdir(tmp_path)
    for name in (
        "photos/test",
        "photos/train",
        "my/photos/a",
        "my/photos/b",
        "generated",
        "horses",
        "zebras",
        "noisy",
    ):
        (tmp_path / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / name / "1.png")
    for module, name in (
        (sample, "rebuild"),
        (translate, "rebuild"),
        (scores, "open_run"),
        (analyse, "open_run"),
    ):
        monkeypatch.setattr(module, name, reached)
    for module in (sample, translate):
        monkeypatch.setattr(module, "read_own", lambda path: path)
    monkeypatch.setattr(compare, "_trained", reached)
    monkeypatch.setattr(compare, "compose", first_alone)
    monkeypatch.setattr(compare, "_labels", reached)
    monkeypatch.setattr(track, "_track", lambda folder, own: reached(folder))
    for name in ("my-run", "a", "b"):
        (tmp_path / "runs" / name / "checkpoints").mkdir(parents=True)
        for file in ("config.yaml", "checkpoints/task-0.ckpt"):
            (tmp_path / "runs" / name / file).touch()


@pytest.mark.parametrize("command", commands())
def test_a_command_that_people_are_shown_is_one(command, dry, monkeypatch):
    _, verb, *words = shlex.split(command, comments=True)
    if verb.startswith("-") or words == ["--help"]:
        assert main([verb, *words]) == 0
    elif verb == "train":
        own, others = own_words(words, {"resume": str, "output_dir": str})
        train.refuse_changes(others) if "resume" in own else ask(others)
    elif words and "what=" in words[0]:
        assert main([verb, *words]) == 0
    else:
        run = {
            "sample": sample,
            "translate": translate,
            "evaluate": evaluate,
            "analyse": analyse,
            "compare": compare,
            "track": track,
            "stats": stats,
            "plan": plan,
            "check": check,
        }
        words = [word.replace("out=horses", "out=new").replace("out=zebras", "out=new") for word in words]
        monkeypatch.setattr(Composed, "build", lambda *_, **__: reached())
        monkeypatch.setattr(check, "judged", lambda *_: reached())
        with pytest.raises(Reached):
            run[verb].run(words)


def reached():
    raise Reached
