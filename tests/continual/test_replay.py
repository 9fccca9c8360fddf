"""Generative replay with a conditional, an unconditional and a two-turn learner."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from toys import SPEC, CopyingCheckpoints, ToyGenerator, make_data, make_trainer

from lit_gen.continual.pool import BLOCK
from lit_gen.continual.replay import GenerativeReplay
from lit_gen.core.images import to_float, to_uint8
from lit_gen.core.module import LitGenerator
from lit_gen.core.random import Use, forked_rng
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import Phase, Task, Turn
from lit_gen.families.vae import VAE
from lit_gen.nets.mlp import DenseDecoder, DenseEncoder


def make_vae(condition="none"):
    size = {"none": 0, "task": 2, "label": 4}[condition]
    return VAE(
        SPEC,
        DenseEncoder(1, 8, 8, (16,), size),
        DenseDecoder(1, 8, 4, (16,), size),
        latent_size=4,
        condition=condition,
        condition_size=size,
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
    assert int(replay.past.seen) == 2
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
        replay.past.close(task)
    batch = data.dataset("train", [num_seen]).__getitems__(list(range(16)))
    return replay, batch._replace(image=to_float(batch.image)), data


@pytest.mark.parametrize(("num_seen", "count"), [(0, 0), (1, 8), (2, 16), (3, 24)])
def test_the_number_of_replayed_images_grows_to_a_limit(num_seen, count):
    replay, batch, _ = after_tasks(num_seen, make_vae())
    mixed = replay.with_replay(batch)
    assert len(mixed.image) == 16 + count
    assert torch.equal(mixed.image[:16], batch.image) and torch.equal(mixed.index[:16], batch.index)
    assert all(part[16:].eq(-1).all() for part in mixed[1:]), "it knows neither label nor task"
    assert mixed.image[16:].abs().le(1).all()
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


def test_a_task_without_labels_is_replayed_without_them():
    replay = GenerativeReplay(make_vae("label"), num_tasks=2)
    for task in (Task(0, "0", (0, 0, 0, 0), 0, 10), Task(1, "1", (0, 0, 5, 5), 10, 10)):
        replay.past.close(task)
    label = replay._drawn(2, 400).label
    assert set(label.tolist()) == {-1, 2, 3}, "classes 0 and 1 were never learned"


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


# --- a pool


def test_a_pool_is_what_the_teacher_draws_with_its_seeds():
    replay, batch, _ = after_tasks(2, make_vae("label"), replay="pool", pool_size=350)
    replay.pool.seed.fill_(5)
    mixed = replay.with_replay(batch)
    expected = []
    for block, count in enumerate((BLOCK, 700 - BLOCK)):
        with forked_rng(5, Use.REPLAY_POOL, 0, block, device=torch.device("cpu")):
            task = torch.multinomial(replay.past.sizes[:2], count, replacement=True)
            label = torch.multinomial(replay.past.label_counts[task], 1).squeeze(1)
            expected.append((to_uint8(replay.teacher.net.sample(count, label=label)), label))
    image, label = (torch.cat(parts) for parts in zip(*expected, strict=True))
    assert torch.equal(mixed.image[16:], to_float(image[:16])) and torch.equal(mixed.label[16:], label[:16])
    dealt = [replay.with_replay(batch) for _ in range(49)]
    everything = torch.cat([mixed.image[16:], *(one.image[16:] for one in dealt)])
    assert torch.equal(everything[:700], to_float(image)) and torch.equal(
        everything[700:], to_float(image[:100])
    )
    assert mixed.index[16:].eq(-1).all() and mixed.task[16:].eq(-1).all()


def test_neither_batch_size_nor_processes_change_a_pool_or_its_order(monkeypatch):
    def dealt(sizes, world=1, rank=0):
        torch.manual_seed(0)
        replay, batch, _ = after_tasks(2, make_vae(), replay="pool", pool_size=600)
        monkeypatch.setattr("lit_gen.continual.pool.processes", lambda: (world, rank))
        # What the other process draws is added by torch.distributed.
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: None)
        parts = [replay.with_replay(batch.map(lambda p, n=n: p[:n])).image[n:] for n in sizes]
        return replay.pool.images.image, torch.cat(parts)

    pool, order = dealt([16, 16])
    other, small = dealt([8, 8, 16])
    assert torch.equal(pool, other) and torch.equal(order, small)
    (first, ours), (second, theirs) = dealt([8], 2, 0), dealt([8], 2, 1)
    assert torch.equal(pool, first + second), "each draws blocks of its own"
    assert torch.equal(ours, order[0:16:2]) and len(theirs) == 8


def run_with_pool(folder, ckpt_path=None, refresh_every=None):
    torch.manual_seed(0)
    model = GenerativeReplay(ToyGenerator(), 3, replay="pool", pool_size=600, refresh_every=refresh_every)
    calls, sample = [], model.teacher.net.sample
    model.teacher.net.sample = lambda n, **given: calls.append(n) or sample(n, **given)
    saver = CopyingCheckpoints(folder, every_seconds=0.0)
    trainer, data = make_trainer(saver), make_data(num_tasks=3)
    fit_stages(trainer, model, data, ckpt_path, lambda task: saver.save(trainer, task))
    return model, calls


@pytest.mark.parametrize("refresh_every", [None, 3])
def test_a_pool_is_drawn_once_and_again_after_a_resume_to_the_same_bits(tmp_path, refresh_every):
    whole, calls = run_with_pool(tmp_path / "whole", refresh_every=refresh_every)
    # 600 images for one past task, 1,200 for two; of four epochs each, the fourth has a pool of its own.
    times = 2 if refresh_every else 1
    assert calls == [500, 100] * times + [500, 500, 200] * times
    assert not any("pool" in name and "image" in name for name in whole.state_dict())
    for number in (5, 6, 11):
        folder = tmp_path / f"resumed-{number}"
        resumed, _ = run_with_pool(folder, tmp_path / "whole" / f"copy-{number:02d}.ckpt", refresh_every)
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), f"{name} after copy {number}"
