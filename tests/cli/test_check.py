"""What is wrong with a machine is found, said with the way out, and ends the check with 1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from processes import together

from lit_gen.__main__ import main
from lit_gen.cli import check, collectives
from lit_gen.cli.check import _differing
from lit_gen.cli.config import compose
from lit_gen.cli.ground import Ground, Skipped

GOOD = {"world": 2, "device": "cpu", "wrong": [], "megabytes_per_second": 100.0}


def ground(place, **made) -> Ground:
    found = Ground(compose("train", ["logger=csv"]), [], place, 60)
    found._made = made
    return found


def test_a_store_that_is_out_of_reach_fails_the_check_without_its_password(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check, "CHECKS", {"tracker": check.tracker})
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
    address = "logger.tracking_uri=http://me:hunter2@127.0.0.1:9"
    assert main(["check", address, "out=check.json"]) == 1
    said = capsys.readouterr()
    assert "tracker: start the server, or give its address" in said.out
    report = json.loads((tmp_path / "check.json").read_text())
    assert report["checks"][0]["verdict"] == "failed" and report["versions"]["torch"]
    assert "hunter2" not in said.out + said.err + json.dumps(report)
    assert [file.name for file in tmp_path.iterdir()] == ["check.json"]


def test_a_store_takes_a_run_and_keeps_nothing_in_sight(tmp_path, database, no_mlflow_settings):
    from mlflow import MlflowClient

    client = MlflowClient(database)
    before = {each.name for each in client.search_experiments()}
    where = Ground(compose("train", [f"logger.tracking_uri={database}"]), [], tmp_path, 60)
    for _ in range(2):  # the second time after a first one
        assert check.judged("tracker", check.tracker, where).verdict == "passed"
    assert {each.name for each in client.search_experiments()} == before
    assert not list(Path(database.removeprefix("sqlite:///")).parent.rglob("check.txt"))


def test_wrong_sums_fail_the_check(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(collectives, "summed", lambda part: part + 1)
    assert collectives.main(["trainer=cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["world"] == 1 and found["wrong"] == ["all_reduce"]
    verdict = check.judged("processes", check.processes, ground(tmp_path, processes=found | {"world": 2}))
    assert verdict.verdict == "failed" and "all_reduce" in verdict.found and "NCCL" in verdict.to_do


def test_two_processes_sum_up_what_they_should():
    together(2, two_processes)


def two_processes() -> None:
    told = []
    collectives.print = told.append
    words = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    assert collectives.main(words) == 0
    assert all(json.loads(line) | {"wrong": [], "world": 2} == json.loads(line) for line in told)


def test_a_run_that_ends_badly_says_why_and_is_not_tried_again(tmp_path, monkeypatch):
    where, started = ground(tmp_path), []

    def nonsense(self, module, *words):
        started.append(module)
        return start(self, "lit_gen", "trian")

    start = Ground.start
    monkeypatch.setattr(Ground, "start", nonsense)
    verdict = check.judged("processes", check.processes, where)
    assert verdict.verdict == "failed"
    assert verdict.found.startswith("processes were not started: it ended with 2; lit-gen: there is no verb")
    with pytest.raises(Skipped, match="needs what `processes` looks at"):
        check.same_scores(where)
    assert started == ["lit_gen.cli.collectives"]


def test_nothing_begins_when_the_time_is_over(tmp_path):
    where = ground(tmp_path, processes=GOOD)
    where.end = 0.0
    assert check.judged("training", check.training, where).verdict == "skipped"


def test_a_machine_without_gpu_skips_what_needs_one(tmp_path):
    where = ground(tmp_path, processes=GOOD)
    for each in (check.bf16, check.compiled):
        assert check.judged("", each, where)[1:3] == ("skipped", "there is no GPU here")


def test_a_bit_of_a_weight_or_of_an_optimizer_is_a_difference():
    def state(weight, moment):
        return {"state_dict": {"w": torch.tensor(weight)}, "optimizer_states": [{"m": torch.tensor(moment)}]}

    assert _differing(state(1.0, 2.0), state(1.0, 2.0)) == []
    assert _differing(state(1.0, 2.0), state(1.0, 2.0000002)) == ["optimizer_states.0.m"]
    assert _differing(state(1.0, 2.0), state(1.0000001, 2.0)) == ["state_dict.w"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model=vae"], "model=vae: The keys here are out, trainer, logger"),
        (["trainer=slurm"], "without torchrun and srun"),
        (["trainer=dpp"], "Did you mean ddp?"),
        (["out=nowhere/check.json"], "the folder nowhere does not exist"),
    ],
)
def test_bad_input(words, said, capsys):
    assert main(["check", *words]) == 2
    assert said in capsys.readouterr().err


def test_processes_of_a_launcher_are_refused(monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert main(["check"]) == 2
    assert "run it once" in capsys.readouterr().err
