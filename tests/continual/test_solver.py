"""A classifier beside a continual generator: what it learns from, and rehearsal that is steered."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from joint_toys import linear_model
from torch import nn
from toys import SPEC, ToyGenerator, assert_same_state, make_data, make_trainer, walk

from lit_gen.continual.guide import Guide, Steered
from lit_gen.continual.replay import GenerativeReplay
from lit_gen.continual.solver import Solver
from lit_gen.core.module import LitGenerator
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import Batch, Task
from lit_gen.diffusion.path import Table, linear
from lit_gen.families.classifier import Classifier
from lit_gen.families.diffusion import Diffusion
from lit_gen.families.samplers import DiffusionSampler
from lit_gen.nets.unet import UNet

TASKS = [Task(0, "0-1", (6, 3, 0, 0), 0, 9), Task(1, "2-3", (0, 0, 5, 5), 9, 10)]


class Brightness(nn.Module):
    """The darkest images are of class 0, the brightest of class 3."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([-3.0, -1, 1, 3]))

    def forward(self, image):
        bright = image.mean((1, 2, 3))[:, None]
        return bright, bright * self.weight - self.weight.square() / 8


class Greys(LitGenerator):
    """Draws even grey images: of a label's or a task's brightness, where it is told, else of any."""

    def __init__(self, *conditions):
        super().__init__(SPEC, functools.partial(torch.optim.Adam, lr=1e-3))
        self.conditions, self.weight = frozenset(conditions), nn.Parameter(torch.zeros(()))

    def step(self, batch, progress):
        return {"loss": self.weight.square()}

    def sample(self, n, *, label=None, task=None):
        self.refuse(label=label, task=task)
        level = torch.rand(n) * 2 - 1
        level = level if label is None else torch.tensor([-1.5, -0.5, 0.5, 1.5])[label]
        level = level if task is None else torch.tensor([-0.2, 0.2])[task]
        return level[:, None, None, None].expand(n, 1, 8, 8).clamp(-1, 1)


def classifier(**options):
    return Classifier(SPEC, Brightness(), optimizer=functools.partial(torch.optim.Adam, lr=1e-3), **options)


def after_first(model):
    model._begin(TASKS[0])
    model._end(TASKS[0])
    model._begin(TASKS[1])
    return model


def real(count=12):
    return Batch(torch.full((count, 1, 8, 8), 0.7), *(torch.full((count,), k) for k in (2, 1, 3)))


@pytest.mark.parametrize(("conditions", "labels"), [(("label",), None), (("task",), None), ((), "solver")])
def test_a_batch_has_its_share_of_every_task_with_labels(conditions, labels):
    model = Solver(Greys(*conditions), classifier(), num_tasks=2, labels=labels, pool_size=60)
    assert model.mixed(TASKS[0], real()).index.eq(3).all(), "the first task has no past"
    after_first(model)
    found = [model.mixed(TASKS[1], real()) for _ in range(20)]
    for batch in found:
        assert batch.size == 12 and batch.index[:6].eq(3).all() and batch.index[6:].eq(-1).all()
    image = torch.cat([batch.image[6:] for batch in found])
    label = torch.cat([batch.label[6:] for batch in found])
    assert set(label.tolist()) <= {0, 1}, "classes of the past alone"
    if "label" in conditions:
        assert (image.mean((1, 2, 3)) < -0.9).eq(label == 0).all()
        assert 60 < int((label == 0).sum()) < 100, "two thirds, as there were"
    else:
        # Images are kept in 256 levels, and those in the middle of two classes may go to either.
        sure = image.mean((1, 2, 3)).sub(-0.5).abs() > 0.01
        expected = model.before.net.classify(image)[:, :2].argmax(1)
        assert torch.equal(label[sure], expected[sure])


def test_nothing_but_drawn_images_of_all_tasks_where_that_is_asked():
    model = after_first(Solver(Greys("label"), classifier(), 2, real=False, pool_size=200))
    found = model.mixed(TASKS[1], real(300))
    assert found.index.eq(-1).all() and set(found.label.tolist()) == {0, 1, 2, 3}
    assert set(found.task.tolist()) == {0, 1}


def test_a_generators_own_classifier_gives_labels():
    model = after_first(Solver(linear_model(), classifier(), 2, pool_size=30))
    assert model.labels == "head"
    drawn = model.mixed(TASKS[1], real())
    expected = model.generator.classify(drawn.image[6:]).argmax(1)
    assert torch.equal(drawn.label[6:], expected)


@pytest.mark.parametrize(
    ("generator", "options", "said"),
    [
        (Greys(), {"labels": "condition"}, "labels=condition.*take solver"),
        (Greys("label"), {"labels": "head"}, "take condition or solver"),
        (Greys("task"), {"real": False}, "real=false with labels=solver"),
    ],
)
def test_labels_that_cannot_be_had_are_refused(generator, options, said):
    with pytest.raises(ValueError, match=said):
        Solver(generator, classifier(), 2, **options)


