"""Several processes: the same weights everywhere, different noise, the same scores for any number of them."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import command_line, start, together
from test_runs import TINY, assert_same_run

TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two processes that nothing disturbed; beside it what its processes found out."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    watch = f"+callbacks.watch={{_target_: toys.RanksAgree, file: {folder.parent}/ranks.txt}}"
    start("train", *TINY, *TWO, f"output_dir={folder}", watch, "trust=toys").ended()
    return folder


@pytest.mark.slow
def test_two_processes_agree_on_weights_and_differ_in_noise_and_images(whole):
    lines = (whole.parent / "ranks.txt").read_text().splitlines()
    assert lines == ["train True {2.0} 2"] * 2
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["world_size"] == 2 and summary["status"] == "FINISHED"


@pytest.mark.slow
def test_scores_do_not_depend_on_the_number_of_processes(whole, tmp_path):
    everything = (
        "judges.quality.metrics=["
        "{_target_: lit_gen.metrics.frechet.FrechetDistance, _partial_: true},"
        "{_target_: lit_gen.metrics.neighbours.Neighbours, _partial_: true},"
        "{_target_: lit_gen.metrics.prd.PRD, _partial_: true},"
        "{_target_: lit_gen.metrics.kernel.KernelDistance, _partial_: true}]"
    )
    out = {1: tmp_path / "one.json", 3: tmp_path / "three.json"}
    where = {1: ["trainer=cpu"], 3: [*TWO[:2], "trainer.devices=3"]}
    ckpt = {1: f"ckpt={whole}", 3: f"ckpt={shutil.copytree(whole, tmp_path / 'copy')}@last"}
    for n in out:
        together(n, command_line, "evaluate", ckpt[n], everything, *where[n], f"out={out[n]}", "trust=toys")
    one, three = (
        {
            (s["metric"], s["on_task"]): math.nan if s["value"] is None else s["value"]
            for s in json.loads(file.read_text())
        }
        for file in out.values()
    )
    assert len(one) > 20 and ("kl", None) in one
    assert one == pytest.approx(three, rel=1e-5, abs=1e-9, nan_ok=True)
    trained_by_two = {
        (r["metric"], None if r["on_task"] == "all" else int(r["on_task"])): float(r["value"])
        for r in csv.DictReader((whole / "scores.csv").open())
        if r["after_task"] == "1"
    }
    assert {key: one[key] for key in trained_by_two} == pytest.approx(trained_by_two, rel=1e-5, nan_ok=True)


@pytest.mark.slow
def test_two_processes_resume_exactly(whole, tmp_path):
    folder = tmp_path / "killed"
    process = start("train", *TINY, *TWO, f"output_dir={folder}")
    process.reach((folder / "checkpoints" / "task-0.ckpt").exists).send(signal.SIGKILL)
    process.ended(-signal.SIGKILL)
    start("train", f"resume={folder}").ended()
    assert_same_run(whole, folder)


@pytest.mark.slow
def test_torchrun_gives_the_same_run(whole, tmp_path):
    folder = tmp_path / "torchrun"
    words = ["--standalone", "--nproc-per-node=2", "-m", "lit_gen", "train"]
    words += [*TINY, *TWO, f"output_dir={folder}"]
    # Whatever of this repository is to be imported; it need not be installed.
    paths = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words], env=paths, check=True, timeout=300
    )
    assert_same_run(whole, folder)


@pytest.mark.slow
def test_batch_norm_of_a_gan_and_of_its_average_is_the_same_on_all_processes(tmp_path):
    words = [
        word for word in TINY if not word.startswith(("model", "stream", "data.spec.size", "callbacks."))
    ]
    watch = f"+callbacks.look={{_target_: toys.SamplesAgree, file: {tmp_path}/samples.txt}}"
    small = ["model=gan", "net=dcgan", "data.spec.size=28", "model.generator.width=4", "model.critic.width=4"]
    ema = ["callbacks=ema", "callbacks.ema.modules=[generator]", "callbacks.ema.decay=0.5"]
    folder = tmp_path / "run"
    where = ["trainer=ddp_gan", *TWO[1:]]
    together(
        2, command_line, "train", *words, *small, *ema, *where, f"output_dir={folder}", watch, "trust=toys"
    )
    lines = (tmp_path / "samples.txt").read_text().splitlines()
    assert lines == ["validation True True 2", "test True True 2"]
