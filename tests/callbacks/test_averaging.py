"""Averages of chosen modules: the closed form, everything else untouched, and exact over resumes."""

import functools

import pytest
import torch
from lightning import Callback
from torch import nn
from toys import SPEC, ToyGenerator, make_data, make_trainer

from callbacks.averaging import ModuleAveraging
from callbacks.task_switch import fit_stages
from lit_gen.core.frozen import FrozenCopy
from lit_gen.core.module import LitGenerator
from lit_gen.core.types import InputError, Phase


class TwoParts(LitGenerator):
    """A generator, a critic, a frozen copy, a counter; all parameters move by a known step."""

    def __init__(self):
        super().__init__(spec=SPEC, optimizer=functools.partial(torch.optim.SGD, lr=1.0))
        self.generator = nn.Linear(1, 1, bias=False)
        self.critic = nn.Linear(1, 1, bias=False)
        for part in (self.generator, self.critic):
            nn.init.zeros_(part.weight)
        self.teacher = FrozenCopy(self.generator)
        self.register_buffer("tasks_seen", torch.tensor(16_777_217))  # float32 cannot hold it
        self.register_buffer("steps", torch.tensor(0))

    def step(self, batch, progress):
        self.steps += 1
        return {"loss": -(self.generator.weight.sum() + self.critic.weight.sum())}  # +1 per step

    def evaluate(self, batch):
        return {}

    def phases(self, task):
        return (
            Phase.single("main", self.step, (self,), 1, end=lambda t: self.generator.weight.data.mul_(2)),
        )


def closed_form(steps, decay):
    """The average of weights 1, 2, ..., steps that starts at the first."""
    average = 1.0
    for weight in range(2, steps + 1):
        average = decay * average + (1 - decay) * weight
    return average


def test_only_the_named_module_is_averaged_and_by_the_closed_form():
    model, data = TwoParts(), make_data(num_tasks=1)
    trainer = make_trainer(ModuleAveraging(("generator",), decay=0.5))
    model.phases = lambda task: (Phase.single("main", model.step, (model,), 1),)
    fit_stages(trainer, model, data)
    steps = int(model.steps)
    assert steps > 3
    assert float(model.generator.weight) == pytest.approx(closed_form(steps, 0.5), rel=1e-6)
    assert float(model.critic.weight) == steps
    assert int(model.tasks_seen) == 16_777_217
    assert float(model.teacher.net.weight) == 0


class Look(Callback):
    def __init__(self):
        self.seen = []

    def on_validation_epoch_end(self, trainer, pl_module):
        self.seen.append((float(pl_module.generator.weight), float(pl_module.critic.weight)))


def test_validation_sees_the_average_and_training_goes_on_from_the_weights():
    model, data, look = TwoParts(), make_data(num_tasks=1), Look()
    model.phases = lambda task: (Phase.single("main", model.step, (model,), 2),)
    fit_stages(make_trainer(look, ModuleAveraging(("generator",), decay=0.5)), model, data)
    steps = int(model.steps) // 2
    assert look.seen == [(pytest.approx(closed_form(n, 0.5), rel=1e-6), n) for n in (steps, 2 * steps)]


def test_before_its_first_update_the_average_is_not_used():
    model, data, look = TwoParts(), make_data(num_tasks=1), Look()
    model.phases = lambda task: (Phase.single("main", model.step, (model,), 1),)
    averaging = ModuleAveraging(("generator",), update_starting_at_step=10_000)
    fit_stages(make_trainer(look, averaging), model, data)
    assert look.seen == [(int(model.steps), int(model.steps))]
    assert float(model.generator.weight) == int(model.steps)


def test_a_checkpoint_has_the_average_in_training_and_what_the_phase_made_of_it_afterwards(tmp_path):
    class Save(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.save_checkpoint(tmp_path / "within.ckpt")

    model, data = TwoParts(), make_data(num_tasks=1)
    trainer = make_trainer(ModuleAveraging(("generator",), decay=0.5), Save())
    fit_stages(trainer, model, data)
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    steps = int(model.steps)
    average = closed_form(steps, 0.5)
    within = torch.load(tmp_path / "within.ckpt", weights_only=True)
    assert float(within["state_dict"]["generator.weight"]) == pytest.approx(average, rel=1e-6)
    assert float(within["state_dict"]["critic.weight"]) == steps
    assert int(within["state_dict"]["steps"]) == steps
    assert float(within["current_model_state"]["generator.weight"]) == steps
    after = torch.load(tmp_path / "after.ckpt", weights_only=True)
    assert float(after["state_dict"]["generator.weight"]) == pytest.approx(2 * average, rel=1e-6)


def test_a_resume_inside_a_phase_is_exact(tmp_path):
    def run(ckpt=None, save_at=None):
        class Save(Callback):
            def on_train_epoch_end(self, trainer, pl_module):
                if trainer.current_epoch == save_at:
                    trainer.save_checkpoint(tmp_path / "mid.ckpt")

            def on_save_checkpoint(self, trainer, pl_module, checkpoint):
                checkpoint["lit_gen"] = {"format": 1, "config": {}}

        model = ToyGenerator(epochs=3)
        fit_stages(make_trainer(Save(), ModuleAveraging(decay=0.9)), model, make_data(), ckpt_path=ckpt)
        return model.state_dict()

    whole = run(save_at=4)
    resumed = run(ckpt=tmp_path / "mid.ckpt")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_an_unknown_module_is_named_with_those_there_are():
    with pytest.raises(InputError, match=r"\['generater'\].*generator, critic, teacher"):
        fit_stages(make_trainer(ModuleAveraging(("generater",))), TwoParts(), make_data(num_tasks=1))


@pytest.mark.parametrize("settings", [{"decay": 1.5}, {"decay": -0.1}, {"update_every_n_steps": 0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        ModuleAveraging(**settings)
