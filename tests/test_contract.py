"""What every model of conf/model promises, checked once for all of them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from lit_gen.cli.compose import compose
from lit_gen.core.frozen import trainable
from lit_gen.core.images import to_float
from lit_gen.core.module import LitGenerator
from lit_gen.core.types import Batch, Classifies, PairBatch, Reconstructs, Translates

CONF = Path(__file__).parents[1] / "conf"
MODELS = sorted(f.stem for f in (CONF / "model").glob("*.yaml") if not f.stem.startswith("_"))


def smallest_image(name: str) -> int:
    """The side length that the file declares in a line `# smallest image: 8`."""
    for line in (CONF / "model" / f"{name}.yaml").read_text().splitlines():
        if line.startswith("# smallest image:"):
            return int(line.partition(":")[2])
    raise AssertionError(f"conf/model/{name}.yaml does not declare its smallest image")


def takes_pairs(name: str) -> bool:
    """Whether the file names data of two domains in its line `# with: data=unpaired_digits`."""
    return "# with: data=unpaired" in (CONF / "model" / f"{name}.yaml").read_text()


def composed(name: str, channels: int):
    return compose(
        "train",
        [
            f"model={name}",
            "data=synthetic",
            f"data.spec.channels={channels}",
            f"data.spec.size={smallest_image(name)}",
            "data.batch_size=12",
            "stream=split_classes",
            "stream.num_tasks=2",
            "logger=csv",
            "trainer=cpu",
        ],
    )


@pytest.fixture(params=[1, 3], ids=["grey", "colour"])
def channels(request):
    return request.param


@pytest.fixture(params=MODELS)
def case(request, channels):
    config = composed(request.param, channels)
    data = config.build("data")
    data.prepare_data()
    data.setup()
    data.takes_pairs = takes_pairs(request.param)
    torch.manual_seed(0)
    return config, config.build("model"), data


def batch_of(data, task: int) -> Batch | PairBatch:
    batch = data.dataset("train", [task]).__getitems__(list(range(12)))
    batch = batch._replace(image=to_float(batch.image))
    return PairBatch(batch, batch._replace(image=-batch.image)) if data.takes_pairs else batch


def test_gradients_are_finite_and_reach_exactly_what_the_phase_trains(case):
    _, model, data = case
    for task in data.stages:
        data.current_task = task.index
        for phase in model.phases(task):
            phase.begin(task)
            model.enter(phase, 0, 1)
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
    if isinstance(able, Reconstructs):
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
