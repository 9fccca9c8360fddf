"""Generative replay with a conditional, an unconditional and a two-turn learner."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from toys import SPEC, ToyGenerator, make_data, make_trainer

from callbacks.task_switch import fit_stages
from lit_gen.continual.replay import GenerativeReplay
from lit_gen.core.images import to_float
from lit_gen.core.module import LitGenerator
from lit_gen.core.types import Phase, Turn
from lit_gen.families.vae import VAE
from lit_gen.nets.mlp import DenseDecoder, DenseEncoder


def make_vae(condition="none"):
    size = {"none": 0, "task": 2, "label": 4}[condition]
    return VAE(
        DenseEncoder(1, 8, 8, (16,), size),
        DenseDecoder(1, 8, 4, (16,), size),
        latent_size=4,
        condition=condition,
        condition_size=size,
        spec=SPEC,
        optimizer=functools.partial(torch.optim.Adam, lr=1e-2),
    )


class TwoTurns(LitGenerator):
    """A toy GAN."""

    def __init__(self):
        super().__init__(spec=SPEC, optimizer=functools.partial(torch.optim.Adam, lr=1e-3))
        self.maker, self.critic = nn.Linear(4, 64), nn.Linear(64, 1)

    def phases(self, task):
        turns = (Turn("critic", self.judge, (self.critic,)), Turn("maker", self.make, (self.maker,), every=2))
        return (Phase("play", turns),)

    def judge(self, batch, progress):
        fake = self.sample(len(batch.image))
        return {"loss": self.critic(fake.flatten(1)).mean() - self.critic(batch.image.flatten(1)).mean()}

    def make(self, batch, progress):
        return {"loss": -self.critic(self.maker(torch.randn(len(batch.image), 4)).tanh()).mean()}

    @torch.no_grad()
    def sample(self, n, *, label=None, task=None):
        self.refuse(label=label, task=task)
        return self.maker(torch.randn(n, 4)).tanh().view(n, 1, 8, 8)


LEARNERS = {
    "by task": lambda: make_vae("task"),
    "by label": lambda: make_vae("label"),
    "unconditional": make_vae,
    "two turns": TwoTurns,
    "two phases": ToyGenerator,
}


@pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS.keys())
def test_every_kind_of_learner_learns_with_replay(learner):
    replay = GenerativeReplay(learner(), num_tasks=2)
    teacher = {name: value.clone() for name, value in replay.teacher.state_dict().items()}
    fit_stages(make_trainer(max_epochs=1), replay, make_data())
    assert int(replay.tasks_seen) == 2
    moved = [n for n, v in replay.teacher.state_dict().items() if not torch.equal(v, teacher[n])]
    assert moved, "the teacher took over what the learner knew after the first task"
    assert replay.sample(3, **{n: torch.zeros(3, dtype=torch.long) for n in replay.conditions}).shape == (
        3,
        1,
        8,
        8,
    )


def after_tasks(num_seen, learner, num_tasks=5, **options):
    """A replay model that has closed some tasks, and the next task's first batch."""
    data = make_data(num_tasks=4, batch_size=16)
    replay = GenerativeReplay(learner, num_tasks=num_tasks, **options)
    for task in data.tasks[:num_seen]:
        replay._close(task)
    batch = data.dataset("train", [num_seen]).__getitems__(list(range(16)))
    return replay, batch._replace(image=to_float(batch.image)), data


@pytest.mark.parametrize(("num_seen", "count"), [(0, 0), (1, 8), (2, 16), (3, 24)])
def test_the_number_of_replayed_images_grows_to_a_limit(num_seen, count):
    replay, batch, _ = after_tasks(num_seen, make_vae())
    mixed = replay.with_replay(batch)
    assert len(mixed.image) == 16 + count
    assert torch.equal(mixed.image[:16], batch.image) and torch.equal(mixed.index[:16], batch.index)
    assert mixed.index[16:].eq(-1).all() and mixed.image[16:].abs().le(1).all()
    limited, batch, _ = after_tasks(num_seen, make_vae(), max_tasks=1)
    assert len(limited.with_replay(batch).image) == 16 + min(count, 8)


def test_replayed_labels_and_tasks_follow_the_counts_seen_so_far():
    replay, batch, data = after_tasks(3, make_vae("label"), share=200.0)
    assert [t.name for t in data.tasks] == ["0", "1", "2", "3"]
    torch.manual_seed(0)
    mixed = replay.with_replay(batch)
    counts = torch.bincount(mixed.label[16:], minlength=4)
    assert counts[3] == 0, "a class of the future is never replayed"
    torch.testing.assert_close(counts[:3] / counts.sum(), torch.full((3,), 1 / 3), atol=0.02, rtol=0)
    assert mixed.task[16:].eq(-1).all(), "a learner that takes no task is told none"


def test_an_unconditional_teachers_images_are_unlabelled():
    replay, batch, _ = after_tasks(2, make_vae())
    mixed = replay.with_replay(batch)
    assert mixed.label[16:].eq(-1).all() and mixed.task[16:].eq(-1).all()


def test_the_learners_own_preparation_comes_after_the_replay():
    sizes = []

    class Prepares(ToyGenerator):
        def phases(self, task):
            def note(batch):
                sizes.append(len(batch.image))
                return batch

            return (Phase.single("main", self.step, (self,), 1, prepare=note),)

    replay = GenerativeReplay(Prepares(), num_tasks=2)
    fit_stages(make_trainer(), replay, make_data(batch_size=16))
    half = len(sizes) // 2
    assert set(sizes[:half]) == {16} and set(sizes[half:]) == {24}
