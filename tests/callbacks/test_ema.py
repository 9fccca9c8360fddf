"""Averages of chosen modules: the closed form, everything else untouched, over phases, and exact resumes."""

import csv
import functools

import pytest
import torch
from lightning import Callback
from test_runs import TINY
from torch import nn
from toys import SPEC, CopyingCheckpoints, ToyGenerator, make_data, make_trainer

from callbacks.ema import AveragedWeights, use_average
from lit_gen.__main__ import main
from lit_gen.core.frozen import FrozenCopy
from lit_gen.core.module import LitGenerator
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import InputError, Phase, Turn


class TwoParts(LitGenerator):
    """A generator, a critic, a frozen copy, a counter; what a phase trains moves by 1 per step."""

    def __init__(self):
        super().__init__(spec=SPEC, optimizer=functools.partial(torch.optim.SGD, lr=1.0))
        self.generator = nn.Linear(1, 1, bias=False)
        self.critic = nn.Linear(1, 1, bias=False)
        for part in (self.generator, self.critic):
            nn.init.zeros_(part.weight)
        self.teacher = FrozenCopy(self.generator)
        self.register_buffer("tasks_seen", torch.tensor(16_777_217))  # float32 cannot hold it
        self.register_buffer("steps", torch.tensor(0))
        self.table = (self.train_on(self),)

    def train_on(self, *parts, epochs=1, **rest):
        return Phase.single("main", self.step, parts, epochs, **rest)

    def step(self, batch, progress):
        self.steps += 1
        return {"loss": -(self.generator.weight.sum() + self.critic.weight.sum())}

    def evaluate(self, batch):
        return {}

    def phases(self, task):
        return self.table

    @property
    def weights(self):
        return self.generator.weight.item(), self.critic.weight.item()


class Look(Callback):
    """Notes the weights at the start and the end of validation."""

    def __init__(self):
        self.at_start, self.at_end = [], []

    def on_validation_start(self, trainer, pl_module):
        self.at_start.append(pl_module.weights)

    def on_validation_epoch_end(self, trainer, pl_module):
        self.at_end.append(pl_module.weights)


def averaged(weights, decay=0.5):
    """The average that starts at the first weight; `decay` may be a function of the updates before."""
    average = None
    for age, weight in enumerate(weights):
        kept = decay(age) if callable(decay) else decay
        average = weight if average is None else kept * average + (1 - kept) * weight
    return pytest.approx(average, rel=1e-6)


def fitted(model, *callbacks, num_tasks=1, **rest):
    trainer = make_trainer(*callbacks)
    fit_stages(trainer, model, make_data(num_tasks=num_tasks), **rest)
    return trainer


def test_only_the_named_module_is_averaged_and_by_the_closed_form():
    model = TwoParts()
    fitted(model, AveragedWeights(("generator",), decay=0.5))
    steps = int(model.steps)
    assert steps > 3
    assert model.weights == (averaged(range(1, steps + 1)), steps)
    assert int(model.tasks_seen) == 16_777_217
    assert float(model.teacher.net.weight) == 0


def test_every_tensor_of_a_model_is_that_of_a_plain_loop():
    class Loop(Callback):
        def __init__(self):
            self.average = None

        @torch.no_grad()
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            found = {k: v.clone() for k, v in pl_module.state_dict().items() if v.is_floating_point()}
            now = self.average or found
            self.average = {k: torch.lerp(now[k], found[k], 0.1) for k in found}

    class OnePhase(ToyGenerator):
        def phases(self, task):
            return (Phase.single("main", self.step, (self,), 2),)

    model, loop = OnePhase(), Loop()
    fitted(model, loop, AveragedWeights(decay=0.9))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in loop.average.items())


@pytest.mark.parametrize("first", [True, False], ids=["looks first", "looks last"])
def test_validation_sees_the_average_from_its_start_and_training_goes_on_from_the_weights(first):
    model, look, averaging = TwoParts(), Look(), AveragedWeights(("generator",), decay=0.5)
    model.table = (model.train_on(model, epochs=2),)
    fitted(model, *([look, averaging] if first else [averaging, look]))
    steps = int(model.steps) // 2
    seen = [(averaged(range(1, n + 1)), n) for n in (steps, 2 * steps)]
    assert look.at_end == seen
    assert first or look.at_start == seen


def test_before_its_first_update_the_average_is_not_used():
    model, look = TwoParts(), Look()
    fitted(model, look, AveragedWeights(("generator",), update_starting_at_step=10_000))
    assert [model.weights] == look.at_end == [(int(model.steps), int(model.steps))]


@pytest.mark.parametrize(
    "warmup, least", [(True, lambda t: (1 + t) / (10 + t)), (2, lambda t: (1 - 1 / (t + 1)) ** 3)]
)
def test_the_warm_up_of_the_decay_is_the_formula(warmup, least):
    model = TwoParts()
    fitted(model, AveragedWeights(("generator",), decay=0.4, warmup=warmup))
    expected = averaged(range(1, int(model.steps) + 1), lambda age: min(0.4, least(age)))
    assert model.weights[0] == expected


def test_the_average_goes_on_from_phase_to_phase_as_long_as_its_part_is_trained():
    at_border = []
    model = TwoParts()
    model.table = (
        model.train_on(model, end=lambda task: at_border.append(model.weights)),
        model.train_on(model.generator),
    )
    fitted(model, AveragedWeights(decay=0.5))
    steps = int(model.steps) // 2
    after_first = averaged(range(1, steps + 1))
    assert at_border == [(after_first, after_first)]
    assert model.weights == (averaged(range(1, 2 * steps + 1)), after_first)


