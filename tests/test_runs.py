"""Whole runs through the command line: scores, resuming after a kill, several processes, bad input."""

from __future__ import annotations

import csv
import json
import signal

import numpy as np
import pytest
import torch
from processes import start

import lit_gen
from lit_gen.__main__ import main

TINY = [
    "data=synthetic",
    "data.num_images=96",
    "data.num_test_images=64",
    "data.spec.size=8",
    "data.spec.num_classes=4",
    "data.batch_size=16",
    "stream=split_classes",
    "stream.num_tasks=2",
    "model=replay_vae",
    "model.learner.latent_size=4",
    "judges.quality.per_task=true",
    "judges.quality.every_n_epochs=0",
    "judges.quality.metrics=[{_target_: lit_gen.metrics.frechet.FrechetDistance, _partial_: true}]",
    "callbacks.grid.num_images=8",
    "logger=csv",
    "trainer=cpu",
    "trainer.max_epochs=3",
    "trainer.check_val_every_n_epoch=3",
    "checkpoint.min_seconds=0",
    "cpu_threads=1",
]


def train(folder, *words, tiny=TINY) -> int:
    return main(["train", *tiny, f"output_dir={folder}", *words])


def weights(folder) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def scores(folder) -> str:
    return (folder / "scores.csv").read_text()


def assert_same_run(a, b) -> None:
    for name, value in weights(a).items():
        assert torch.equal(value, weights(b)[name]), name
    assert scores(a) == scores(b)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert train(folder) == 0
    return folder


def test_a_run_leaves_everything_it_promises(whole):
    for name in ("config.yaml", "scores.csv", "metrics.csv", "summary.json", "matrix.png", "log.txt"):
        assert (whole / name).stat().st_size > 0, name
    assert {f.name for f in (whole / "checkpoints").iterdir()} == {
        "last.ckpt",
        "previous.ckpt",
        "task-0.ckpt",
        "task-1.ckpt",
    }
    assert len(list((whole / "samples").glob("*.png"))) >= 2
    rows = list(csv.DictReader((whole / "scores.csv").open()))
    assert {(r["after_task"], r["on_task"]) for r in rows} == {
        ("0", "0"),
        ("0", "all"),
        ("1", "0"),
        ("1", "1"),
        ("1", "all"),
    }
    judged = [row for row in rows if row["metric"] == "fid"]
    assert all(len(r["extractor_hash"]) == 12 and r["num_real"] == r["num_fake"] for r in judged)
    assert {row["metric"] for row in rows} == {"fid", "loss", "reconstruction", "kl"}
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["status"] == "FINISHED" and summary["cpu_threads"] == 1
    assert {"mean", "forgetting"} <= set(summary["scores"]["fid/lenet_digits"])
    splits = [np.load(whole / "split" / f"train_task{task}.npy") for task in (0, 1)]
    assert len(np.intersect1d(*splits)) == 0 and sum(map(len, splits)) == 96


def test_evaluating_a_checkpoint_gives_the_scores_of_training(whole, tmp_path):
    for task in (0, 1):
        out = tmp_path / f"{task}.json"
        assert main(["evaluate", f"ckpt={whole}/checkpoints/task-{task}.ckpt", f"out={out}"]) == 0
        again = {
            (str(task), "all" if s["on_task"] is None else str(s["on_task"]), s["metric"]): s["value"]
            for s in json.loads(out.read_text())
        }
        written = {
            (r["after_task"], r["on_task"], r["metric"]): float(r["value"])
            for r in csv.DictReader((whole / "scores.csv").open())
            if r["after_task"] == str(task)
        }
        assert again == written


def test_evaluate_takes_other_settings_but_not_another_model(whole, capsys):
    assert main(["evaluate", f"ckpt={whole}", "judges.quality.num_samples=16"]) == 0
    assert "16 / 16" in capsys.readouterr().out
    for word in ("model.share=0.1", "stream.num_tasks=3"):
        assert main(["evaluate", f"ckpt={whole}", word]) == 2
        assert word.split(".")[0] in capsys.readouterr().err


def test_evaluate_counts_the_images_it_looked_at(whole, capsys):
    words = ["evaluate", f"ckpt={whole}", "judges=posterior"]
    assert main([*words, "trainer.limit_test_batches=1"]) == 0  # a block, of the first of two tasks
    said = capsys.readouterr()
    assert "32 / 0" in said.out and "limit_test_batches=1: the model's own terms are means over" in said.err
    assert main([*words, "trainer.limit_test_batches=0"]) == 2
    assert "trainer.limit_test_batches=0" in capsys.readouterr().err


def test_load_gives_the_trained_model(whole):
    model = lit_gen.load(whole)
    assert not model.training
    assert all(torch.equal(v, weights(whole)[n]) for n, v in model.state_dict().items())
    assert model.sample(3, task=torch.tensor([0, 1, 1])).shape == (3, 1, 8, 8)