def test_generator_and_classifier_learn_and_a_resume_changes_nothing(tmp_path):
    def made():
        return Solver(GenerativeReplay(ToyGenerator(1), 2), classifier(), 2, pool_size=40)

    whole, *_ = walk(tmp_path / "whole", model=made(), max_epochs=2)
    assert not torch.equal(whole.classifier.net.weight, classifier().net.weight)
    assert set(whole.evaluate(make_data().dataset("test", [0])[torch.arange(4)].ready())) == {
        "loss", "progress", "accuracy", "cross_entropy",
    }  # fmt: skip
    copies = sorted((tmp_path / "whole").glob("copy-*.ckpt"))
    for number, copy in enumerate(copies[-5:-1]):
        resumed, *_ = walk(tmp_path / f"resumed-{number}", copy, made(), max_epochs=2)
        assert_same_state(whole, resumed)


def test_the_union_of_all_tasks_is_learned_from_real_images(monkeypatch):
    model = Solver(ToyGenerator(1), classifier(), 2)
    monkeypatch.setattr(model, "replayed", None)
    fit_stages(make_trainer(), model, make_data(joint=True))
    assert int(model.past.seen) == 2
    assert model.generator.course is model.course, "a model inside knows how far the phase is"


# --- steered rehearsal


def diffusion():
    torch.manual_seed(0)
    net = UNet(1, 8, 8, (1, 2), 1, attention=(), condition_size=4)
    nn.init.normal_(net.out[-1].weight, std=0.1)
    optimizer = functools.partial(torch.optim.Adam, lr=1e-3)
    path = Table(linear(50))
    return Diffusion(SPEC, net, path, condition="label", condition_size=4, optimizer=optimizer)


def guide(**options):
    draw = DiffusionSampler(steps=4, progress=False)
    generator = GenerativeReplay(diffusion(), 2, replay="pool", pool_size=20, sampler=draw)
    return Guide(generator, classifier(), 2, **{"sampler": draw, "strength": 2.0} | options)


def test_steps_go_towards_the_most_probable_of_the_new_classes():
    model = linear_model()  # takes x_t for the image
    x, t = torch.tensor([-0.4, -0.1, 0.3])[:, None, None, None].expand(3, 1, 8, 8), 20.0
    net, new = classifier(), torch.tensor([True, False, False, True])
    sampler = DiffusionSampler().__dict__ | {"steps": 4}
    steered = Steered(**sampler, classify=net.classify, towards=new, strength=2.0).denoiser(model, None, None)
    plain = model.denoiser()(x, t).parts
    found = steered(x, t).parts
    sigma = float(model.path.levels(torch.tensor(t))[1])
    logits = net.classify(x)
    wanted = torch.tensor([0, 0, 3])
    assert logits.argmax(1).tolist() != wanted.tolist(), "the new class is not the likeliest of all"
    gap = logits.softmax(1) - F.one_hot(wanted, 4)
    slope = (gap @ net.net.weight / 64)[:, None, None, None]
    torch.testing.assert_close(found.noise, (plain.noise + 2 * sigma * slope).expand_as(x))
    before, after = (F.cross_entropy(net.classify(parts.image), wanted) for parts in (plain, found))
    assert after < before
    none = Steered(**sampler, classify=net.classify, towards=new, strength=0.0).denoiser(model, None, None)
    torch.testing.assert_close(none(x, t).parts.image, plain.image)


def test_rehearsal_is_of_old_classes_by_the_model_before_and_leaves_the_classifier_as_it_was():
    model = after_first(guide(redraw_every=2))
    model.classifier.train()
    drawn = [model.replayed(TASKS[1], 6) for _ in range(3)]
    assert all(set(batch.label.tolist()) <= {0, 1} for batch in drawn)
    assert torch.equal(drawn[0].image, drawn[1].image) and not torch.equal(drawn[0].image, drawn[2].image)
    assert model.classifier.net.training
    assert all(p.grad is None for p in model.parameters())


def test_a_resume_inside_steered_rehearsal_changes_nothing(tmp_path):
    whole, *_ = walk(tmp_path / "whole", model=guide(redraw_every=3), max_epochs=2)
    copies = sorted((tmp_path / "whole").glob("copy-*.ckpt"))
    resumed, *_ = walk(tmp_path / "resumed", copies[-3], guide(redraw_every=3), max_epochs=2)
    assert_same_state(whole, resumed)


def test_a_generator_that_cannot_draw_old_classes_is_refused():
    with pytest.raises(ValueError, match="condition=label"):
        Guide(GenerativeReplay(ToyGenerator(), 2), classifier(), 2)
