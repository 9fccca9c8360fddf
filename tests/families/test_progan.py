"""ProGAN: its phases and what they move, images of every size, losses, resumes while a level fades in."""

from __future__ import annotations

import functools

import pytest
import torch
from lightning import Callback
from toys import SPEC, CopyingCheckpoints, make_data, make_trainer

from callbacks.ema import AveragedWeights
from lit_gen.core.images import to_float
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import InputError, Task
from lit_gen.families.progan import Growth, ProGAN
from lit_gen.losses.adversarial import Wasserstein, gradient_penalty
from lit_gen.nets.progan import GrowingCritic, GrowingGenerator

TASK = Task(0, "0", (10, 10, 10, 10), 0, 40)
NAMES = ["stable_2", "fade_4", "stable_4", "fade_8", "stable_8"]


def make(condition_size=0, seed=0, first_size=2, **options) -> ProGAN:
    """Levels of 2, 4 and 8 pixels."""
    torch.manual_seed(seed)
    return ProGAN(
        **{
            "generator": GrowingGenerator(1, 8, 5, first_size, 4, 8, condition_size),
            "critic": GrowingCritic(1, 8, first_size, 4, 8, 4, condition_size),
            "noise_size": 5,
            "first_size": first_size,
            "stable_epochs": 1,
            "fade_epochs": 1,
            "loss": Wasserstein(),
            "condition": "label" if condition_size else "none",
            "condition_size": condition_size,
            "spec": SPEC,
            "optimizer": functools.partial(torch.optim.Adam, lr=1e-3, betas=(0.0, 0.99)),
        }
        | options,
    )


def batch():
    images = make_data(num_tasks=1).dataset("train", [0]).__getitems__(list(range(12)))
    return images._replace(image=to_float(images.image))


def moved(before, after) -> set[str]:
    """Names of modules some of whose values differ, to the second level: "generator.blocks.0"."""
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    return {".".join(name.split(".")[: 3 if "blocks" in name or "image" in name else 2]) for name in changed}


def parts(level, fades) -> set[str]:
    """What a phase may move."""
    shown = [level - 1, level] if fades else [level]
    generator = ["stem", *(f"blocks.{n}" for n in range(level)), *(f"to_image.{n}" for n in shown)]
    critic = [
        "last_block",
        "head",
        *(f"blocks.{n}" for n in range(level)),
        *(f"from_image.{n}" for n in shown),
    ]
    return {f"generator.{name}" for name in generator} | {f"critic.{name}" for name in critic}


class Watch(Callback):
    """What moved in each fit, and what the model says of itself after each batch."""

    def __init__(self):
        self.moved, self.growth, self.samples = [], [], []

    def on_train_start(self, trainer, pl_module):
        self.before = {name: value.clone() for name, value in pl_module.state_dict().items()}
        self.growth.append([])

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.growth[-1].append(pl_module.growth())

    def on_train_end(self, trainer, pl_module):
        self.moved.append(moved(self.before, pl_module.state_dict()) - {"fade", "level"})
        with torch.random.fork_rng():
            self.samples.append(tuple(pl_module.sample(3).shape))


def test_two_phases_per_size_but_one_for_the_first():
    phases = make(stable_epochs=3, fade_epochs=2).phases(TASK)
    assert [phase.name for phase in phases] == NAMES
    assert [phase.epochs for phase in phases] == [3, 2, 3, 2, 3]
    assert all([turn.name for turn in phase.turns] == ["critic", "generator"] for phase in phases)
    assert [phase.name for phase in make(fade_epochs=0).phases(TASK)] == NAMES[::2]


def test_later_tasks_go_on_at_full_size():
    assert [phase.name for phase in make().phases(TASK._replace(index=1, first_index=40))] == ["stable_8"]
    # The union of all tasks bears the index of the last.
    assert [phase.name for phase in make().phases(TASK._replace(index=4))] == NAMES


@pytest.mark.slow
def test_a_phase_moves_the_parts_of_its_size_and_no_others():
    model, data, watch = make(), make_data(num_tasks=1), Watch()
    trainer = make_trainer(watch)
    fit_stages(trainer, model, data)
    steps = trainer.num_training_batches
    assert watch.moved == [parts(0, False), parts(1, True), parts(1, False), parts(2, True), parts(2, False)]
    assert watch.samples == [(3, 1, 8, 8)] * 5
    fading = [number / steps for number in range(steps)]
    assert [[growth.level for growth in fit] for fit in watch.growth] == [
        [n] * steps for n in (0, 1, 1, 2, 2)
    ]
    for number, fit in enumerate(watch.growth):
        assert [growth.fade for growth in fit] == pytest.approx(fading if number % 2 else [1.0] * steps)
    assert model.growth() == Growth(2, 1.0)


def test_samples_have_full_size_in_every_phase_and_hold_enlarged_images():
    model = make().eval()
    for phase in model.phases(TASK):
        phase.begin(TASK)
        growth = model.growth()
        assert growth.fade == (0.0 if phase.name.startswith("fade") else 1.0)
        torch.manual_seed(1)
        images = model.sample(3)
        torch.manual_seed(1)
        small = model.generator(torch.randn(3, 5), None, *growth).clamp(-1, 1)
        factor = 8 // model.sizes[growth.level]
        assert images.shape == (3, 1, 8, 8) and not images.requires_grad
        for row in range(factor):
            assert torch.equal(images[:, :, row::factor, row::factor], small)
        phase.end(TASK)
        assert model.growth() == Growth(growth.level, 1.0)


