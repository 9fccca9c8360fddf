"""Multiband VAE: its phases and what each of them moves, replay, controlled forgetting, the bits' prior."""

from __future__ import annotations

import pytest
import torch
from lightning import Callback
from multiband_toys import SHORT, batch_of, make_multiband, make_parts, ready, snapshot, task
from toys import make_data, make_trainer

from lit_gen.continual.multiband import Decay, Epochs
from lit_gen.continual.multiband_local import CodePrior, MultibandLocal
from lit_gen.continual.replay import GenerativeReplay
from lit_gen.core.stages import fit_stages
from lit_gen.losses.reconstruction import squared_error


def moved(before, model):
    """First two parts of the names of what is different now."""
    return {
        ".".join(name.split(".")[:2])
        for name, value in model.state_dict().items()
        if not torch.equal(value, before[name])
    }


# --- the table


def test_the_first_task_has_one_training_phase_and_later_ones_four():
    model = make_multiband(epochs=Epochs())
    first, later = model.phases(task(0)), model.phases(task(2))
    assert [(p.name, p.epochs) for p in first] == [("local", 210), ("bits", None)]
    assert [(p.name, p.epochs) for p in later] == [
        ("local_warmup", 7),
        ("local", 63),
        ("bits", None),
        ("band_warmup", 5),
        ("band", 135),
    ]
    assert [p.chunk for p in later] == [None, None, None, 16, 16]


def test_warm_ups_of_no_length_are_left_out_and_their_beginning_moves_on():
    model = make_multiband(epochs=Epochs(3, 0, 2, 0, 2))
    with torch.no_grad():
        for parameter in model.band.parameters():
            parameter.fill_(0.25)
    local, bits, band = model.phases(task(1))
    assert [local.name, bits.name, band.name] == ["local", "bits", "band"]
    for phase in (local, band):
        phase.begin(task(1))
    for copy in (model.local.band, model.previous_band):
        assert all(p.eq(0.25).all() for p in copy.parameters())


@pytest.mark.parametrize(("number", "num_epochs", "first_hard"), [(0, 210, 38), (1, 70, 13)])
def test_bits_become_hard_at_the_published_epoch_of_warm_up_and_main_phase_together(
    number, num_epochs, first_hard
):
    model = make_multiband(epochs=Epochs())
    progress = []
    for phase in model.phases(task(number)):
        if phase.name.startswith("local"):
            start, stop = phase.span
            progress += [
                (phase, start + (stop - start) * epoch / phase.epochs) for epoch in range(phase.epochs)
            ]
    assert len(progress) == num_epochs
    is_hard = []
    for phase, value in progress:
        codes = []
        handle = model.local.band.register_forward_pre_hook(
            lambda _, args, codes=codes: codes.append(args[0])
        )
        with torch.no_grad():
            phase.turns[0].loss(batch_of(DATA, 0, 4), value)
        handle.remove()
        is_hard.append(torch.allclose(codes[0][:, 3:].abs(), torch.ones(4, 2)))
    assert is_hard == [epoch >= first_hard for epoch in range(num_epochs)]


DATA = make_data(num_tasks=4)


def test_learning_rates_fall_per_epoch_and_the_encoder_warms_up_with_a_tenth():
    model = make_multiband(epochs=Epochs(), decay=Decay(first=0.99, local=0.98, band=0.97))
    first = model.phases(task(0))[0].schedule
    warmup, local, _, band_warmup, band = (phase.schedule for phase in model.phases(task(1)))
    assert first(0.0) == 1 and first(209.5 / 210) == pytest.approx(0.99**209)
    assert warmup(0.0) == pytest.approx(0.1) and warmup(6.5 / 7) == pytest.approx(0.1 * 0.98**6)
    assert local(0.0) == 1 and local(62.5 / 63) == pytest.approx(0.98**62)
    assert band_warmup(4.5 / 5) == pytest.approx(0.97**4) and band(134.5 / 135) == pytest.approx(0.97**134)


# --- what moves


