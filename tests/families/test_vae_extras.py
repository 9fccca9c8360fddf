"""Free bits, the importance-weighted bound and likelihoods of the VAE, where closed forms are known."""

from __future__ import annotations

import functools
import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from lit_gen.core.types import Batch, HasPosterior, ImageSpec, InputError, Likelihood
from lit_gen.families.samplers import LatentSampler
from lit_gen.families.vae import VAE
from lit_gen.losses.divergence import (
    free_bits,
    gaussian_kl_by_dimension,
    gaussian_log_ratio,
    importance_bound,
)
from lit_gen.losses.likelihood import Bernoulli, Gaussian
from lit_gen.losses.reconstruction import squared_error

SCALE = 0.6
# Orthogonal columns, so that the true posterior's dimensions are independent.
WEIGHT = torch.tensor([[1.0, 0.5], [1.0, -0.5], [-0.5, 1.0], [0.5, 1.0]]).double()
MIDDLE = torch.tensor([0.1, -0.2, 0.3, 0.0]).double()


class Encoder(nn.Module):
    """The true posterior of x = WEIGHT z + MIDDLE + SCALE noise, or one that is off."""

    def __init__(self, shift=0.0, stretch=1.0):
        super().__init__()
        variance = 1 / (1 + WEIGHT.square().sum(0) / SCALE**2)
        self.map = variance[:, None] * WEIGHT.T / SCALE**2
        self.variance, self.shift = variance * stretch, shift

    def forward(self, image, condition=None):
        mean = (image.flatten(1) - MIDDLE) @ self.map.T + self.shift
        return torch.cat([mean, self.variance.log().expand_as(mean)], 1)


class Decoder(nn.Module):
    def forward(self, code, condition=None):
        image = code @ WEIGHT.T + MIDDLE
        if condition is not None:
            image = image + condition.sum(1, keepdim=True)
        return image.view(-1, 1, 2, 2)


def make(encoder=None, **options):
    return VAE(
        encoder=encoder or Encoder(),
        decoder=Decoder(),
        latent_size=2,
        spec=ImageSpec(1, 2, 3),
        optimizer=functools.partial(torch.optim.Adam, lr=1e-2),
        **{"reconstruction": Gaussian(SCALE)} | options,
    ).double()


def batch_of(n, image=None):
    image = model_of_images().sample((n,)) if image is None else image
    return Batch(image.view(-1, 1, 2, 2), torch.arange(n) % 3, torch.zeros(n).long(), torch.arange(n))


def model_of_images():
    covariance = WEIGHT @ WEIGHT.T + SCALE**2 * torch.eye(4).double()
    return MultivariateNormal(MIDDLE, covariance)


def evidence(batch):
    return model_of_images().log_prob(batch.image.flatten(1))


@pytest.mark.parametrize("draws", [1, 2, 13])
def test_with_the_true_posterior_any_number_of_draws_gives_the_evidence(draws, monkeypatch):
    monkeypatch.setattr("lit_gen.families.vae._DECODED_AT_ONCE", 28)  # 13 draws are 4 and 4 and 4 and 1
    batch, vae = batch_of(7), make()
    assert isinstance(vae, Likelihood) and isinstance(vae, HasPosterior)
    torch.testing.assert_close(vae.log_likelihood(batch, draws), evidence(batch), rtol=1e-6, atol=1e-6)


def test_with_another_posterior_many_draws_come_close_and_one_is_the_elbo():
    torch.manual_seed(0)
    batch, vae = batch_of(3), make(Encoder(shift=0.3, stretch=1.5))
    tight = vae.log_likelihood(batch, 20_000)
    torch.testing.assert_close(tight, evidence(batch), rtol=0, atol=0.02)
    distributions = [
        Independent(Normal(posterior.mean, (posterior.log_var / 2).exp()), 1)
        for posterior in (vae.posterior(batch), make().posterior(batch))
    ]
    many = batch_of(3000, image=batch.image.repeat(1000, 1, 1, 1))
    single = vae.log_likelihood(many, 1).view(1000, 3)
    error = 6 * single.std(0) / 1000**0.5
    gap = (single.mean(0) - (evidence(batch) - kl_divergence(*distributions))).abs()
    assert (gap < error).all() and (error < 0.5).all()


