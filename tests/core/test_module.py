"""Slots for learning rules, which turns stepped, and a compiled model, in phases of both kinds of steps."""

from __future__ import annotations

import functools
import shutil

import pytest
import torch
from lightning import Callback
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from toys import SPEC, ToyGenerator, make_data, make_trainer

from lit_gen.core.compiled import compile_networks
from lit_gen.core.module import LitModel
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import Phase, Turn

RATE = 1e-2


class Slots(LitModel):
    """A linear loss that A-GEM's projection holds back, and the path integral of Synaptic Intelligence."""

    def __init__(self, chunk=None, projects=True):
        super().__init__(spec=SPEC, optimizer=functools.partial(torch.optim.SGD, lr=RATE))
        self.net, self.chunk, self.projects = nn.Linear(64, 1, bias=False), chunk, projects
        self.reference = torch.linspace(-1, 1, 64)
        self.before = self.net.weight.detach().clone()
        self.path, self.angles, self.steps = torch.zeros(64), [], []

    def phases(self, task):
        after_backward = self.project if self.projects else None
        turn = Turn("learn", self.step, (self.net,), None, 1, after_backward, self.follow)
        return (Phase("train", (turn,), steps=6, chunk=self.chunk),)

    def step(self, batch, progress):
        return {"loss": self.net(batch.image.flatten(1) - 10 * self.reference).mean()}

    def project(self):
        (reference,) = torch.autograd.grad(self.net(self.reference).sum(), [self.net.weight])
        gradient = self.net.weight.grad
        inner = (gradient * reference).sum()
        if inner < 0:
            gradient -= inner / reference.square().sum() * reference

    def follow(self):
        moved, gradient = self.net.weight - self.before, self.net.weight.grad
        torch.testing.assert_close(moved, -RATE * gradient, atol=1e-7, rtol=1e-3)
        self.before = self.net.weight.clone()
        self.path -= (gradient * moved)[0]
        self.angles.append(float(gradient[0] @ self.reference / gradient.norm() / self.reference.norm()))


@pytest.mark.parametrize("chunk", [None, 8])
@pytest.mark.parametrize(("clip", "scaled"), [(None, False), (0.5, False), (0.5, True)])
def test_gradients_are_projected_before_they_are_clipped_and_steps_are_followed(chunk, clip, scaled):
    model = Slots(chunk)
    # As on a GPU under 16-mixed: gradients are scaled, and must not be when they are looked at or clipped.
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    plugins = [MixedPrecision("16-mixed", "cpu", scaler)] if scaled else None
    fit_stages(make_trainer(gradient_clip_val=clip, plugins=plugins), model, make_data(num_tasks=1))
    assert len(model.angles) == 6 * (2 if chunk else 1)
    assert model.angles == pytest.approx([0.0] * len(model.angles), abs=1e-3 if scaled else 1e-4)
    assert (model.path >= 0).all() and model.path.sum() > 0
    if clip:
        steps = model.path.sum() / RATE / len(model.angles)  # the mean of squared norms
        assert steps <= clip**2 * 1.001
    free = Slots(chunk, projects=False)
    fit_stages(make_trainer(gradient_clip_val=clip), free, make_data(num_tasks=1))
    assert max(free.angles) < -0.5


@pytest.mark.parametrize(("accumulate", "by_hand"), [(1, False), (2, False), (1, True)])
def test_listeners_are_told_which_turns_stepped(accumulate, by_hand):
    class Two(ToyGenerator):
        def phases(self, task):
            if not by_hand:
                return (Phase.single("a", self.step, (self,), 1),)
            turns = (Turn("a", self.step, (self.first,)), Turn("b", self.step, (self.second,), every=2))
            return (Phase("two", turns, 1, chunk=8),)

    class Look(Callback):
        seen = []

        def on_train_batch_start(self, *_):
            self.seen.append("")

        def step(self, module, turn):
            self.seen[-1] += turn

    look, model = Look(), Two()
    look.seen = []
    model.step_listeners.append(look.step)
    fit_stages(make_trainer(look, accumulate_grad_batches=accumulate), model, make_data(num_tasks=2))
    expected = ["abab", "aa", "abab", "aa", "abab"] if by_hand else ["a", "a", "a", "a", "a"]
    if accumulate == 2:
        expected = ["", "a", "", "a", "", "a"]  # the last image alone is in both
    assert look.seen == expected * 2


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler")
def test_a_compiled_model_trains_as_the_eager_one_and_has_its_state():
    eager, compiled = ToyGenerator(epochs=1), ToyGenerator(epochs=1)
    compile_networks(compiled, "default")
    for model in (eager, compiled):
        # Adam would enlarge what is rounding alone, the gradient of a bias before batch norm.
        model.make_optimizer = functools.partial(torch.optim.SGD, lr=1e-3)
        fit_stages(make_trainer(), model, make_data(num_tasks=1))
    state = compiled.state_dict()
    assert list(state) == list(eager.state_dict())
    for name, value in eager.state_dict().items():
        torch.testing.assert_close(state[name], value, atol=1e-5, rtol=1e-5)


def test_plain_attributes_are_set_fast_and_networks_as_by_torch():
    model = ToyGenerator()
    model.latest_terms = {"loss": torch.ones(())}
    assert model.__dict__["latest_terms"]["loss"] == 1
    model.note = None
    model.note = torch.nn.Linear(2, 2)
    assert "note.weight" in model.state_dict() and "note" not in model.__dict__
    model.first = None  # a network that was there
    assert model.first is None and not any(name.startswith("first") for name in model.state_dict())
    with pytest.raises(TypeError, match="cannot assign"):
        model.tasks_closed = 3  # a buffer