def test_every_phase_moves_its_own_parts_and_starts_from_what_the_algorithm_says():
    model, seen, same = make_multiband(), {}, {}

    def equal(a, b):
        pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
        return all(torch.equal(x, y) for x, y in pairs)

    class Watch(Callback):
        def on_train_start(self, trainer, module):
            self.before = snapshot(module)
            nets = (module.local.band, module.previous_band.net)
            same[int(module.tasks_seen), module.phase.name] = tuple(equal(net, module.band) for net in nets)

        def on_train_end(self, trainer, module):
            seen.setdefault((int(module.tasks_seen), module.phase.name), moved(self.before, module))

    fit_stages(make_trainer(Watch()), model, make_data(num_tasks=3))
    local = {"local.encoder", "local.band"}
    later = {
        "local_warmup": {"local.encoder"},
        "local": local,
        "band_warmup": {"band.translator"},
        "band": {"band.translator", "band.decoder"},
    }
    assert seen == {(0, "local"): local} | {(t, name): m for t in (1, 2) for name, m in later.items()}
    assert same[1, "local_warmup"][0], "the local VAE starts from the band"
    assert same[1, "band_warmup"] == (False, True), "the frozen band is the one before the task"
    assert not same[1, "band"][1]
    assert int(model.tasks_seen) == 3


# --- the prior


def test_shares_of_bits_are_means_over_the_tasks_training_images():
    model = make_multiband(num_tasks=2)
    data = make_data(num_tasks=2)
    fit_stages(make_trainer(), model, data)
    images = batch_of(data, 1, len(data.dataset("train", [1])))
    with torch.no_grad():
        expected = torch.sigmoid(2 * model.local.encoder(images.image).logits).mean(0)
    torch.testing.assert_close(model.prior.code_means[1], expected)
    assert model.prior.num_counted.flatten().tolist() == [float(t.num_images) for t in data.tasks]
    assert not torch.equal(model.prior.code_means[0], torch.full((2,), 0.5))


def test_drawn_bits_follow_the_shares_of_their_task():
    prior = CodePrior(num_tasks=2, latent_size=3, num_bits=2)
    prior.code_means.copy_(torch.tensor([[0.1, 0.6], [1.0, 0.0]]))
    torch.manual_seed(0)
    code = prior.draw(torch.arange(2).repeat(20_000))
    torch.testing.assert_close((code[0::2, 3:] > 0).float().mean(0), prior.code_means[0], atol=0.015, rtol=0)
    assert (code[1::2, 3:] == torch.tensor([1.0, -1.0])).all()
    assert code[:, :3].mean().abs() < 0.02 and code[:, :3].std() == pytest.approx(1, abs=0.02)


# --- what it promises


def test_absorbed_tasks_come_from_the_band_and_others_from_the_local_vae():
    model = ready(1)
    with torch.no_grad():
        model.local.band.decoder.net[-1].bias.fill_(9.0)
        model.band.decoder.net[-1].bias.fill_(-9.0)
    images = model.sample(4, task=torch.tensor([0, 1, 0, 1])).flatten(1).mean(1)
    assert (images > 0).tolist() == [False, True, False, True]


def test_reconstructions_are_those_of_the_most_probable_code():
    model = ready(4)
    batch = batch_of(DATA, 3)
    posterior = model.local.encoder(batch.image)
    code = torch.cat([posterior.mean, torch.where(posterior.logits > 0, 1.0, -1.0)], 1)
    assert torch.equal(model.encode(batch), code)
    assert torch.equal(model.reconstruct(batch), model.band(code, batch.task))
    error = squared_error(model.reconstruct(batch), batch.image).mean()
    assert torch.equal(model.evaluate(batch)["band_reconstruction"], error)


# --- the local half on its own


def test_the_local_vae_is_a_learner_for_replay_that_knows_all_tasks():
    data = make_data(num_tasks=2)
    learner = MultibandLocal(**make_parts(2), epochs=1)
    replay = GenerativeReplay(learner, num_tasks=2)
    fit_stages(make_trainer(), replay, data)
    counted = learner.prior.num_counted.flatten()
    assert counted[1] == data.tasks[1].num_images, "real images"
    assert counted[0] > 0, "replayed images of the first task, whose bits drift with the encoder"
    assert replay.sample(2, task=torch.tensor([0, 1])).shape == (2, 1, 8, 8)
    assert set(replay.phases(task(1))[0].turns[0].trains) == {learner.local}


def test_joint_training_counts_the_bits_of_every_task():
    data = make_data(num_tasks=2, joint=True)
    model = MultibandLocal(**make_parts(2), epochs=SHORT.first)
    fit_stages(make_trainer(), model, data)
    assert model.prior.num_counted.flatten().tolist() == [float(t.num_images) for t in data.tasks]
