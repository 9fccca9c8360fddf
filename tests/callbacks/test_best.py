"""The best checkpoint of every task: which epoch it is of, after a resume too, and that it is scored."""

from __future__ import annotations

import json

import pytest
import torch
from toys import ToyGenerator, walk

import lit_gen
from callbacks.best import BestCheckpoint
from lit_gen.__main__ import main
from lit_gen.core.types import Phase

LOSSES = {"main": (5.0, 3.0, float("nan"), 4.0, 3.0), "after": (9.0, 8.0, 9.0, 8.5, 9.0)}


class Scripted(ToyGenerator):
    """Two phases of five epochs; its losses of validation stand in a table."""

    def phases(self, task):
        return tuple(Phase.single(name, self.step, (self,), 5) for name in LOSSES)

    def evaluate(self, batch):
        epoch = self.trainer.current_epoch - self.course.first_epoch
        return {"loss": torch.tensor(LOSSES[self.phase.name][min(epoch, 4)])}


def best_of(folder, task: int = 0) -> tuple[int, float]:
    """Epoch and value of a kept checkpoint."""
    state = torch.load(folder / f"best-{task}.ckpt", weights_only=True)
    return state["epoch"], state["callbacks"]["BestCheckpoint"]["best"]


@pytest.mark.parametrize(("mode", "epoch", "value"), [("min", 6, 8.0), ("max", 5, -9.0)])
def test_it_is_the_first_epoch_of_the_best_value_of_the_last_phase(tmp_path, mode, epoch, value):
    walk(tmp_path, None, Scripted(), callbacks=[BestCheckpoint("val/loss", mode)])
    for task in (0, 1):
        assert best_of(tmp_path, task) == (epoch + 10 * task, value)


def test_a_resumed_run_compares_with_what_it_had_seen(tmp_path):
    (tmp_path / "whole").mkdir()
    walk(tmp_path / "whole", None, Scripted(), callbacks=[BestCheckpoint()])
    copies = sorted((tmp_path / "whole").glob("copy-*.ckpt"))
    for number, copy in enumerate(copies[:13:3]):
        folder = tmp_path / f"resumed-{number}"
        folder.mkdir()
        walk(folder, copy, Scripted(), callbacks=[BestCheckpoint()])
        assert best_of(folder, 1) == (16, 8.0)
        kept = (folder / "best-0.ckpt").is_file()
        place = torch.load(copy, weights_only=True)
        assert kept == (place["callbacks"]["BestCheckpoint"]["best"] != 8.0), "what was best is there already"


def test_a_value_that_is_never_logged_is_said(tmp_path, caplog):
    walk(tmp_path, None, Scripted(), callbacks=[BestCheckpoint("val/los")])
    assert "val/los was not logged; there was" in caplog.text and "val/loss" in caplog.text


TINY = (
    *("model=vae", "data=digits", "logger=csv", "trainer=cpu", "cpu_threads=1", "trainer.max_epochs=4"),
    *("judges=quality", "judges.quality.num_samples=100", "judges.quality.every_n_epochs=2"),
    "judges.quality.metrics=[{_target_: lit_gen.metrics.frechet.FrechetDistance, _partial_: true}]",
)


def test_the_best_by_fid_is_scored_by_its_name_and_early_stopping_ends_the_phase(tmp_path, capsys):
    folder, out = tmp_path / "run", tmp_path / "best.json"
    words = ["callbacks=[best_fid,early_stopping_fid]", "trainer.check_val_every_n_epoch=2"]
    words += ["callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=1e9"]
    words += ["trainer.max_epochs=10", f"output_dir={folder}"]
    assert main(["train", *TINY, *words]) == 0
    rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    found = [float(row[3]) for row in rows if row[2] == "val/fid/lenet_digits"]
    assert len(found) == 2, "the second validation was not better by enough"
    state = torch.load(folder / "checkpoints" / "best-0.ckpt", weights_only=True)
    best = min(found)
    assert state["epoch"] == 2 * found.index(best) + 1
    assert state["callbacks"]["BestCheckpoint"]["best"] == pytest.approx(best, rel=1e-6)
    assert main(["evaluate", f"ckpt={folder}@best", f"out={out}"]) == 0
    assert {row["metric"]: row["value"] for row in json.loads(out.read_text())}["fid"] > 0
    loaded = lit_gen.load(f"{folder}@best").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state["state_dict"].items())
    capsys.readouterr()
    (folder / "checkpoints" / "best-0.ckpt").unlink()
    assert main(["evaluate", f"ckpt={folder}@best"]) == 2
    assert "callbacks=[default,best]" in capsys.readouterr().err
