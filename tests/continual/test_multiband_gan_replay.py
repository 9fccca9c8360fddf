"""Multiband GAN: what its global generator learns from, by tasks and by classes."""

from __future__ import annotations

import pytest
import torch
from multiband_gan_toys import make_multiband_gan
from multiband_toys import batch_of, task
from toys import make_data, make_trainer

from lit_gen.core.stages import fit_stages

DATA = make_data(num_tasks=4)


@pytest.mark.parametrize(("num_past", "each"), [(1, 32), (2, 32), (3, 32), (4, 24), (19, 5)])
def test_replay_has_the_published_size_and_past_tasks_equal_parts(num_past, each):
    model = make_multiband_gan(num_tasks=20, batch_size=64).eval()
    batch = batch_of(make_data(num_tasks=1), 0, 60)
    pool = model.with_replay(num_past, 0, batch._replace(task=torch.full((60,), num_past)))
    assert torch.bincount(pool.condition).tolist() == [each] * num_past + [60]
    assert pool.is_replayed.tolist() == [True] * (each * num_past) + [False] * 60


def test_the_pool_holds_draws_of_the_frozen_and_of_the_local_generator():
    model, batch = make_multiband_gan(num_tasks=4).eval(), batch_of(DATA, 2)
    with torch.no_grad():
        model.previous.net.decoder.last.bias.fill_(0.5)
        model.local.generator.decoder.last.bias.fill_(-0.5)
    pool = model.with_replay(2, DATA.tasks[2].first_index, batch)
    past = pool.is_replayed
    assert torch.equal(pool.image[past], model.previous(pool.noise[past], pool.condition[past]))
    now = model.local.generator(pool.noise[~past], pool.condition[~past])
    torch.testing.assert_close(pool.image[~past], now)
    assert (pool.condition[~past] == 2).all() and not pool.image.requires_grad
    assert pool.noise.unique(dim=0).shape == pool.noise.shape, "every draw has noise of its own"


# --- classes instead of tasks


def test_replayed_classes_follow_the_counts_of_their_task():
    model = make_multiband_gan(num_tasks=3, condition="label")
    for index, counts in enumerate([(30, 10, 0, 0), (0, 0, 0, 40)]):
        number = task(index)._replace(label_counts=counts)
        model.phases(number)[-1].end(number)
    torch.manual_seed(0)
    drawn = model.classes.draw(torch.arange(2).repeat(4000))
    assert set(drawn[1::2].tolist()) == {3} and set(drawn[0::2].tolist()) == {0, 1}
    assert (drawn[0::2] == 0).float().mean().item() == pytest.approx(0.75, abs=0.03)
    batch = batch_of(DATA, 2)
    pool = model.eval().with_replay(2, 0, batch)
    assert torch.equal(pool.condition[~pool.is_replayed], batch.label)
    assert (pool.condition[:8] < 2).all() and (pool.condition[8:16] == 3).all()
    absorbed = model.classes.are_seen(torch.arange(4), int(model.tasks_seen))
    assert absorbed.tolist() == [True, True, False, True]


def test_class_tables_are_the_tasks_counts_after_a_run():
    data, model = make_data(num_tasks=2), make_multiband_gan(num_tasks=2, condition="label")
    fit_stages(make_trainer(), model, data)
    assert model.classes.counts.tolist() == [list(map(float, t.label_counts)) for t in data.tasks]
    assert model.conditions == {"label"}
    assert model.sample(4, label=torch.arange(4)).shape == (4, 1, 8, 8)
