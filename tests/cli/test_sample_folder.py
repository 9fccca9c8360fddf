"""Samples by the ten thousand: the same for any number of processes and of attempts, and never mixed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from analysis_toys import TINY, VAE
from processes import locked_by_another, together
from safetensors.torch import load_file

from lit_gen.__main__ import main
from lit_gen.cli.sample import Drawing
from lit_gen.cli.sample_folder import SampleFolder

LENET = "extractor=lenet_digits"
METRICS = (
    "judges.quality.metrics=[{_target_:lit_gen.metrics.frechet.FrechetDistance,_partial_:true},"
    "{_target_:lit_gen.metrics.neighbours.Neighbours,_partial_:true}]"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", *TINY, *VAE, "trainer.max_epochs=1", f"output_dir={folder}"]) == 0
    return folder


def commands(*lines):
    for line in lines:
        assert main(line.split()) == 0


def of_folder(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_one_and_two_processes_give_the_same(run, tmp_path):
    def lines(out, *words):
        each = [
            f"sample ckpt={run} n=600 shards=npz out={out}/shards",
            f"sample ckpt={run} n=300 label=1 out={out}/pictures",
            f"sample ckpt={run} n=600 out={out}/one.npz",
            f"evaluate real={out}/shards fake={out}/pictures {LENET} {METRICS} features={out}/f out={out}/s",
            f"stats real={out}/pictures {LENET} out={out}/stats.npz",
        ]
        return [" ".join([line, *words]) for line in each]

    one, two = tmp_path / "1", tmp_path / "2"
    one.mkdir(), two.mkdir()
    commands(*lines(one))
    together(2, commands, *lines(two, "trainer=ddp", "trainer.devices=2"))
    for name in ("shards", "pictures"):
        assert of_folder(one / name) == of_folder(two / name)
    assert len(of_folder(one / "shards")) == 4 and len(of_folder(one / "pictures")) == 301
    shards = [np.load(file) for file in sorted((one / "shards").glob("*.npz"))]
    for key in ("image", "label", "task"):
        whole = [np.load(place / "one.npz")[key] for place in (one, two)]
        assert (whole[0] == whole[1]).all()
        assert (whole[0] == np.concatenate([shard[key] for shard in shards])).all()
    scores = [
        {row["metric"]: row["value"] for row in json.loads((place / "s").read_text())} for place in (one, two)
    ]
    assert scores[0]["fid"] > 1 and scores[1] == pytest.approx(scores[0], rel=1e-9)
    kept = [load_file(place / "f") for place in (one, two)]
    assert all(rows.equal(kept[1][name]) for name, rows in kept[0].items()) and len(kept[0]) == 4
    stats = [np.load(place / "stats.npz") for place in (one, two)]
    np.testing.assert_allclose(stats[0]["sigma"], stats[1]["sigma"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shards", [["shards=npz"], []])
def test_a_stopped_command_goes_on(run, tmp_path, monkeypatch, capsys, shards):
    out, drawn, put = tmp_path / "out", [], SampleFolder.put
    own = Drawing.block
    monkeypatch.setattr(Drawing, "block", lambda self, number: drawn.append(number) or own(self, number))

    def sample(n, *words, folder=out):
        drawn.clear()
        return main(["sample", f"ckpt={run}", f"n={n}", f"out={folder}", *shards, *words])

    def stopped(self, block, images):
        if block == 1:
            raise KeyboardInterrupt
        put(self, block, images)

    assert sample(700, folder=tmp_path / "whole") == 0
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(SampleFolder, "put", stopped)
        sample(600)
    assert sample(600) == 0 and drawn == [1, 2]
    assert sample(600) == 0 and drawn == [] and "there already" in capsys.readouterr().out
    assert sample(700) == 0 and drawn == [2]
    assert of_folder(out) == of_folder(tmp_path / "whole")
    if shards:
        (out / "000001.npz").write_bytes(b"half")  # what a crashed file system leaves
        assert sample(700) == 0 and drawn == [1]
        assert of_folder(out) == of_folder(tmp_path / "whole")


def test_other_images_are_not_mixed_with_those_that_stand(run, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["sample", f"ckpt={run}", f"out={out}", "shards=npz"]
    assert main([*words, "n=260"]) == 0
    before = of_folder(out)
    for n, word, said in (
        (259, "seed=0", "n=259: 260 images stand in"),
        (270, "seed=1", "seed=1: those in"),
        (270, "label=2", "label=2: those in"),
        (270, "trainer.precision=bf16-mixed", "trainer.precision=bf16-mixed: those in"),
    ):
        assert main([*words, f"n={n}", word]) == 2
        assert said in capsys.readouterr().err
    assert main([*words[:-1], "n=270"]) == 2
    assert "shards=none: those in" in capsys.readouterr().err
    assert of_folder(out) == before
    with locked_by_another(out) as pid:
        assert main([*words, "n=270"]) == 2
    assert f"process {pid}" in capsys.readouterr().err
    (out / ".lock").unlink()
    assert of_folder(out) == before


def test_devices_that_are_not_there_are_refused(run, tmp_path, capsys):
    asked = ["trainer=gpu", "trainer.devices=[99]"]
    for verb in (
        ["sample", f"ckpt={run}"],
        ["stats", "real=x", LENET],
        ["evaluate", "real=x", "fake=x", LENET],
    ):
        assert main([*verb, f"out={tmp_path}/a.npz", *asked]) == 2
        assert "lit-gen: trainer" in capsys.readouterr().err
    assert main(["sample", f"ckpt={run}", f"out={tmp_path}/a.png", "shards=npz"]) == 2
    assert "is for a folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_precision_is_that_of_the_trainer(run, tmp_path):
    images = []
    for precision in ("32-true", "bf16-mixed"):
        assert main(["sample", f"ckpt={run}", f"out={tmp_path}/a.npz", f"trainer.precision={precision}"]) == 0
        images.append(torch.from_numpy(np.load(tmp_path / "a.npz")["image"]).float())
    assert 0 < (images[0] - images[1]).abs().mean() < 2
