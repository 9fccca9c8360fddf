"""Lengths of phases in steps and images, also after a resume, and what several processes sum up."""

from __future__ import annotations

import json

import pytest
import torch
from processes import together
from stage_toys import Logistic, fisher_by_hand, main
from toys import ToyGenerator, assert_same_state, make_data, make_trainer, walk

from lit_gen.core.schedules import LinearDecay
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import InputError, Phase, Turn


class Lengths(ToyGenerator):
    """Phases of every kind of length over tasks of 80 images, which are 5 batches."""

    def __init__(self):
        super().__init__()
        self.schedule = LinearDecay(0.0)
        self.seen = []  # phase, task, progress, learning rate of every batch

    def phases(self, task):
        def loss(name):
            def inner(batch, progress):
                rate = self.trainer.optimizers[0].param_groups[0]["lr"]
                self.seen.append((name, task.index, progress, rate))
                return self.step(batch, progress)

            return inner

        both = (self.first, self.second)
        turns = (Turn("a", loss("turns"), (self.first,)), Turn("b", self.step, (self.second,), every=2))
        return (
            Phase.single("steps", loss("steps"), both, steps=7),
            Phase.single("short", loss("short"), both, steps=3, chunk=16),
            Phase.single("images", loss("images"), both, images=100),
            Phase("turns", turns, steps=6),
            Phase.single("epoch", loss("epoch"), both, 1),
        )


def test_phases_end_at_their_batch_and_a_resume_from_any_checkpoint_changes_nothing(tmp_path):
    whole, trainer, _ = walk(tmp_path / "whole", model=Lengths())
    batches = {"steps": 7, "short": 3, "images": 7, "turns": 6, "epoch": 5}
    expected = [(name, task) for task in (0, 1) for name, count in batches.items() for _ in range(count)]
    assert [(name, task) for name, task, *_ in whole.seen] == expected
    progress = [done for _, task, done, _ in whole.seen if task == 0]
    limits = [(7, 1), (3, 1), (100, 16), (6, 1), (5, 1)]
    by_hand = [
        i * size / limit for (limit, size), n in zip(limits, batches.values(), strict=True) for i in range(n)
    ]
    assert progress == pytest.approx(by_hand)
    rates = [rate for _, task, _, rate in whole.seen if task == 0]
    assert rates == pytest.approx([1e-2 * (1 - done) for done in progress])
    assert trainer.current_epoch == 2 * (2 + 1 + 2 + 2 + 1)
    copies = sorted((tmp_path / "whole").glob("copy-*.ckpt"))
    assert len(copies) == 16 + 2
    for number, copy in enumerate(copies):
        resumed, *_ = walk(tmp_path / f"resumed-{number}", copy, Lengths())
        assert_same_state(resumed, whole)
        assert resumed.seen == whole.seen[len(whole.seen) - len(resumed.seen) :], copy.name


class TwoPhases(ToyGenerator):
    """Two phases that do not say how long they last; takes note of their batches."""

    def phases(self, task):
        def loss(batch, progress):
            self.calls.append(self.phase.name)
            return self.step(batch, progress)

        return tuple(Phase.single(name, loss, (self.first, self.second)) for name in ("a", "b"))


@pytest.mark.parametrize(
    ("settings", "longest", "batches"),
    [
        ({"max_steps": 8, "max_epochs": -1}, None, 8),
        ({"max_steps": 8, "max_epochs": 1}, None, 5),
        ({"max_steps": 8, "max_epochs": -1}, 1, 5),
        ({"max_steps": 4, "max_epochs": -1, "accumulate_grad_batches": 2}, None, 8),  # 2 + 2 + 2, 2
    ],
)
def test_the_trainers_steps_are_the_length_of_phases_that_have_none(settings, longest, batches):
    model = TwoPhases()
    fit_stages(make_trainer(**settings), model, make_data(), max_phase_epochs=longest)
    assert model.calls == (["a"] * batches + ["b"] * batches) * 2


def test_a_phase_has_one_length():
    with pytest.raises(ValueError, match="phase main: takes one of"):
        Phase("main", (), epochs=1, steps=5)
    with pytest.raises(InputError, match="min_epochs"):
        fit_stages(make_trainer(min_epochs=3), Lengths(), make_data())


def test_a_pass_with_gradients_gives_the_fisher_information():
    model, data = Logistic(), make_data(num_tasks=1)
    fit_stages(make_trainer(), model, data)
    assert not any(parameter.requires_grad for parameter in model.frozen.parameters())
    torch.testing.assert_close(model.fisher, fisher_by_hand(model, data))


@pytest.mark.slow
def test_fisher_curves_and_means_are_those_of_all_images(tmp_path):
    """Validation is on 7 images, which several processes do not share evenly."""
    found = {}
    for count in (1, 2, 3):
        out = tmp_path / f"{count}.json"
        if count == 1:
            main(str(out))
        else:
            together(count, main, str(out))
        found[count] = json.loads(out.read_text())
    for count, values in found.items():
        assert values["world"] == count
        for name in ("fisher", "val/loss", "test/loss"):
            assert values[name] == pytest.approx(found[1][name], rel=1e-6), (count, name)
        # Means over the images of all processes, as the losses themselves noted them.
        assert values["curves"] == pytest.approx(values["noted"], rel=1e-6)
        assert values["train/loss"] == pytest.approx(values["last_noted"], rel=1e-6)
