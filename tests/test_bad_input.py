"""Every mistake of a user ends with exit code 2 and a message that names it: no traceback, nothing spoilt."""

from __future__ import annotations

import gzip
import shutil
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_runs import TINY

from lit_gen.__main__ import main
from lit_gen.core import memory


def refused(capsys, *words) -> str:
    """Runs the command line, which must refuse, and returns its message."""
    assert main([str(word) for word in words]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("experiment=quickstrat", ["quickstrat", "Did you mean quickstart"]),
        ("model.learner.bet=1", ["model.learner.bet", "model.learner.beta"]),
        ("model.learner.latent_size=2.5", ["model.learner.latent_size", "expected int > 0", "2.5"]),
        ("stream.num_tasks=9", ["stream.num_tasks=9", "4"]),
        ("trainer.accelerator=warp", ["trainer", "warp"]),
        ("trainer.max_time=soon", ["trainer.max_time", "soon"]),
        ("judges.quality.num_samples=0", ["judges.quality.num_samples"]),
        ("data.without_classes=[9]", ["data.without_classes=[9]", "from 0 to 3"]),
        ("extractor=inception", ["weights", "put it at"]),
        ("checkpoint.min_seconds=-1", ["checkpoint.min_seconds", "float >= 0"]),
        ("published=3", ["published", "a dictionary"]),
        ("model.learner.encoder.hidden=[0]", ["model.learner.encoder.hidden", "a list of int > 0"]),
        ("trainer.limit_train_batches=0.001", ["trainer.limit_train_batches=0.001", "3 batches of task 0-1"]),
        ("trainer.overfit_batches=0.001", ["trainer.overfit_batches=0.001", "such as 1"]),
        ("trainer.val_check_interval=1000", ["trainer.val_check_interval=1000", "has 3 batches"]),
        ("+callbacks.ema={_target_: callbacks.ema.AveragedWeights, decay: [0.5, 0.5]}", ["ema.decay"]),
    ],
)
def test_a_wrong_word_of_the_command_line_is_named(tmp_path, capsys, word, said, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    message = refused(capsys, "train", *TINY, f"output_dir={tmp_path}/run", word)
    for part in said:
        assert part in message, message
    assert not (tmp_path / "run").exists(), "a run that could not begin leaves nothing"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data.spec.size=800", "data.num_images=96, data.spec.size=800: making the images takes 1.0 GB"),
        (
            "model.learner.encoder.hidden=[999999]",
            "largest number there is model.learner.encoder.hidden.0",
        ),
        (
            "data.batch_size=1000000",
            "data.batch_size: 1000000, with ",
        ),
    ],
)
def test_what_does_not_fit_into_memory_is_refused(tmp_path, capsys, word, said, monkeypatch):
    monkeypatch.setattr(memory, "machine_memory", lambda: 10**8)
    message = refused(capsys, "train", *TINY, f"output_dir={tmp_path}/run", word)
    assert said in message and "this machine has 0.1 GB of memory" in message
    assert not (tmp_path / "run").exists()


def test_all_that_is_wrong_is_said_at_once(tmp_path, capsys):
    words = ["data.flip=1", "trainer.devices=many", "seed=-1", "cpu_threads=0", "model.learner.beta=abc"]
    message = refused(capsys, "train", *TINY, f"output_dir={tmp_path}/run", *words)
    assert all(word.partition("=")[0] in message for word in words)
    words = ["sed=1", "modle.x=2"]
    assert refused(capsys, "train", *TINY, *words).count("Did you mean") == 2
    assert "whole numbers end at" in refused(capsys, "sample", "ckpt=a", "out=b", f"n={10**18}")
    assert len(refused(capsys, "sample", "n=0", "task=x", "colour=red").splitlines()) == 5
    assert not (tmp_path / "run").exists()


