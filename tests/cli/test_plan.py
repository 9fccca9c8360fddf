"""What a plan tells is what a run takes."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from test_runs import TINY

from lit_gen.__main__ import main
from lit_gen.cli.plan import Length, Line, _seconds, _windows
from lit_gen.cli.trial import Epoch, StandIn, TriedPhase
from lit_gen.core.progress import Course
from lit_gen.tracking.names import shown_name

SLOW = [*TINY, "trainer.log_every_n_steps=4", "trainer.check_val_every_n_epoch=2"]
SLOW += ["judges.quality.every_n_epochs=2", "callbacks.grid.every_n_epochs=2", "judges.quality.floor=true"]


def test_steps_images_and_logged_values_are_those_of_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", *SLOW, "seconds=0.01", "devices=1,3", "out=plan.json"]) == 0
    said, plan = capsys.readouterr().out, json.loads((tmp_path / "plan.json").read_text())
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]
    assert main(["train", *SLOW, "output_dir=run"]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    metrics = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    trained = [line for line in plan["lines"] if line["steps"]]
    assert [line["images"] for line in trained] == [phase["images"] for phase in summary["phases"]]
    assert [line["phase"] for line in trained] == [phase["phase"] for phase in summary["phases"]]
    assert plan["steps"] == summary["batches"]
    assert plan["points"] == sum(shown_name(row["metric"], None) is not None for row in metrics)
    size = (tmp_path / "run" / "checkpoints" / "last.ckpt").stat().st_size
    assert plan["checkpoint_bytes"] == pytest.approx(size, rel=0.1)
    assert "devices   1: " in said and ", 3: " in said


def whole_phase(phase: TriedPhase, accumulated: int) -> tuple[int, int, int, int]:
    """Epochs, batches, steps, images, batch by batch, as a run counts them."""
    course, batches, images, epochs = Course(**vars(phase.course)), 0, 0, 0
    while not course.is_over_at(epochs):
        epochs += 1
        for number, count in enumerate(phase.images, 1):
            course.count(count, number % accumulated == 0 or number == phase.batches)
            batches, images = batches + 1, images + count
            if course.is_over:
                break
    return epochs, batches, course.steps_done, images


@pytest.mark.parametrize("accumulated", [1, 3])
@pytest.mark.parametrize(
    "limits",
    [{"epochs": 4}, {"steps": 6}, {"steps": 7}, {"images": 100}, {"images": 93}, {"epochs": 2, "steps": 99}],
)
def test_a_phase_is_as_long_as_its_course(limits, accumulated):
    images = [16, 16, 16, 16, 13]
    steps = -(-len(images) // accumulated)
    phase = TriedPhase(0, "all", "main", Course(**limits), batches=5, images=images, steps=steps)
    length = Length.of(phase, accumulated)
    assert length[:4] == whole_phase(phase, accumulated)
    assert sum(length.parts()) == length.batches
    ends = {7 + sum(length.parts()[: n + 1]) for n in range(length.epochs)}
    logged = {n for n in range(8, 8 + length.batches) if n % 4 == 0}
    assert _windows(length, 7, 4) == len(logged | ends)


def test_time_goes_on_as_it_was_seen_after_the_first_epoch():
    phase = TriedPhase(0, "all", "main", Course(epochs=100), before=3.0, batches=5, images=[8] * 5, steps=5)
    phase.epochs = [Epoch(5, 2.0, 1.0, 0.5), Epoch(5, 0.2, 0.4, 0.3), Epoch(3, 0.2, 0.2, 0.3)]
    alone, shared = _seconds(phase, Length.of(phase, 1))
    assert alone == pytest.approx(3.0 + 1.8) and shared == pytest.approx(100 * (0.2 + 0.4 + 0.3))
    assert Line("", "main", 1, 1, 1, 1, 4.0, 60.0).seconds(3) == 24.0


def test_what_stands_in_owes_the_time_of_what_it_does_not_do():
    asked = []

    def draw(count):
        asked.append(count)
        return torch.arange(count)

    stand_in = StandIn(draw, 0.0, lambda: None)
    assert stand_in(4).tolist() == [0, 1, 2, 3]
    stand_in.spent = 2.0
    assert stand_in(6).tolist() == [0, 1, 2, 3, 0, 1]
    assert asked == [4] and stand_in.owed == 3.0


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("resume=runs/a", "resume=runs/a: lit-gen plan looks at a whole run"),
        ("trainer.fast_dev_run=true", "such a run takes a moment"),
        ("devices=0", "devices=0: "),
        ("seconds=0", "seconds=0: "),
        ("out=nowhere/plan.json", "the folder nowhere does not exist"),
        ("model.latent_sise=3", "model.latent_size"),
    ],
)
def test_bad_input(word, said, capsys):
    assert main(["plan", word]) == 2
    assert said in capsys.readouterr().err