def test_a_new_task_begins_from_the_average():
    model, at_begin = TwoParts(), []
    model.table = (model.train_on(model, begin=lambda task: at_begin.append(model.weights[0])),)
    fitted(model, AveragedWeights(decay=0.5), num_tasks=2)
    steps = int(model.steps) // 2
    first = averaged(range(1, steps + 1)).expected
    assert at_begin == [0, pytest.approx(first, rel=1e-6)], "what a replay teacher is copied from"
    assert float(model.generator.weight) == averaged([first + n for n in range(1, steps + 1)])


def test_an_average_counts_the_steps_of_its_own_optimizer():
    class Game(TwoParts):
        def phases(self, task):
            critic = Turn("critic", self.step, (self.critic,))
            return (Phase("game", (critic, Turn("generator", self.step, (self.generator,), every=5)), 2),)

    model = Game()
    fitted(model, averaging := AveragedWeights(("generator",), decay=0.5))
    batches = int(model.critic.weight)
    steps = len(range(0, batches, 5))
    assert batches > steps > 2
    assert averaging._steps == steps
    assert float(model.generator.weight) == averaged(range(1, steps + 1))


def test_a_checkpoint_has_the_averages_and_the_weights_beside_them(tmp_path):
    model = TwoParts()
    model.table = (model.train_on(model, end=lambda task: model.generator.weight.data.mul_(2)),)
    trainer = fitted(
        model, AveragedWeights(("generator",), decay=[0.5, 0.9]), CopyingCheckpoints(tmp_path, 0.0)
    )
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    steps = int(model.steps)
    within, after = (
        torch.load(tmp_path / name, weights_only=True) for name in ("copy-00.ckpt", "after.ckpt")
    )
    assert float(within["state_dict"]["generator.weight"]) == averaged(range(1, steps + 1))
    assert float(within["state_dict"]["critic.weight"]) == steps
    assert int(within["state_dict"]["steps"]) == steps
    kept = within["callbacks"]["AveragedWeights"]
    assert list(kept["beside"]) == ["generator.weight"], "nothing but what is averaged, no frozen copy"
    assert float(kept["beside"]["generator.weight"]) == steps
    other = averaged(range(1, steps + 1), 0.9)
    assert float(kept["others"][0.9]["generator.weight"]) == other
    doubled = averaged([2 * n for n in range(1, steps + 1)])
    assert float(after["state_dict"]["generator.weight"]) == doubled

    use_average(model, after["callbacks"], 0.5)
    assert float(model.generator.weight) == doubled
    use_average(model, after["callbacks"], 0.9)
    assert model.weights == (other, steps)
    with pytest.raises(InputError, match=r"use=0.3.*keeps 0.5, 0.9"):
        use_average(model, after["callbacks"], 0.3)
    with pytest.raises(InputError, match=r"use=0.5.*keeps none"):
        use_average(model, {}, 0.5)


def test_a_resume_is_exact_inside_a_phase_at_its_end_and_between_tasks(tmp_path):
    def run(folder, ckpt=None):
        model, saver = ToyGenerator(epochs=2), CopyingCheckpoints(folder, 0.0)
        averaging = AveragedWeights(decay=[0.9, 0.99], warmup=True)
        trainer, data = make_trainer(averaging, saver), make_data()

        def after_task(task):
            trainer.test(model, datamodule=data, verbose=False)
            saver.save(trainer, task)

        fit_stages(trainer, model, data, ckpt, after_task)
        return model.state_dict(), averaging

    whole, kept = run(tmp_path / "whole")
    written = sorted((tmp_path / "whole").glob("copy-*.ckpt"))
    assert len(written) == 2 * (2 * 2 + 1)
    for number, file in enumerate(written[:5]):  # those of the first task
        resumed, again = run(tmp_path / str(number), file)
        for name, value in whole.items():
            assert torch.equal(value, resumed[name]), f"{name} after {file.name}"
        for ours, theirs in ((kept._beside, again._beside), (kept._others[0.99], again._others[0.99])):
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in ours), file.name
        assert (kept._ages, kept._steps) == (again._ages, again._steps)


def test_an_unknown_module_is_named_with_those_there_are():
    with pytest.raises(InputError, match=r"\['generater'\].*generator, critic, teacher"):
        fitted(TwoParts(), AveragedWeights(("generater",)))


@pytest.mark.parametrize(
    "settings",
    [{"decay": 1.5}, {"decay": [0.9, -0.1]}, {"decay": []}, {"warmup": -1.0}, {"use": 0.5}],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        AveragedWeights(**settings)


def test_losses_and_scores_are_the_averages_in_whatever_order_callbacks_are_named(tmp_path):
    found = []
    for order in ("[default,ema]", "[ema,default]"):
        words = [word for word in TINY if not word.startswith(("stream", "model"))]
        words += [
            "model=vae",
            "model.latent_size=4",
            "trainer.max_epochs=2",
            "trainer.check_val_every_n_epoch=1",
        ]
        words += [f"callbacks={order}", "callbacks.ema.decay=0.9", "judges.quality.every_n_epochs=1"]
        folder = tmp_path / order
        assert main(["train", *words, f"output_dir={folder}"]) == 0
        lines = csv.DictReader((folder / "metrics.csv").open())
        found.append({(line["step"], line["metric"]): line["value"] for line in lines})
    assert found[0] == found[1]
    last = {name: value for (_, name), value in found[0].items()}  # at the end of the last epoch, and tested
    for name in ("loss", "fid/lenet_digits"):
        assert float(last[f"val/{name}"]) == pytest.approx(float(last[f"test/{name}"]), rel=1e-6)
