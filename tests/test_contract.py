"""What every family and every net of conf/ promises: the contract once for each class and for each net."""

from __future__ import annotations

import functools
import importlib
import io
import pkgutil

import pytest
import torch
from conf_toys import models_of_classes, net_of, partners, smallest_image

from lit_gen import continual, families
from lit_gen.cli import choices
from lit_gen.cli.config import Composed, compose
from lit_gen.core.frozen import trainable
from lit_gen.core.images import to_float
from lit_gen.core.module import LitGenerator, LitModel
from lit_gen.core.progress import Course
from lit_gen.core.types import Batch, Classifies, HasCodes, PairBatch, Translates

# Beside one for each class and each net: a loss with parameters of its own, a learner within another model.
MORE = [("vae_gaussian", "dense"), ("replay_vae", "conv"), ("multiband_gan_classes", "multiband_gan_dense")]
MORE += [("ddpm_bound", "unet_tiny"), ("replay_diffusion_distilled", "unet_tiny")]

FEW_DRAWN = {
    "binplay": ["model.repeats=1"],
    "replay_diffusion": ["model.pool_size=50"],
    "replay_diffusion_distilled": ["model.pool_size=50"],
    "joint_replay": ["model.per_class=10", "model.sampler.steps=2"],
    "solver_diffusion": ["model.pool_size=50", "model.generator.pool_size=50"],
    "solver_multiband": ["model.pool_size=50"],
    "aligned_multiband": ["model.pool_size=50"],
    "guide": ["model.sampler.steps=2", "model.generator.pool_size=50"],
}


def pairs() -> list[tuple[str, str | None]]:
    """(model, net; None: its own), so that every class and every net is among them."""
    of_classes = [(model, net_of(model)) for model in models_of_classes().values()]
    of_nets = [(partners("net", net)[0].removeprefix("model="), net) for net in choices("net")]
    return sorted({*of_classes, *of_nets, *MORE}, key=str)


@functools.cache
def composed(model: str, net: str | None) -> Composed:
    return compose(
        "train",
        [
            f"model={model}",
            *([f"net={net}"] if net else []),
            "data=synthetic",
            "data.spec.channels=3",
            f"data.spec.size={smallest_image(model, net)}",
            "data.batch_size=12",
            "stream=split_classes",
            "stream.num_tasks=2",
            "logger=csv",
            "trainer=cpu",
            *FEW_DRAWN.get(model, []),
        ],
    )


@pytest.fixture(params=pairs(), ids=lambda pair: "-".join(filter(None, pair)))
def case(request):
    config = composed(*request.param)
    data = config.build("data")
    data.prepare_data()
    data.setup()
    data.takes_pairs = "data=unpaired_digits" in partners("model", request.param[0])
    torch.manual_seed(0)
    return config, config.build("model"), data


def test_every_family_has_a_model():
    """Bases of families are in families/base.py; any other class that trains can be chosen."""
    there = set()
    for package in (families, continual):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if found.name != "lit_gen.families.base":
                members = vars(importlib.import_module(found.name)).values()
                classes = [m for m in members if isinstance(m, type) and issubclass(m, LitModel)]
                there |= {f"{c.__module__}.{c.__name__}" for c in classes if c.__module__ == found.name}
    assert set(models_of_classes()) == there


def batch_of(data, task: int) -> Batch | PairBatch:
    count = 12 if data.spec.size < 64 else 4
    batch = data.dataset("train", [task]).__getitems__(list(range(count)))
    batch = batch._replace(image=to_float(batch.image))
    return PairBatch(batch, batch._replace(image=-batch.image)) if data.takes_pairs else batch


def test_gradients_are_finite_and_reach_exactly_what_the_phase_trains(case):
    _, model, data = case
    for task in data.stages:
        data.current_task = task.index
        for phase in model.phases(task):
            phase.begin(task)
            model.enter(phase, Course())
            pool = batch_of(data, task.index)
            if phase.prepare is not None:
                with torch.no_grad():
                    pool = phase.prepare(pool)
            for turn in phase.turns:
                model.zero_grad(set_to_none=True)
                loss = turn.loss(pool, 0.5).get("loss")
                trained = {id(p) for part in turn.trains for p in trainable(part)}
                if not trained:
                    continue
                assert loss.ndim == 0 and loss.isfinite()
                loss.backward()
                for name, parameter in model.named_parameters():
                    if id(parameter) in trained:
                        assert parameter.grad is not None, f"{phase.name}: {name} gets no gradient"
                        assert parameter.grad.isfinite().all(), f"{phase.name}: {name}"
                    elif len(phase.turns) == 1:
                        assert parameter.grad is None, f"{phase.name}: {name} is frozen"
            phase.end(task)


def test_phases_are_pure(case):
    _, model, data = case
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, again = (model.phases(data.tasks[1]) for _ in range(2))
    assert [p.name for p in first] == [p.name for p in again]
    assert [p.epochs for p in first] == [p.epochs for p in again]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_survive_a_file_and_a_fresh_model_gives_the_same_evaluation(case):
    config, model, data = case
    for task in data.tasks:
        for phase in model.phases(task):
            phase.begin(task)
            phase.end(task)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    torch.manual_seed(99)
    fresh = config.build("model")
    fresh.load_state_dict(torch.load(file, weights_only=True), strict=True)
    results = []
    for module in (model.eval(), fresh.eval()):
        torch.manual_seed(1)
        with torch.no_grad():
            results.append(module.evaluate(batch_of(data, 1)))
    assert results[0].keys() == results[1].keys()
    for name, value in results[0].items():
        assert value.isfinite() and torch.equal(value, results[1][name]), name


def test_samples_are_images(case):
    _, model, data = case
    if not isinstance(model, LitGenerator):
        assert not hasattr(model, "sample")
        return
    conditions = {"label": torch.tensor([0, 1, 2, 3, 0]), "task": torch.tensor([0, 1, 0, 1, 1])}
    given = {name: value for name, value in conditions.items() if name in model.conditions}
    model.eval()
    torch.manual_seed(3)
    images = model.sample(5, **given)
    assert images.shape == (5, data.spec.channels, data.spec.size, data.spec.size)
    assert images.dtype == torch.float32 and not images.requires_grad
    assert images.min() >= -1 and images.max() <= 1
    torch.manual_seed(3)
    assert torch.equal(model.sample(5, **given), images), "the global generator alone decides"
    for name in conditions:
        wrong = (
            {k: v for k, v in given.items() if k != name}
            if name in given
            else given | {name: conditions[name]}
        )
        with pytest.raises(ValueError, match=name):
            model.sample(5, **wrong)


def test_abilities_keep_their_promises(case):
    _, model, data = case
    batch, able = batch_of(data, 0), model.eval().abilities()
    if isinstance(able, HasCodes):
        images, codes = able.reconstruct(batch), able.encode(batch)
        assert images.shape == batch.image.shape and not images.requires_grad
        assert images.min() >= -1 and images.max() <= 1
        assert codes.ndim == 2 and len(codes) == len(batch.image)
        assert able.decode(codes, label=batch.label, task=batch.task).shape == batch.image.shape
    if isinstance(able, Translates):
        for image, to in zip(batch, "ba", strict=True):
            translated = able.translate(image.image, to=to)
            assert translated.shape == image.image.shape and not translated.requires_grad
            assert translated.min() >= -1 and translated.max() <= 1
    if isinstance(able, Classifies):
        assert able.classify(batch.image).shape == (len(batch.image), data.spec.num_classes)