def test_samples_are_the_same_however_many_are_drawn(whole, tmp_path):
    for n in (3, 300):
        assert main(["sample", f"ckpt={whole}", f"n={n}", "task=1", f"out={tmp_path}/{n}.npz"]) == 0
    few, many = np.load(tmp_path / "3.npz"), np.load(tmp_path / "300.npz")
    assert few["image"].shape == (3, 8, 8, 1) and few["image"].dtype == np.uint8
    assert (few["image"] == many["image"][:3]).all() and (many["task"] == 1).all()
    assert main(["sample", f"ckpt={whole}", "n=9", f"out={tmp_path}/grid.png", "seed=5"]) == 0
    assert main(["sample", f"ckpt={whole}", "n=5", f"out={tmp_path}/folder"]) == 0
    assert len(list((tmp_path / "folder").glob("*.png"))) == 5
    assert (
        main(["evaluate", f"real={tmp_path}/300.npz", f"fake={tmp_path}/300.npz", "extractor=lenet_digits"])
        == 0
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task=2"], "tasks 0 to 1"),
        (["label=1"], "without a condition on the label"),
        (["n=0"], "expected int > 0"),
        (["n=many", "device=warp", "sampler.x=1"], "expected int"),
        (["device=warp"], "device=warp"),
        (["sampler.heat=1"], "sampler.heat"),
        (["colour=red"], "colour=red"),
    ],
)
def test_sample_refuses_what_the_model_does_not_know(whole, tmp_path, capsys, words, said):
    assert main(["sample", f"ckpt={whole}", f"out={tmp_path}/x.png", *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_resuming_a_finished_run_says_so(whole, capsys):
    before = {f: f.stat().st_mtime_ns for f in whole.rglob("*")}
    assert main(["train", f"resume={whole}"]) == 0
    assert "finished" in capsys.readouterr().out
    assert {f: f.stat().st_mtime_ns for f in whole.rglob("*")} == before


def test_a_run_that_is_out_of_time_goes_on_where_it_stopped(tmp_path):
    folder = tmp_path / "timed"
    assert train(folder, "trainer.max_time=00:00:00:01", "trainer.max_epochs=300") == 0
    assert json.loads((folder / "summary.json").read_text())["status"] == "KILLED"
    before = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["epoch"]
    assert main(["train", f"resume={folder}", "trainer.max_time=00:00:00:01"]) == 0
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] > before


@pytest.mark.parametrize("name", ["task-0.ckpt", "previous.ckpt"])
def test_resuming_from_any_kept_checkpoint_ends_the_same(whole, tmp_path, name):
    folder = tmp_path / "copy"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text((whole / "config.yaml").read_text())
    (folder / "checkpoints" / name).write_bytes((whole / "checkpoints" / name).read_bytes())
    assert main(["train", f"resume={folder}/checkpoints/{name}"]) == 0
    assert_same_run(whole, folder)


def test_a_resumed_run_keeps_what_it_computes(whole, tmp_path, capsys):
    folder = tmp_path / "copy"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text((whole / "config.yaml").read_text())
    (folder / "checkpoints" / "last.ckpt").write_bytes((whole / "checkpoints" / "task-0.ckpt").read_bytes())
    for word in ("model.share=0.1", "seed=3", "data.batch_size=4"):
        assert main(["train", f"resume={folder}", word]) == 2
        assert word in capsys.readouterr().err


MOMENTS = {
    "before the first checkpoint": lambda f: (f / "config.yaml").exists(),
    "inside a task": lambda f: (f / "checkpoints" / "previous.ckpt").exists(),
    "while a checkpoint is written": lambda f: (f / "checkpoints" / "writing.ckpt").exists(),
    "after a task": lambda f: (f / "checkpoints" / "task-0.ckpt").exists(),
    "inside the last scoring": lambda f: (
        (f / "scores.csv").exists() and "after_task" in (f / "scores.csv").read_text()
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS.keys())
def test_a_run_killed_at_any_moment_and_resumed_is_the_uninterrupted_run(whole, tmp_path, moment):
    folder = tmp_path / "killed"
    process = start("train", *TINY, f"output_dir={folder}").reach(lambda: moment(folder))
    process.send(signal.SIGKILL)
    process.ended(-signal.SIGKILL)
    assert main(["train", f"resume={folder}"]) == 0
    assert_same_run(whole, folder)
    assert json.loads((folder / "summary.json").read_text())["status"] == "FINISHED"


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_run_that_is_told_to_stop_says_how_to_go_on(whole, tmp_path, sent):
    folder = tmp_path / "stopped"
    process = start("train", *TINY, "trainer.max_epochs=200", f"output_dir={folder}")
    process.reach((folder / "checkpoints" / "last.ckpt").exists).send(sent)
    output = process.ended(128 + sent)
    assert f"resume={folder}" in output and "Traceback" not in output
    assert json.loads((folder / "summary.json").read_text())["status"] == "KILLED"


@pytest.mark.slow
def test_a_run_that_diverges_says_so_without_a_traceback(tmp_path):
    folder = tmp_path / "run"
    output = start("train", *TINY, "model.learner.optimizer.lr=1e20", f"output_dir={folder}").ended(code=1)
    assert "diverged: loss is" in output and "model.optimizer.lr" in output and "Traceback" not in output
    assert "diverged: loss is" in (folder / "log.txt").read_text()
    assert json.loads((folder / "summary.json").read_text())["status"] == "FAILED"
    assert not (folder / "checkpoints" / "last.ckpt").exists()
