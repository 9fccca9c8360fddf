"""lit-gen sample: what may be drawn, where it is written, and that nothing is mixed, lost or ignored."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from analysis_toys import TINY, VAE
from lightning import Fabric

import lit_gen
from lit_gen import BinPlay, Classifier, ImageSpec, to_uint8
from lit_gen.__main__ import main
from lit_gen.cli import sample
from lit_gen.cli.open_run import Rebuilt
from lit_gen.cli.sample import _conditions
from lit_gen.core.types import InputError, Task

STREAM = [
    *("stream=split_classes", "stream.num_tasks=2", "stream.split.order=[3,1,0,2]"),
    *("data.without_classes=[2]", "trainer.max_epochs=1", "data.num_images=64"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Told the label; classes 3 and 1 in the first task, 0 in the second, and 2 only in its test images."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["judges=quality", "judges.quality.num_samples=16", "callbacks=grid"]
    words += ["judges.quality.metrics=[{_target_: lit_gen.metrics.frechet.FrechetDistance, _partial_: true}]"]
    assert main(["train", *TINY, *VAE, *STREAM, *words, f"output_dir={folder}"]) == 0
    return folder


def test_only_labels_that_were_learned_are_drawn(run, tmp_path, capsys):
    first = run / "checkpoints" / "task-0.ckpt"
    for ckpt, labels in ((first, [1, 3, 1, 3, 1, 3, 1]), (run, [0, 1, 3, 0, 1, 3, 0])):
        assert main(["sample", f"ckpt={ckpt}", "n=7", f"out={tmp_path}/a.npz"]) == 0
        assert np.load(tmp_path / "a.npz")["label"].tolist() == labels
    refused = ((first, 0, "labels 1, 3"), (run, 2, "labels 0, 1, 3"), (run, 9, "labels 0, 1, 3"))
    for ckpt, label, known in refused:
        assert main(["sample", f"ckpt={ckpt}", f"label={label}", f"out={tmp_path}/b.png"]) == 2
        assert f"label={label}: this checkpoint knows {known}" in capsys.readouterr().err
    assert not (tmp_path / "b.png").exists()


def test_a_checkpoint_that_does_not_say_its_labels_gets_a_warning(run, tmp_path, capsys):
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    del state["lit_gen"]["label_counts"]
    torch.save(state, tmp_path / "old.ckpt")
    assert main(["sample", f"ckpt={tmp_path}/old.ckpt", "n=4", f"out={tmp_path}/a.npz"]) == 0
    assert np.load(tmp_path / "a.npz")["label"].tolist() == [0, 1, 2, 3]
    assert "does not say which labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("own", "pairs"),
    [
        ({}, [(0, 1), (0, 3), (1, 0)]),
        ({"task": 0}, [(0, 1), (0, 3)]),
        ({"label": 0}, [(1, 0)]),
        ({"task": 1, "label": 3}, r"label=3: this checkpoint knows labels 0 of task=1"),
        ({"task": 2}, r"task=2: this checkpoint knows tasks 0 to 1"),
    ],
)
def test_a_model_told_both_gets_pairs_that_it_was_trained_on(own, pairs):
    module = torch.nn.Module()
    module.conditions, module.spec = frozenset({"task", "label"}), type("Spec", (), {"num_classes": 4})
    rebuilt = Rebuilt(None, module, 1, 1, ((0, 5, 0, 5), (5, 0, 0, 0)))
    if isinstance(pairs, str):
        with pytest.raises(InputError, match=pairs):
            _conditions(rebuilt, own | {"ckpt": "run"})
    else:
        told = _conditions(rebuilt, own | {"ckpt": "run"})
        assert list(zip(told["task"].tolist(), told["label"].tolist(), strict=True)) == pairs


def test_a_folder_that_holds_something_is_refused_and_stays(run, tmp_path, capsys):
    out, hidden = tmp_path / "out", tmp_path / "hidden"
    hidden.mkdir()
    (hidden / ".DS_Store").write_text("")
    assert main(["sample", f"ckpt={run}", "n=6", f"out={out}"]) == 0
    assert main(["sample", f"ckpt={run}", "n=3", f"out={hidden}"]) == 0
    assert len(list(hidden.glob("*.png"))) == 3
    before = {file: file.read_bytes() for file in out.iterdir()}
    capsys.readouterr()
    (out / "samples.json").rename(tmp_path / "aside")
    assert main(["sample", f"ckpt={run}", "n=2", f"out={out}"]) == 2
    assert "is not empty (it holds 000000.png, 000001.png, 000002.png and 3 more)" in capsys.readouterr().err
    (tmp_path / "aside").rename(out / "samples.json")
    assert {file: file.read_bytes() for file in out.iterdir()} == before and len(before) == 7
    # A file is replaced, in one move; what has another ending is refused before anything is opened.
    for n in (4, 2):
        assert main(["sample", f"ckpt={run}", f"n={n}", f"out={tmp_path}/a.npz"]) == 0
    assert len(np.load(tmp_path / "a.npz")["image"]) == 2
    assert main(["sample", "ckpt=nowhere", f"out={tmp_path}/a.jpg"]) == 2
    assert "grid.png, samples.npz or a folder" in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.npz", "hidden", "out"]


def test_other_verbs_refuse_a_folder_of_other_things(run, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    for verb in (
        ["analyse", f"ckpt={run}", "what=reconstruction"],
        ["compare", f"runs={run}"],
        ["compare", "models=vae"],
    ):
        assert main([*verb, f"out={tmp_path}"]) == 2
        assert "is not empty (it holds mine.txt)" in capsys.readouterr().err
    assert main(["evaluate", f"ckpt={run}", f"out={tmp_path}"]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
    for _ in range(2):  # results of the same analysis are replaced, and those of others stay
        assert main(["analyse", f"ckpt={run}", "what=reconstruction", f"out={tmp_path}/new"]) == 0
    assert main(["analyse", f"ckpt={run}", "what=traversal", f"out={tmp_path}/new"]) == 0


UNUSED = {
    "evaluate real=a fake=b": (
        *("judges.quality.num_samples=50", "judges.quality.source=reconstructions", "seed=1"),
        *("judges=terms", "sampler=latent", "data=mnist", "trainer.precision=bf16-mixed"),
    ),
    "evaluate ckpt=RUN": (
        *("logger=csv", "callbacks.grid.num_images=3", "trainer.max_epochs=3", "debug=fast"),
        *("judges.quality.every_n_epochs=1", "trainer.limit_val_batches=2", "data.flip=true"),
    ),
    "evaluate ckpt=RUN judges=terms": ("extractor=lenet_mnist", "sampler=latent"),
    "analyse ckpt=RUN what=map": ("logger=csv", "extractor=inception", "sampler=latent"),
    "compare runs=RUN out=OUT": ("logger=csv",),
    "sample ckpt=RUN out=OUT": ("trainer.max_epochs=3",),
    "stats real=a out=a.npz": ("trainer.max_epochs=3", "judges.quality.metrics=[]"),
}


@pytest.mark.parametrize("words", [[*verb.split(), word] for verb, words in UNUSED.items() for word in words])
def test_what_would_change_nothing_is_refused(run, tmp_path, capsys, words):
    there = {"RUN": str(run), "OUT": f"{tmp_path}/out"}
    assert main([re.sub("RUN|OUT", lambda name: there[name[0]], word) for word in words]) == 2
    assert f"{words[-1]}: would change nothing" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"place": "3"}, "place=0:64"),
        ({"place": "5:5"}, "place=0:64"),
        ({"place": "0:4", "n": 4}, "leave out n"),
    ],
)
def test_places_are_a_range_and_say_themselves_which_images(own, words):
    with pytest.raises(InputError, match=words):
        sample._places(own)


def test_what_remembers_draws_by_place_what_is_there():
    spec = ImageSpec(1, 8, 4)
    model = BinPlay(spec, 2, Classifier(spec))
    model.past.close(Task(0, "0", (10, 20, 0, 0), 0, 30))
    place = sample._places({"place": "7:12"})
    drawing = sample.Drawing(model, 0, {"place": place}, Fabric(accelerator="cpu", devices=1))
    assert drawing.block(0)[:5].equal(to_uint8(model.at(place)))
    with pytest.raises(InputError, match="does not remember"):
        sample._memory(lit_gen.VAE(ImageSpec(1, 8, 4)))
