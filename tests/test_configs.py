"""Every file in conf/ composes and passes the check, whoever added it."""

import itertools
from pathlib import Path

import pytest
import torch

from lit_gen.cli import CONF, choices, group_names
from lit_gen.cli.compose import as_yaml, compose, recompose
from lit_gen.core.types import Batch

# What a file needs beside the defaults to make sense. A file may name its own partners in a comment:
# "# with: stream=split_classes data=mnist".
REQUIRED = {"stream": ["data=mnist"]}
FILES = [(group, name) for group in group_names() for name in choices(group)]
FREE_DATA = ("digits", "synthetic")  # need no files


def partners(group: str, name: str) -> list[str]:
    text = (CONF / group / f"{name}.yaml").read_text(encoding="utf-8")
    own = [line.removeprefix("# with: ").split() for line in text.splitlines() if line.startswith("# with: ")]
    return [*REQUIRED.get(group, []), *itertools.chain.from_iterable(own)]


@pytest.mark.parametrize(("group", "name"), FILES, ids=["/".join(file) for file in FILES])
def test_every_file_composes_and_passes_the_check(group, name):
    composed = compose("train", [*partners(group, name), f"{group}={name}"])
    assert composed.choices[group] == name
    assert "${" not in as_yaml(composed.config)
    assert recompose(composed.source).config == composed.config


@pytest.mark.parametrize("name", [f.stem for f in sorted(CONF.glob("*.yaml"))])
def test_every_config_of_a_verb_composes_without_further_words(name):
    assert compose(name).source


@pytest.mark.parametrize("data", FREE_DATA)
def test_spec_in_the_file_is_what_the_images_are(data):
    composed = compose("train", [f"data={data}"])
    module, spec = composed.build("data"), composed.build("data.spec")
    module.prepare_data()
    module.setup("fit")
    assert module.spec == spec
    for split in ("train", "val", "test"):
        images = module.dataset(split, [0])
        batch = Batch(*images.__getitems__(list(range(len(images)))))
        assert batch.image.shape == (len(images), spec.channels, spec.size, spec.size)
        assert batch.image.dtype == torch.uint8
        assert set(batch.label.tolist()) == set(range(spec.num_classes))


@pytest.mark.parametrize("model", choices("model"))
@pytest.mark.parametrize("data", FREE_DATA)
def test_every_model_builds_on_the_free_data(data, model):
    words = [*partners("model", model), f"model={model}"]
    if not any(word.startswith("data=") for word in words):
        words.append(f"data={data}")
    module = compose("train", words).build("model")
    assert sum(p.numel() for p in module.parameters()) > 0


@pytest.mark.parametrize("trainer", ["default", "cpu", "ddp"])
def test_trainers_that_need_no_other_machine_build(trainer):
    composed = compose("train", [f"trainer={trainer}", "trainer.accelerator=cpu", "trainer.devices=1"])
    built = composed.build("trainer", logger=False, enable_checkpointing=False)
    assert built.num_devices == 1 and built.num_sanity_val_steps == 0


def test_no_value_depends_on_the_machine():
    where = {
        str(file): line
        for file in CONF.rglob("*.yaml")
        for line in file.read_text(encoding="utf-8").splitlines()
        if any(part in line for part in ("/home/", "/root/", "/Users/", "C:\\", str(Path.cwd())))
    }
    assert where == {}
