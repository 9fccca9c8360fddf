"""WAE and AAE: the loss by hand, priors, conditions, densities fitted afterwards, the two turns."""

from __future__ import annotations

import functools
import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import make_data, make_trainer

from lit_gen.core.stages import check_stages, fit_stages
from lit_gen.core.types import Batch, ImageSpec, InputError
from lit_gen.families.aae import AAE
from lit_gen.families.wae import WAE
from lit_gen.losses.latent_penalties import MMD, CramerWold, Logarithm, SlicedWasserstein
from lit_gen.losses.reconstruction import squared_error, unit_squared_error
from lit_gen.losses.sinkhorn import SinkhornDivergence
from lit_gen.nets.latent_discriminator import LatentDiscriminator
from lit_gen.nets.mlp import DenseDecoder, DenseEncoder
from lit_gen.nets.priors import Ring, StandardNormal, UniformBall

SPEC = ImageSpec(channels=1, size=8, num_classes=4)


class Marks(nn.Module):
    """A code that is the image's first pixels, whatever the condition."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, image, condition=None):
        return image.flatten(1)[:, : self.size]


def make(family=WAE, condition="none", condition_size=0, encoder=None, **options):
    if family is WAE:
        options = {"penalty": MMD()} | options
    return family(
        encoder=encoder or DenseEncoder(1, 8, 2, (16,), condition_size),
        decoder=DenseDecoder(1, 8, 2, (16,), condition_size),
        latent_size=2,
        condition=condition,
        condition_size=condition_size,
        spec=SPEC,
        optimizer=functools.partial(torch.optim.Adam, lr=1e-2),
        **options,
    )


def make_aae(condition="none", condition_size=0, **options):
    discriminator = LatentDiscriminator(2, (16,), condition_size)
    return make(AAE, condition, condition_size, discriminator=discriminator, **options)


def batch_of(n):
    return Batch(torch.rand(n, 1, 8, 8) * 2 - 1, torch.arange(n) % 4, torch.arange(n) % 2, torch.arange(n))


@pytest.mark.parametrize(
    ("penalty", "prior"),
    [(MMD(), UniformBall()), (SlicedWasserstein(), Ring()), (SinkhornDivergence(), StandardNormal())],
    ids=["mmd", "swae", "sinkhorn"],
)
def test_the_loss_is_the_sum_of_its_terms_computed_by_hand(penalty, prior):
    wae, batch = (
        make(penalty=penalty, prior=prior, weight=3.0, reconstruction=unit_squared_error),
        batch_of(9),
    )
    torch.manual_seed(0)
    terms = wae.step(batch, 0.5)
    torch.manual_seed(0)
    code = wae.encoder(batch.image)
    expected = penalty(code, prior(9, 2, wae.device))
    error = (squared_error(wae.decoder(code), batch.image) / 4).mean()
    torch.testing.assert_close(terms["penalty"], expected)
    torch.testing.assert_close(terms["reconstruction"], error)
    torch.testing.assert_close(terms["loss"], error + 3 * expected)


def test_cramer_wold_draws_nothing():
    wae, batch = make(penalty=Logarithm(CramerWold())), batch_of(9)
    state = torch.get_rng_state()
    terms = wae.step(batch, 0.5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(terms["penalty"], (CramerWold()(wae.encoder(batch.image)) + 1e-7).log())


def test_cramer_wold_with_another_prior_is_refused():
    with pytest.raises(ValueError, match="prior=UniformBall"):
        make(penalty=Logarithm(CramerWold()), prior=UniformBall())


@pytest.mark.parametrize("prior", [UniformBall(3.0), Ring(2.0, 0.0)], ids=["ball", "ring"])
def test_samples_are_decoded_points_of_the_prior(prior):
    wae = make(prior=prior)
    torch.manual_seed(0)
    images = wae.sample(5)
    torch.manual_seed(0)
    assert torch.equal(images, wae.decode(prior(5, 2, wae.device)))


def test_the_penalty_holds_codes_against_points_of_their_own_condition():
    """Codes that follow the prior over all labels, but give the label away, do not follow it within one."""
    n = 200
    label = torch.arange(n) % 2
    drawn = torch.randn(n, 2)
    telling = drawn[drawn[:, 0].argsort()[torch.argsort(torch.argsort(label, stable=True))]]
    batch = Batch(F.pad(telling, (0, 62)).view(n, 1, 8, 8), label, label, torch.arange(n))
    assert telling[label == 0, 0].max() < telling[label == 1, 0].min()
    for penalty in (MMD(), SlicedWasserstein(200), SinkhornDivergence(0.2, 0.8)):
        values = {}
        for scale in (0.0, 3.0):
            wae = make(
                condition="label", condition_size=4, encoder=Marks(2), penalty=penalty, condition_scale=scale
            )
            torch.manual_seed(0)
            values[scale] = wae.step(batch, 0.5)["penalty"].item()
        assert values[3.0] > 2 * abs(values[0.0]), penalty


def test_a_condition_is_told_to_both_nets():
    wae = make(condition="task", condition_size=2)
    codes = torch.zeros(2, 2)
    a, b = wae.decode(codes, task=torch.tensor([0, 1]))
    assert not torch.equal(a, b)
    batch = batch_of(2)._replace(image=torch.zeros(2, 1, 8, 8))
    a, b = wae.encode(batch)
    assert not torch.equal(a, b)
    with pytest.raises(ValueError, match="condition_size=0"):
        make(condition="label", condition_size=0)


@pytest.mark.slow
def test_a_density_fitted_afterwards_takes_the_place_of_the_prior():
    wae, data = make(ex_post="gaussian", weight=0.0), make_data(num_tasks=1)
    assert [phase.name for phase in wae.phases(data.tasks[0])] == ["train", "density"]
    torch.manual_seed(0)
    before = wae.sample(3)
    torch.manual_seed(0)
    assert torch.equal(before, wae.decode(StandardNormal()(3, 2, wae.device)))
    fit_stages(make_trainer(max_epochs=1), wae, data)
    assert wae.density.num_fitted == 160
    images = data.dataset("train", [0]).__getitems__(list(range(160)))
    codes = wae.encode(Batch(*images)._replace(image=images.image.float() / 127.5 - 1))
    torch.testing.assert_close(wae.density.means[0], codes.mean(0), rtol=1e-3, atol=1e-3)
    torch.manual_seed(0)
    after = wae.sample(3)
    torch.manual_seed(0)
    assert torch.equal(after, wae.decode(wae.density.sample(3)))


def test_a_density_of_all_codes_is_refused_with_a_condition():
    with pytest.raises(ValueError, match="ex_post='gaussian'"):
        make(condition="label", condition_size=4, ex_post="gaussian")


def test_the_losses_of_the_turns_are_cross_entropies():
    aae, batch = make_aae(weight=2.0), batch_of(6)
    terms = aae.autoencoder_loss(batch, 0.5)
    code = aae.encoder(batch.image)
    logits = aae.discriminator(code)
    deceived = F.binary_cross_entropy_with_logits(logits, torch.ones(6))
    torch.testing.assert_close(terms["penalty"], deceived)
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 2 * deceived)
    torch.manual_seed(0)
    terms = aae.discriminator_loss(batch, 0.5)
    torch.manual_seed(0)
    of_prior = aae.discriminator(torch.randn(6, 2))
    expected = F.binary_cross_entropy_with_logits(logits, torch.zeros(6))
    expected = expected + F.binary_cross_entropy_with_logits(of_prior, torch.ones(6))
    torch.testing.assert_close(terms["loss"], expected)
    assert terms["accuracy"] == ((logits < 0).sum() + (of_prior > 0).sum()) / 12
    assert torch.autograd.grad(terms["loss"], aae.encoder.net[0].weight, allow_unused=True) == (None,)


def test_the_discriminator_is_told_the_condition():
    aae = make_aae("label", 4)
    logits = aae.discriminator(torch.zeros(2, 2), torch.eye(4)[:2])
    assert logits[0] != logits[1]
    assert aae.autoencoder_loss(batch_of(8), 0.5)["loss"].isfinite()


@pytest.mark.slow
def test_each_turn_trains_its_own_nets_with_its_own_optimizer():
    aae, data = make_aae(discriminator_optimizer=functools.partial(torch.optim.SGD, lr=0.0)), make_data(1)
    before = {name: value.clone() for name, value in aae.state_dict().items()}
    fit_stages(make_trainer(max_epochs=1), aae, data)
    changed = {n.split(".")[0] for n, v in aae.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {"encoder", "decoder"}
    assert {"autoencoder/loss", "discriminator/loss", "discriminator/accuracy"} <= aae.latest_terms.keys()


def test_batches_of_one_image_which_keep_no_codes_apart_are_refused_and_a_last_one_is_named(caplog):
    with pytest.raises(InputError, match=r"data\.batch_size=1.*WAE"):
        check_stages(make_trainer(), make(), make_data(batch_size=1))
    for size, said in ((79, "leaves one image alone"), (40, "")):  # of 80 images of each task
        caplog.clear()
        with caplog.at_level(logging.WARNING, "lit_gen.core.stages"):
            check_stages(make_trainer(), make(), make_data(batch_size=size))
            check_stages(make_trainer(), make_aae(), make_data(batch_size=1))  # looks at each code alone
        assert said in caplog.text and bool(said) == bool(caplog.records)
