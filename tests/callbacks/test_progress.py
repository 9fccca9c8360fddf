"""The bar: what it says on a terminal and elsewhere, over many fits, and what it costs."""

import io
import logging
import time

import pytest
import torch
from lightning import Callback
from rich.console import Console
from toys import ToyGenerator, make_data, make_trainer

from callbacks.progress import StageProgress
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import Phase


def train(progress, joint=False, **settings):
    data, model = make_data(joint=joint), ToyGenerator()
    trainer = make_trainer(progress, enable_progress_bar=True, **settings)
    fit_stages(
        trainer, model, data, after_task=lambda task: trainer.test(model, datamodule=data, verbose=False)
    )
    return trainer


def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=150, color_system=None)


@pytest.fixture
def said(caplog):
    """Log lines of the bar, as a list that a function returns."""
    caplog.set_level(logging.INFO, logger="callbacks.progress")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "callbacks.progress"]


@pytest.fixture
def plain():
    return Console(file=io.StringIO(), force_terminal=False)


def test_a_terminal_shows_task_phase_epoch_terms_and_speed_of_every_fit():
    console = terminal()
    train(StageProgress(refresh_seconds=0, console=console))
    text = console.file.getvalue()
    for words in (
        "task 0 of 2 warmup  epoch 1/2",
        "task 0 of 2 main    epoch 4/4",
        "task 1 of 2 main    epoch 8/8",
        "task 1 of 2  tested in",
        "validating",
        "loss ",
        "images/s",
    ):
        assert words in text, words


def test_elsewhere_every_phase_and_scoring_is_one_log_line(said, plain):
    train(StageProgress(console=plain))
    lines = said()
    places = [f"task {task} of 2{phase}" for task in (0, 1) for phase in (" warmup", " main", "")]
    assert [line.split("  ")[0] for line in lines] == places
    assert all("images/s" in line and "loss" in line for line in lines if "tested" not in line)
    assert plain.file.getvalue() == ""


def test_a_phase_in_steps_says_how_many_of_them_are_done(said, plain):
    model = ToyGenerator()
    model.phases = lambda task: (Phase.single("main", model.step, (model,), steps=7),)
    fit_stages(make_trainer(StageProgress(console=plain), enable_progress_bar=True), model, make_data())
    assert said()[0].startswith("task 0 of 2 main  step 7/7")


def test_joint_training_names_all_tasks(said, plain):
    train(StageProgress(console=plain), joint=True)
    assert any(line.startswith("all tasks main") for line in said())


def test_a_disabled_bar_says_nothing(said):
    console = terminal()
    progress = StageProgress(refresh_seconds=0, console=console)
    progress.disable()
    train(progress)
    assert console.file.getvalue() == "" and not said()


def test_an_exception_gives_the_terminal_back():
    class Stop(Callback):
        def on_train_batch_end(self, *args):
            raise RuntimeError("stop")

    console = terminal()
    progress = StageProgress(refresh_seconds=0, console=console)
    data, model = make_data(), ToyGenerator()
    with pytest.raises(RuntimeError, match="stop"):
        fit_stages(make_trainer(progress, Stop(), enable_progress_bar=True), model, data)
    assert console.file.getvalue().rstrip().endswith("\x1b[?25h")  # the cursor is shown again


def test_a_batch_costs_microseconds():
    progress = StageProgress(refresh_seconds=60, console=terminal())
    trainer = train(progress)
    progress._open(10)
    batch = make_data().dataset("train", [0])[torch.arange(16)]
    progress._next = time.monotonic() + 60
    start = time.perf_counter()
    for index in range(2000):
        progress.on_train_batch_end(trainer, trainer.lightning_module, None, batch, index)
    per_batch = (time.perf_counter() - start) / 2000
    progress._close()
    assert per_batch < 3e-5