def test_the_importance_weighted_bound_grows_from_the_elbo_to_the_evidence():
    """Burda et al. 2016, theorem 1, with 6 standard errors of room."""
    torch.manual_seed(0)
    batch = batch_of(4000, image=model_of_images().sample((1,)).expand(4000, 4))
    bounds, errors = [], []
    for count in (1, 2, 5, 50, 500):
        vae = make(Encoder(shift=0.4), importance_samples=count)
        codes_of = vae.posterior(batch)
        code = codes_of.mean + (codes_of.log_var / 2).exp() * torch.randn(count, 4000, 2, dtype=torch.float64)
        weights = gaussian_log_ratio(code, *codes_of) - vae._errors(code, batch.image, None)
        bound = importance_bound(weights)
        bounds.append(bound.mean().item())
        errors.append(bound.std().item() / 4000**0.5)
    elbo = -make(Encoder(shift=0.4)).step(batch, 1.0)["loss"].item()
    assert bounds[0] == pytest.approx(elbo, abs=6 * errors[0])
    for (low, high), error in zip(pairwise(bounds), errors[1:], strict=True):
        assert high > low + 6 * error
    assert bounds[-1] < evidence(batch)[0].item()
    assert bounds[-1] == pytest.approx(evidence(batch)[0].item(), abs=0.02)


def test_a_step_with_several_samples_is_the_bound_by_hand():
    batch, vae = batch_of(6), make(Encoder(shift=0.4), importance_samples=3)
    torch.manual_seed(1)
    terms = vae.step(batch, 0.0)
    torch.manual_seed(1)
    mean, log_var = vae.posterior(batch)
    code = mean + (log_var / 2).exp() * torch.randn(3, 6, 2, dtype=torch.float64)
    prior = Independent(Normal(torch.zeros(2).double(), 1.0), 1)
    posterior = Independent(Normal(mean, (log_var / 2).exp()), 1)
    pixels = Independent(Normal(code @ WEIGHT.T + MIDDLE, SCALE), 1).log_prob(batch.image.flatten(1))
    weights = pixels + prior.log_prob(code) - posterior.log_prob(code)
    torch.testing.assert_close(
        terms["loss"], -(weights.logsumexp(0) - math.log(3)).mean(), rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(terms["reconstruction"], -pixels.mean(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        terms["kl"], kl_divergence(posterior, prior.expand((6,))).mean(), rtol=1e-6, atol=1e-6
    )


def test_free_bits_are_the_formula():
    kl = torch.tensor([[0.1, 0.9, 0.0], [0.3, 1.1, 0.0]], requires_grad=True)
    cost = free_bits(kl, 0.5)
    assert cost.item() == pytest.approx(0.5 + 1.0 + 0.5)
    cost.backward()
    assert kl.grad.tolist() == [[0, 0.5, 0], [0, 0.5, 0]]
    assert free_bits(kl, 0.0).item() == pytest.approx(kl.sum(1).mean().item())


def test_free_bits_change_what_is_minimised_and_not_what_is_logged():
    batch = batch_of(6)
    results = []
    for least in (0.0, 2.0):
        torch.manual_seed(0)
        results.append(make(beta=0.5, free_bits=least).step(batch, 1.0))
    plain, free = results
    torch.testing.assert_close(plain["kl"], free["kl"])
    kl = gaussian_kl_by_dimension(*make().posterior(batch)).mean(0)
    extra = 0.5 * (kl.clamp(min=2.0) - kl).sum()
    assert extra > 0
    torch.testing.assert_close(free["loss"] - plain["loss"], extra)


def test_a_likelihood_of_images_needs_one_of_pixels():
    with pytest.raises(InputError, match="squared_error"):
        make(reconstruction=functools.partial(squared_error)).log_likelihood(batch_of(2), 1)
    with pytest.raises(InputError, match=r"data\.binarize"):
        make(reconstruction=Bernoulli()).log_likelihood(batch_of(2), 1)
    with pytest.raises(ValueError, match="pixels=draw"):
        make(reconstruction=squared_error).sampler = LatentSampler(pixels="draw")


@pytest.mark.parametrize("option", [{"beta": 2.0}, {"warmup": 0.1}, {"free_bits": 0.2}], ids=str)
def test_the_importance_weighted_bound_has_no_kl_to_weigh(option):
    with pytest.raises(ValueError, match="importance_samples=2"):
        make(importance_samples=2, **option)


def test_drawn_pixels_are_those_of_the_likelihood():
    vae = VAE(ImageSpec(1, 2, 3), latent_size=2, reconstruction=Bernoulli())
    vae.sampler = LatentSampler(pixels="draw")
    assert set(vae.sample(50).unique().tolist()) == {-1.0, 1.0}
    batch = batch_of(3, image=torch.rand(3, 4))
    assert (vae.reconstruct(batch).abs() < 1).all(), "reconstructions are means"


def test_a_condition_is_told_to_every_draw():
    class Told(Encoder):
        def forward(self, image, condition=None):
            return super().forward(image - condition.sum(1).view(-1, 1, 1, 1))

    vae = make(Told(), condition="label", condition_size=3)
    batch = batch_of(6)
    batch = batch._replace(label=torch.tensor([0, -1, 2, -1, 1, -1]))
    labelled = (batch.label >= 0).double()
    shifted = batch._replace(image=batch.image - labelled.view(-1, 1, 1, 1))
    torch.testing.assert_close(vae.log_likelihood(batch, 4), evidence(shifted), rtol=1e-6, atol=1e-6)