def test_all_tasks_at_once_are_refused_for_a_method_that_needs_each(tmp_path, capsys):
    words = [word for word in TINY if not word.startswith("model")]
    message = refused(
        capsys, "train", *words, "model=multiband", "stream.joint=true", f"output_dir={tmp_path}/run"
    )
    assert "stream.joint=true" in message and "MultibandVAE" in message and "joint=false" in message


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model=vae", "data=unpaired_digits"], "VAE learns from single images, and UnpairedData has two"),
        (["model=cyclegan", "data=digits"], "CycleGAN learns from two domains, and Digits has one domain"),
        (["callbacks=ema", "callbacks.ema.modules=[generator]"], "VAE has no such module; it has encoder"),
        (["recipe=classifier", "callbacks.export.dataset=x"], "VAE has no network of features"),
        (["judges.quality.source=translations"], "VAE does not promise Translates"),
        (
            ["model=lenet", "data=synthetic", "data.spec.num_classes=0", "judges=terms"],
            "num_classes: expected int > 0",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused_and_leave_nothing(tmp_path, capsys, words, said, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert said in refused(capsys, "train", *words, "trainer=cpu", f"output_dir={tmp_path}/run")
    assert not list(tmp_path.iterdir())


def test_more_gpus_than_there_are_are_refused(tmp_path, capsys):
    count = torch.cuda.device_count() + 1
    words = ["trainer=gpu", f"trainer.devices={count}", f"output_dir={tmp_path}/run"]
    message = refused(capsys, "train", *TINY, *words)
    assert "trainer" in message and ("GPU" in message or "gpu" in message.lower() or "CUDA" in message)


def test_an_unknown_verb_is_named(capsys):
    assert "Did you mean train" in refused(capsys, "trian")


def test_a_folder_that_holds_another_run_stays_as_it_is(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("mine")
    message = refused(capsys, "train", *TINY, f"output_dir={folder}")
    assert str(folder) in message and "resume=" in message
    assert [f.name for f in folder.iterdir()] == ["config.yaml"]
    assert (folder / "config.yaml").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    message = refused(capsys, "train", *TINY, f"output_dir={tmp_path}/file/run")
    assert f"{tmp_path}/file/run" in message and "cannot be written" in message


def test_nothing_to_resume_is_named(tmp_path, capsys):
    assert "not the folder of a run" in refused(capsys, "train", f"resume={tmp_path}")
    assert "nowhere" in refused(capsys, "train", f"resume={tmp_path}/nowhere")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    assert main(["train", *TINY, "trainer.max_epochs=1", f"output_dir={folder}"]) == 0
    return folder / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("verb", ["evaluate", "sample"])
def test_damaged_foreign_and_old_checkpoints_are_refused(checkpoint, tmp_path, capsys, verb):
    words = ["out=" + str(tmp_path / "out.npz")] if verb == "sample" else []
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(checkpoint.read_bytes()[:5000])
    assert "truncated" in refused(capsys, verb, f"ckpt={cut}", *words)
    state = torch.load(checkpoint, weights_only=True)
    other = state | {"state_dict": {"weight": torch.zeros(3)}}
    torch.save(other, tmp_path / "other.ckpt")
    assert "another model" in refused(capsys, verb, f"ckpt={tmp_path}/other.ckpt", *words)
    old = state | {"lit_gen": state["lit_gen"] | {"format": 0, "version": "0.0.1"}}
    torch.save(old, tmp_path / "old.ckpt")
    assert "0.0.1" in refused(capsys, verb, f"ckpt={tmp_path}/old.ckpt", *words)
    assert "no such file" in refused(capsys, verb, f"ckpt={tmp_path}/none.ckpt", *words)
    assert not (tmp_path / "out.npz").exists()


def write_idx(folder: Path, count: int = 20) -> None:
    """The four files of MNIST in miniature."""
    folder.mkdir(parents=True)
    for name in ("train", "t10k"):
        images = struct.pack(">IIII", 0x803, count, 28, 28) + bytes(count * 784)
        labels = struct.pack(">II", 0x801, count) + bytes(i % 10 for i in range(count))
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(labels)


def test_files_without_images_are_refused(tmp_path, capsys):
    write_idx(tmp_path / "MNIST" / "raw", count=0)
    words = ["data=mnist", f"data.root={tmp_path}", "data.download=false", "logger=csv", "trainer=cpu"]
    message = refused(capsys, "train", *words, f"output_dir={tmp_path}/run")
    assert "train-images" in message and "holds nothing (0 x 28 x 28)" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train-labels-idx1-ubyte", struct.pack(">II", 0x801, 20) + bytes(11)),
        ("train-images-idx3-ubyte.gz", gzip.compress(bytes(100))[:20]),
        ("t10k-labels-idx1-ubyte", None),
    ],
    ids=["truncated", "truncated gzip", "missing"],
)
def test_wrong_idx_files_are_named(tmp_path, capsys, name, content):
    folder = tmp_path / "data" / "MNIST" / "raw"
    write_idx(folder)
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    words = ["data=mnist", f"data.root={tmp_path}/data", "data.download=false", "logger=csv", "trainer=cpu"]
    message = refused(capsys, "train", *words, f"output_dir={tmp_path}/run")
    assert name.removesuffix(".gz") in message and str(folder) in message


def test_missing_and_truncated_cifar_files_are_named(tmp_path, capsys):
    words = ["data=cifar10", f"data.root={tmp_path}", "data.download=false", "logger=csv", "trainer=cpu"]
    message = refused(capsys, "train", *words, f"output_dir={tmp_path}/run")
    assert str(tmp_path) in message and "cifar-10" in message
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        (folder / name).write_bytes(bytes(3073 * 4))
    (folder / "data_batch_3.bin").write_bytes(bytes(3073 * 4 - 7))
    message = refused(capsys, "train", *words, f"output_dir={tmp_path}/run2")
    assert "data_batch_3.bin" in message


def write_pictures(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (root / "train" / kind).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 255, (12, 14, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "train" / kind / f"{number}.png")
    return root


def test_corrupt_and_grey_pictures_are_named(tmp_path, capsys):
    words = ["data=image_folder", "data.spec.channels=3", "data.spec.size=8", "data.spec.num_classes=2"]
    words += ["data.convert=false", "logger=csv", "trainer=cpu"]
    corrupt = write_pictures(tmp_path / "corrupt")
    (corrupt / "train" / "cat" / "3.png").write_bytes(b"\x89PNG nothing")
    message = refused(capsys, "train", *words, f"data.root={corrupt}", f"output_dir={tmp_path}/a")
    assert "3.png" in message
    grey = write_pictures(tmp_path / "grey")
    Image.fromarray(np.zeros((12, 12), dtype=np.uint8)).save(grey / "train" / "dog" / "5.png")
    message = refused(capsys, "train", *words, f"data.root={grey}", f"output_dir={tmp_path}/b")
    assert "5.png" in message and "grey" in message.lower()


def test_images_to_compare_that_are_missing_or_wrong_are_named(tmp_path, capsys):
    good = tmp_path / "good.npz"
    np.savez(good, np.zeros((4, 8, 8, 1), dtype=np.uint8))
    words = ["evaluate", f"real={good}", "extractor=lenet_digits"]
    assert "nothing" in refused(capsys, *words, f"fake={tmp_path}/nothing")
    np.savez(tmp_path / "float.npz", np.where(np.arange(256) < 64, np.nan, 0.5).reshape(4, 8, 8, 1))
    message = refused(capsys, *words, f"fake={tmp_path}/float.npz")
    assert "float64 [4, 8, 8, 1], 25.0% of it no finite numbers; expected levels from 0 to 255" in message
    assert "background=blak: no colour" in refused(capsys, *words, f"fake={good}", "background=blak")
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refused(capsys, *words, f"fake={tmp_path}/empty")
    (tmp_path / "empty" / "x.png").write_bytes(b"no picture")
    assert "x.png" in refused(capsys, *words, f"fake={tmp_path}/empty")
    message = refused(capsys, *words, f"fake={good}", "judges.quality.metrics.2.num_clusters=1")
    assert "judges.quality.metrics.2.num_clusters: expected int >= 2, got 1" in message
    assert "real= and fake=" in refused(capsys, "evaluate")
    assert "Did you mean extractor?" in refused(capsys, *words, f"fake={good}", "extracter=inception")


def test_an_mlflow_server_out_of_reach_does_not_end_the_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lit_gen.tracking.mlflow.END_PATIENCE", 2.0)
    folder = tmp_path / "run"
    words = ["logger=mlflow", "logger.tracking_uri=http://127.0.0.1:9", "trainer.max_epochs=1"]
    began = time.monotonic()
    assert main(["train", *TINY, *words, f"output_dir={folder}"]) == 0
    assert time.monotonic() - began < 60
    output = capsys.readouterr()
    assert (output.err + output.out).count("MLflow at http://127.0.0.1:9 does not answer") == 1
    assert (folder / "scores.csv").exists() and (folder / "metrics.csv").exists()
    shutil.rmtree(folder)


def test_a_launcher_that_has_started_another_number_of_processes_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=3", f"output_dir={tmp_path / 'run'}"]
    assert main(["train", "experiment=quickstart", "logger=csv", *words]) == 2
    assert "torchrun has started 2 process(es)" in capsys.readouterr().err and not (tmp_path / "run").exists()
