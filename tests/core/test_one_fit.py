"""Lightning's callbacks in a run of many fits: early stopping and best checkpoints per stage; refusals."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import callbacks as given
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from toys import ToyGenerator, assert_same_state, make_data, make_trainer, walk

from lit_gen.core import one_fit
from lit_gen.core.one_fit import RunTimer
from lit_gen.core.stages import check_stages, fit_stages
from lit_gen.core.types import InputError, Phase
from lit_gen.tracking.metrics_file import MetricsFile

LOSSES = {0: (5, 4, 3, 3.5, 1, 1), 1: (9, 8, 7, 6, 5, 4)}  # by task and epoch


class Scripted(ToyGenerator):
    """Trains in one phase of six epochs; its losses of validation stand in a table."""

    def phases(self, task):
        return (Phase.single("main", self.step, (self,), 6),)

    def evaluate(self, batch):
        epoch = self.trainer.current_epoch - self.course.first_epoch
        return {"loss": torch.tensor(float(LOSSES[self.trainer.datamodule.current_task][min(epoch, 5)]))}


def run(folder, ckpt_path=None, **options):
    folder.mkdir()
    stop = EarlyStopping("val/loss", patience=1)
    best = ModelCheckpoint(folder / "best", "{epoch}", monitor="val/loss")
    return walk(folder, ckpt_path, Scripted(), callbacks=[stop, best], **options)


def test_stopping_early_and_the_best_checkpoint_begin_anew_at_every_stage_also_after_a_resume(tmp_path):
    whole, trainer, tested = run(tmp_path / "whole")
    # Task 0 stops at its first loss that is no better; task 1, whose losses are all worse, goes to its end.
    assert trainer.current_epoch == 4 + 6 and tested == [0, 1]
    assert {file.stem for file in (tmp_path / "whole/best").iterdir()} == {"epoch=2", "epoch=9"}
    copies = sorted((tmp_path / "whole").glob("copy-*.ckpt"))
    assert len(copies) == 4 + 6 + 2
    for copy in (copies[number] for number in (2, 3, 4, 6)):  # inside, stopped, tested, inside the next
        resumed, trainer, _ = run(tmp_path / copy.stem, copy)
        assert trainer.current_epoch == 10, copy.name
        assert_same_state(whole, resumed)


def test_a_checkpoint_from_inside_an_epoch_is_not_resumed(tmp_path):
    inside = ModelCheckpoint(tmp_path, "inside", every_n_train_steps=3)
    fit_stages(make_trainer(inside, max_epochs=1), Scripted(), make_data(num_tasks=1), max_phase_epochs=1)
    state = torch.load(tmp_path / "inside.ckpt", weights_only=True)
    torch.save(state | {"lit_gen": {"format": 2, "config": {}}}, tmp_path / "inside.ckpt")
    with pytest.raises(InputError, match=r"inside an epoch.*last\.ckpt"):
        walk(tmp_path, tmp_path / "inside.ckpt", Scripted())


@pytest.mark.parametrize(
    ("callback", "way_out"),
    [
        (given.BackboneFinetuning(), "phases"),
        (given.BasePredictionWriter(), "lit-gen sample"),
        (given.BatchSizeFinder(), "data.batch_size"),
        (given.LearningRateFinder(), "model.optimizer.lr"),
        (given.ModelPruning("l1_unstructured"), "leave it out"),
        (given.OnExceptionCheckpoint("x"), r"last\.ckpt"),
        (given.SpikeDetection(), "watch"),
        (given.StochasticWeightAveraging(0.1), "ema"),
        (given.EMAWeightAveraging(), "ema"),
        (given.Timer("00:00:00:01"), "trainer.max_time"),
        (given.GradientAccumulationScheduler({1: 2}), "trainer.accumulate_grad_batches"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_mean_anything_in_many_fits_is_refused_by_name(callback, way_out):
    with pytest.raises(InputError, match=f"callbacks: {type(callback).__name__} .*{way_out}"):
        check_stages(make_trainer(callback), ToyGenerator(), make_data())


def test_every_callback_of_lightning_is_decided_on():
    harmless = {
        *("Callback", "Checkpoint", "DeviceStatsMonitor", "LambdaCallback", "LearningRateMonitor"),
        *("ModelSummary", "ProgressBar", "RichModelSummary", "RichProgressBar"),
        *("TQDMProgressBar", "ThroughputMonitor", "GradientAccumulationScheduler"),
    }
    decided = (*one_fit._ANEW, *one_fit._REFUSED)
    assert harmless == {name for name in given.__all__ if not issubclass(getattr(given, name), decided)}


def test_those_that_are_let_through_change_nothing(tmp_path):
    settings = {"logger": [MetricsFile(tmp_path)], "log_every_n_steps": 2}
    watch = [
        given.LearningRateMonitor(),
        given.DeviceStatsMonitor(cpu_stats=False),
        given.ThroughputMonitor(batch_size_fn=lambda batch: batch.size),
        given.ModelSummary(),
    ]
    watched, alone = (
        walk(tmp_path / name, callbacks=some, **settings)[0] for name, some in (("a", watch), ("b", []))
    )
    assert_same_state(watched, alone)
    settings["logger"][0].flush()
    assert "lr-Adam" in (tmp_path / "metrics.csv").read_text()


def test_the_time_of_a_run_goes_on_from_stage_to_stage(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("lightning.pytorch.callbacks.timer.time.monotonic", lambda: clock[-1])
    timer = RunTimer("00:00:00:10")
    for now in (104.0, 109.0):
        timer.on_train_start(None, None)
        timer.on_train_end(None, None)
        clock.append(now)
    assert timer.time_elapsed() == 9.0 and timer.time_remaining() == 1.0


@pytest.mark.parametrize("callback", [EarlyStopping("val/los"), ModelCheckpoint(monitor="val/los")])
def test_a_monitor_that_is_not_logged_is_named_with_those_that_are(tmp_path, callback):
    with pytest.raises(InputError, match=r"monitor=val/los is not logged when it looks; there is .*val/loss"):
        walk(tmp_path, None, Scripted(), callbacks=[callback])
