"""Joint diffusion task after task: what the global model learns from, and from whom."""

from __future__ import annotations

import functools
import logging

import pytest
import torch
from joint_toys import SPEC, batch_of, linear_model, small_model
from toys import assert_same_state, make_data, make_trainer, walk

from lit_gen.continual.joint_replay import JointReplay, Weights, divergence
from lit_gen.core.progress import Course
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import Batch, Task
from lit_gen.families.samplers import DiffusionSampler
from lit_gen.nets.augmentation import Augmentation

NOW = Task(1, "2-3", (0, 0, 5, 5), 10, 10)
FEW_STEPS = DiffusionSampler(steps=2, progress=False)


def draws(*brightness):
    """A sampler of even grey images, these in turn."""

    def draw(model, n):
        return torch.tensor(brightness).repeat(n)[:n, None, None, None].expand(n, 1, 8, 8)

    draw.check = lambda model: None
    return draw


def made(**options):
    learner = small_model()
    learner.make_optimizer = functools.partial(torch.optim.Adam, lr=1e-3)
    return JointReplay(learner, num_tasks=2, **{"per_class": 8, "sampler": FEW_STEPS} | options)


def test_nothing_is_left_to_learn_from_a_teacher_that_says_the_same():
    model, batch = made(late_classes=0.0).eval(), batch_of([0, 1, 2, 3, 0, 1])
    terms = model.consolidate(batch, 0.5)
    assert float(terms["distilled"]) == 0 and abs(float(terms["divergence"])) < 1e-7
    assert float(terms["error"]) > 0 and float(terms["cross_entropy"]) > 0
    only_taught = made(weights=Weights(0.0, 1.0, 0.0, 1e-3)).eval().consolidate(batch, 0.5)["loss"]
    assert abs(float(only_taught)) < 1e-7


def test_each_half_has_a_teacher_of_its_own_and_weighs_as_much_as_was_drawn():
    model, batch = made(weights=Weights(0.0, 1.0, 0.0, 0.0)).eval(), batch_of([0, 1, 2, 3])
    with torch.no_grad():
        for parameter in model.local.net.out.parameters():
            parameter.add_(0.1)  # the local model says something else
    pool = batch.map(lambda part: part[:1])
    model.old.images = pool.map(lambda part: part.repeat_interleave(6, 0))
    model.new.images = pool.map(lambda part: part.repeat_interleave(2, 0))
    torch.manual_seed(3)
    terms = model.consolidate(batch, 0.0)
    # The old half has no distance, and the new one weighs 2 * 2 / 8.
    torch.testing.assert_close(terms["loss"], 0.5 * terms["distilled"])
    assert float(terms["distilled"]) > 0


def test_divergence_is_that_of_the_chances():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 4)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=teacher), torch.distributions.Categorical(logits=student)
    )
    torch.testing.assert_close(divergence(student, teacher), expected)


def test_drawn_images_are_even_over_the_classes_that_the_teacher_learned(caplog):
    # By their brightness of classes 3, 0, 0, 0: the fourth part of 16 draws is not enough of class 3.
    learner = linear_model()
    model = JointReplay(learner, 2, per_class=8, sampler=draws(0.9, -0.9, -0.8, -0.7))
    pool = model.balanced(model.old, learner, torch.tensor([[1, 0, 0, 0], [0, 0, 0, 1]]))
    assert pool.label.bincount(minlength=4).tolist() == [8, 0, 0, 8]
    assert torch.equal(learner.classify(pool.ready().image).argmax(1), pool.label)
    assert not pool.label.eq(pool.label.sort().values).all(), "shuffled"
    with caplog.at_level(logging.WARNING):
        pool = model.balanced(model.old, learner, torch.tensor([[1, 1, 0, 0]]))
    assert pool.label.tolist() == [0] * 8 and "of class 1 only 0 of 8" in caplog.text
    none = model.balanced(model.old, learner, torch.tensor([[0, 1, 1, 0]]))
    assert none.size == 160 and set(none.label.tolist()) == {0, 3}, (
        "all draws, where none is of these classes"
    )


def test_distances_are_taken_where_the_learners_loss_is():
    model, batch = made(weights=Weights(1.0, 0.0, 0.0, 0.0)).eval(), batch_of([0, 1, 2, 3])
    model.whole.space = "x0"
    torch.manual_seed(3)
    here = model.consolidate(batch, 0.0)["error"]
    torch.manual_seed(3)
    torch.testing.assert_close(
        here,
        model.whole.step(batch, 0.0)["loss"]
        - 1e-3 * model.whole.classifier_step(batch, 0.0)["cross_entropy"],
    )


def test_a_batch_is_half_old_half_new_and_real_images_are_not_in_it():
    learner, now = linear_model(), Task(1, "3", (0, 0, 0, 5), 10, 5)
    model = JointReplay(learner, 2, per_class=50, sampler=draws(-0.9, 0.9))
    model._close(Task(0, "0", (5, 0, 0, 0), 0, 10))
    batch = Batch(torch.zeros(7, 1, 8, 8), *torch.full((3, 7), 9))
    found = [model.replaced(now, batch) for _ in range(20)]
    for one in found:
        assert one.label.tolist() == [0] * 4 + [3] * 3 and one.index.eq(-1).all()
        assert one.image.mean((1, 2, 3)).sign().tolist() == [-1] * 4 + [1] * 3
    assert (int(model.old.num_dealt), int(model.new.num_dealt)) == (80, 60)
    alone = model.replaced(now, batch.map(lambda part: part[:1]))
    assert alone.label.tolist() == [0, 3], "one of each at least"


def test_who_begins_where():
    model = made()
    fit_stages(make_trainer(max_epochs=1), model, make_data())
    assert int(model.past.seen) == 2 and model.past.label_counts.gt(0).tolist() == [
        [True, True, False, False],
        [False, False, True, True],
    ]
    first, second = model.phases(Task(0, "0", (5, 5, 0, 0), 0, 10)), model.phases(NOW)
    assert [phase.name for phase in first] == ["train"] and [p.name for p in second] == [
        "train",
        "consolidation",
    ]
    second[0].begin(NOW)
    assert_same_state(model.local, model.whole)
    with torch.no_grad():
        next(model.local.parameters()).add_(1)
    second[1].begin(NOW)
    assert_same_state(model.before.net, model.whole)
    model.enter(second[1], Course())
    model.consolidate(batch_of([0, 1, 2, 3]), 1.0)["loss"].backward()
    assert all(p.grad is None for part in (model.local, model.before) for p in part.parameters())
    missing = [name for name, p in model.whole.named_parameters() if p.grad is None]
    assert not missing


def test_a_resume_inside_any_phase_changes_nothing(tmp_path):
    def learner():
        model = JointReplay(
            linear_model(augmentation=Augmentation()), 2, 8, late_classes=0.5, sampler=FEW_STEPS
        )
        model.local.make_optimizer = model.make_optimizer = functools.partial(torch.optim.Adam, lr=1e-3)
        return model

    whole, *_ = walk(tmp_path / "whole", model=learner(), max_epochs=2)
    copies = sorted((tmp_path / "whole").glob("copy-*.ckpt"))
    for number, copy in enumerate(copies[2:-1]):
        resumed, *_ = walk(tmp_path / f"resumed-{number}", copy, learner(), max_epochs=2)
        assert_same_state(whole, resumed)


def test_attributes_are_refused():
    with pytest.raises(ValueError, match="attributes=true"):
        JointReplay(small_model(attributes=True), num_tasks=2)
    assert made().conditions == frozenset() and SPEC.num_classes == 4
