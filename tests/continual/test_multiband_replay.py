"""Multiband VAE: the pools that its band learns from, and controlled forgetting."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lightning import Callback
from multiband_toys import SHORT, batch_of, make_multiband, ready, snapshot, task
from toys import make_data, make_trainer

from lit_gen.continual.multiband_local import CodePrior
from lit_gen.core.stages import fit_stages

DATA = make_data(num_tasks=4)


# --- replay


@pytest.mark.parametrize(("num_past", "count"), [(1, 32), (2, 64), (3, 96), (4, 96), (5, 96)])
def test_pools_have_the_published_sizes_and_past_tasks_equal_parts(num_past, count):
    model = ready(num_past, batch_size=64)
    data = make_data(num_tasks=1, batch_size=64)
    batch = batch_of(data, 0, 64)
    pool = model.with_replay(num_past, batch._replace(task=torch.full((64,), num_past)))
    sizes = torch.bincount(pool.task, minlength=num_past + 1)
    assert model.num_replayed(num_past) == count and sizes[num_past] == 64
    assert sizes[:num_past].sum() == count and sizes[:num_past].max() - sizes[:num_past].min() <= 1
    assert pool.code.shape == (count + 64, 5) and pool.is_replaced.eq(0).all()


def test_the_pool_pairs_real_images_with_their_codes_and_past_codes_with_the_frozen_bands_images():
    model = ready(2)
    batch = batch_of(DATA, 2)
    pool = model.with_replay(2, batch)
    past = pool.task < 2
    torch.testing.assert_close(pool.image[past], model.previous_band(pool.code[past], pool.task[past]))
    real = pool.image[~past].flatten(1)
    assert {tuple(row) for row in real.tolist()} == {tuple(row) for row in batch.image.flatten(1).tolist()}
    assert not torch.equal(pool.task, pool.task.sort().values), "shuffled"
    # A real image's continuous code is near its posterior's mean, in units of its standard deviation.
    posterior = model.local.encoder(pool.image[~past])
    distance = (pool.code[~past][:, :3] - posterior.mean) / (0.5 * posterior.log_var).exp()
    assert distance.abs().max() < 5 and 0.5 < distance.std() < 1.5


def test_past_tasks_share_their_noise():
    prior = CodePrior(num_tasks=4, latent_size=3, num_bits=2)
    prior.code_means.copy_(torch.rand(4, 2))
    code, number = prior.draw_shared(24, 3)
    blocks = [code[number == j] for j in range(3)]
    for block in blocks[1:]:
        assert torch.equal(block[:, :3], blocks[0][:, :3])
    prior.code_means.copy_(torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.2, 0.8], [0.5, 0.5]]))
    code, number = prior.draw_shared(3000, 3)
    first, second, third = (code[number == j][:, 3:] for j in range(3))
    assert torch.equal(second, third), "the same uniform numbers against the same shares"
    assert (first[:, 0] <= second[:, 0]).all() and (first[:, 1] >= second[:, 1]).all()


def test_what_does_not_divide_goes_to_any_task():
    prior = CodePrior(num_tasks=3, latent_size=1, num_bits=1)
    torch.manual_seed(0)
    sizes = sum(torch.bincount(prior.draw_shared(4, 3)[1], minlength=3) for _ in range(600))
    assert (sizes / 600 - 4 / 3).abs().max() < 0.1


@pytest.mark.parametrize(("bits", "factor"), [("matched", 2), ("published", 1)])
def test_bits_of_real_images_have_the_chance_that_the_option_says(bits, factor):
    model = ready(1, band_bits=bits)
    image = batch_of(DATA, 1, 1).image
    with torch.no_grad():
        model.local.encoder.bits.bias.copy_(torch.tensor([1.0, -0.5]))
        logits = model.local.encoder(image).logits
    torch.manual_seed(0)
    drawn = model._current_code(image.expand(20_000, -1, -1, -1))[:, 3:]
    torch.testing.assert_close(
        (drawn > 0).float().mean(0), torch.sigmoid(factor * logits[0]), atol=0.015, rtol=0
    )


def test_the_sum_is_the_mean_times_the_number_of_images():
    pool = ready(1).with_replay(1, batch_of(DATA, 1))
    mean, total = (ready(1, band_reduction=how).band_loss(pool, 0.0) for how in ("mean", "sum"))
    assert total["loss"].item() == pytest.approx(len(pool.image) * mean["loss"].item(), rel=1e-5)
    assert mean["loss"] == mean["reconstruction"]


# --- controlled forgetting


def test_similarity_1_asks_for_no_images_and_changes_nothing():
    results = []
    for similarity in (1.0, 0.9999999):
        model = make_multiband(similarity=similarity)
        fit_stages(make_trainer(), model, make_data(num_tasks=2))
        results.append(snapshot(model))
    assert make_multiband(similarity=1.0).phases(task(1))[-1].each_epoch is None
    assert make_multiband(similarity=0.9).phases(task(1))[-1].each_epoch is not None
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


def test_replayed_targets_near_a_real_image_give_way_to_the_nearest():
    model = ready(2, similarity=0.9)
    real = batch_of(DATA, 2, 10)
    model.course.count(16, True)
    model.look_around(task(2), lambda count: [real])
    looked = model._looked_at
    code, number = model.prior.draw_shared(40, 2)
    with torch.no_grad():
        target = model.previous_band(code, number)
        translated = model.band.translator(code, number)
        reference = model.band.translator(looked.code, looked.task)
    nearest, place = torch.cosine_similarity(translated[:, None], reference[None], dim=2).max(1)
    model.similarity = gamma = nearest.median().item() - 1e-5
    with torch.no_grad():
        found, is_replaced = model._forget(code, number, target)
    assert is_replaced.bool().tolist() == (nearest > gamma).tolist()
    assert 10 < is_replaced.sum() < 30
    for row in range(40):
        expected = real.image[place[row]] if nearest[row] > gamma else target[row]
        assert torch.equal(found[row], expected)


@pytest.mark.parametrize("warm_up", [0, 1])
def test_forgetting_begins_in_the_second_epoch_after_the_warm_up_of_the_band(warm_up):
    model = make_multiband(similarity=1e-6, epochs=replace(SHORT, band_warmup=warm_up))
    shares = {}

    class Watch(Callback):
        def on_train_batch_end(self, trainer, module, *_):
            if "replaced" in module.latest_terms:
                first = trainer.current_epoch == module.course.first_epoch
                key = int(module.tasks_seen), module.phase.name, first
                shares[key] = max(shares.get(key, 0.0), float(module.latest_terms["replaced"]))

    fit_stages(make_trainer(Watch()), model, make_data(num_tasks=3))
    for task_number in (1, 2):
        assert shares.get((task_number, "band_warmup", True), 0) == shares[task_number, "band", True] == 0
        assert shares[task_number, "band", False] > 0


def test_warm_ups_leave_weights_alone_and_keep_statistics():
    model = make_multiband()
    phases = {phase.name: phase for phase in model.phases(task(1))}
    for name, kept in (("local_warmup", model.local.band), ("band_warmup", model.band.decoder)):
        model.enter(phases[name], model.course)
        assert all(part.training for part in kept.modules())
        assert not any(parameter.requires_grad for parameter in kept.parameters())