def test_real_images_are_averaged_and_fade_with_the_generated():
    model, image = make(), torch.randn(2, 1, 8, 8)
    means = image.numpy().reshape(2, 1, 4, 2, 4, 2).mean((3, 5))
    torch.testing.assert_close(model.real(image, None, 1, 1.0), torch.from_numpy(means))
    coarse = torch.from_numpy(means.reshape(2, 1, 2, 2, 2, 2).mean((3, 5)).repeat(2, 2).repeat(2, 3))
    expected = 0.25 * torch.from_numpy(means) + 0.75 * coarse
    torch.testing.assert_close(model.real(image, None, 1, 0.25), expected)
    assert torch.equal(model.real(image, None, 2, 1.0), image)


def test_the_critics_loss_is_its_formula():
    model, images = make(), batch()
    growth = Growth(2, 0.5)
    torch.manual_seed(3)
    terms = model.critic_loss(images, 0.5, level=2, fades=True)
    torch.manual_seed(3)
    fake_image = model.generator(torch.randn(12, 5), None, *growth).detach()
    real_image = model.real(images.image, None, *growth)
    real, fake = model.score(real_image, None, *growth), model.score(fake_image, None, *growth)
    penalty = gradient_penalty(lambda image: model.score(image, None, *growth), real_image, fake_image).mean()
    expected = fake.mean() - real.mean() + 10 * penalty + 0.001 * real.square().mean()
    torch.testing.assert_close(terms["loss"], expected)
    torch.testing.assert_close(terms["gap"], (real.mean() - fake.mean()).detach())
    terms["loss"].backward()
    assert all(parameter.grad is None for parameter in model.generator.parameters())


def test_evaluation_of_loaded_weights_is_that_of_the_model_they_come_from():
    model = make().eval()
    model.phases(TASK)[3].begin(TASK)
    model.critic_loss(batch(), 0.3, level=2, fades=True)
    loaded = make(seed=9).eval()
    loaded.load_state_dict(model.state_dict(), strict=True)
    assert loaded.growth() == Growth(2, pytest.approx(0.3))
    results = []
    for module in (model, loaded):
        torch.manual_seed(1)
        results.append((module.evaluate(batch()), module.sample(4)))
    assert all(torch.equal(results[0][0][name], value) for name, value in results[1][0].items())
    assert torch.equal(results[0][1], results[1][1])


def test_wrong_sizes_are_refused():
    with pytest.raises(InputError, match=r"model.first_size=3.*data.spec.size=8.*one of 4, 8"):
        make(first_size=3)
    with pytest.raises(InputError, match=r"model.generator has levels.*2, 4, 8.*first_size=4.*need 4, 8"):
        make(first_size=4, generator=make().generator)


@pytest.mark.slow
def test_an_average_of_the_generator_leaves_the_growth_alone():
    model, watch = make(first_size=4), Watch()
    fit_stages(make_trainer(watch, AveragedWeights(("generator",), decay=0.5)), model, make_data(num_tasks=1))
    assert watch.growth[1][-1] == Growth(1, pytest.approx(1 - 1 / len(watch.growth[1])))
    assert model.growth() == Growth(1, 1.0)


def places(folder) -> dict:
    """Every checkpoint of a run, by the level and the fade that it was written at."""
    stored = [torch.load(file, weights_only=False) for file in sorted(folder.glob("copy-*.ckpt"))]
    return {(int(c["state_dict"]["level"]), float(c["state_dict"]["fade"])): c for c in stored}


def optimizers(checkpoint) -> list[torch.Tensor]:
    """All tensors of both optimizers' states, in a fixed order."""
    states = [state["state"] for state in checkpoint["optimizer_states"]]
    assert len(states) == 2 and all(states)
    return [value for state in states for key in sorted(state) for _, value in sorted(state[key].items())]


@pytest.mark.slow
def test_a_resume_while_a_level_fades_in_is_exact(tmp_path):
    data = make_data(num_tasks=1)

    def run(folder, ckpt=None, seed=0):
        model = make(first_size=4, fade_epochs=3, critic_steps=2, seed=seed)
        fit_stages(make_trainer(CopyingCheckpoints(folder, 0.0)), model, data, ckpt_path=ckpt)
        return model.state_dict(), places(folder)

    whole, written = run(tmp_path / "whole")
    steps = len(data.train_dataloader())
    fades = [(number * steps - 1) / (3 * steps) for number in (1, 2, 3)]
    faded = (1, pytest.approx(fades[-1]))
    for number, fade in enumerate(fades[:2]):
        place = next(place for place in written if place == (1, pytest.approx(fade)))
        file = tmp_path / f"{number}.ckpt"
        torch.save(written[place], file)
        resumed, rewritten = run(tmp_path / str(number), file, seed=9)
        for name, value in whole.items():
            assert torch.equal(value, resumed[name]), f"{name} after {place}"
        ends = [next(c for place, c in every.items() if place == faded) for every in (written, rewritten)]
        for name, value in ends[0]["state_dict"].items():
            assert torch.equal(value, ends[1]["state_dict"][name]), f"{name} faded in, after {place}"
        states = [optimizers(end) for end in ends]
        assert len(states[0]) == len(states[1])
        assert all(torch.equal(a, b) for a, b in zip(*states, strict=True)), f"after {place}"
