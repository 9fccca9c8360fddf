"""Likelihoods of pixels against torch's distributions, sums over levels and integrals."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Independent, Normal

from lit_gen.core.images import to_float
from lit_gen.core.types import InputError
from lit_gen.losses.likelihood import Bernoulli, DiscretisedLogistic, Gaussian
from lit_gen.losses.reconstruction import squared_error

ALL = [Bernoulli, Gaussian, DiscretisedLogistic]
LEVELS = torch.arange(256, dtype=torch.float64).view(-1, 1, 1, 1) * 2 / 255 - 1


def images(*shape, spread=0.9):
    return (torch.rand(*shape) * 2 - 1) * spread


def binary(*shape):
    return (torch.rand(*shape) < 0.5).float() * 2 - 1


def test_bernoulli_is_that_of_torch():
    image, target = images(4, 3, 5, 5), binary(4, 3, 5, 5)
    expected = -Independent(TorchBernoulli((image + 1) / 2), 3).log_prob((target + 1) / 2)
    torch.testing.assert_close(Bernoulli()(image, target), expected, rtol=1e-4, atol=1e-4)


def test_a_pixel_that_was_taken_for_certain_costs_a_finite_price():
    certain, right, wrong = -torch.ones(1, 1, 2, 2), -torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    assert Bernoulli()(certain, wrong).item() == pytest.approx(4 * math.log(2e6), rel=0.02)
    assert 0 <= Bernoulli()(certain, right).item() < 4 * 1e-6


@pytest.mark.parametrize("scale", [0.05, 3.0])
def test_gaussian_is_that_of_torch(scale):
    image, target = images(4, 3, 5, 5), images(4, 3, 5, 5)
    expected = -Independent(Normal(image, scale), 3).log_prob(target)
    torch.testing.assert_close(Gaussian(scale)(image, target), expected, rtol=1e-5, atol=1e-4)


def test_the_first_scale_of_a_gaussian_makes_it_the_squared_error():
    image, target = images(2, 4, 1, 3, 3)
    constant = 9 * 0.5 * math.log(math.pi)
    torch.testing.assert_close(Gaussian()(image, target), squared_error(image, target) + constant)


@pytest.mark.parametrize("scale", [0.002, 0.7])
def test_the_chances_of_all_levels_sum_to_one(scale):
    likelihood = DiscretisedLogistic(scale).double()
    for mean in (-1.0, -0.999, -0.3, 0.0, 0.61, 1.0):
        chances = (-likelihood(torch.full_like(LEVELS, mean), LEVELS)).exp()
        assert chances.sum().item() == pytest.approx(1, abs=1e-6)


def test_the_chance_of_a_level_is_a_difference_of_the_distribution_function():
    scale, mean = 0.3, torch.tensor(0.123, dtype=torch.float64)
    found = (-DiscretisedLogistic(scale).double()(mean.expand_as(LEVELS), LEVELS)).exp()
    ends = torch.sigmoid((LEVELS.flatten()[:-1] + 1 / 255 - mean) / scale)
    expected = torch.diff(ends, prepend=torch.zeros(1).double(), append=torch.ones(1).double())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)


def test_the_least_likely_level_has_a_finite_price_and_gradient():
    image = torch.ones(1, 1, 1, 1, requires_grad=True)
    likelihood = DiscretisedLogistic(1e-3)
    price = likelihood(image, -torch.ones(1, 1, 1, 1))
    price.sum().backward()
    assert price.item() == pytest.approx((2 - 1 / 255) / 1e-3, rel=1e-3)
    assert image.grad.item() == pytest.approx(1 / 1e-3, rel=1e-3)
    assert likelihood.scale.log_scale.grad.isfinite()


@pytest.mark.parametrize("make", [Gaussian, DiscretisedLogistic], ids=["gaussian", "logistic"])
def test_a_learned_scale_is_best_where_it_is_that_of_the_errors(make):
    """The slope is 0 there, within 6 standard errors, and leads there from both sides."""
    torch.manual_seed(0)
    image, scale = torch.zeros(10_000, 1, 1, 1).double(), 0.1
    if make is Gaussian:
        target = torch.randn_like(image) * scale
    else:
        target = torch.logit(torch.rand_like(image)) * scale

    def slopes(begin):
        likelihood = make(begin, is_learned=True).double()
        likelihood(image, target).mean().backward()
        return likelihood.scale.log_scale.grad.item()

    # The variance of one pixel's slope, the Fisher information of a log-scale: 2 and (3 + pi^2) / 9.
    error = math.sqrt((2 if make is Gaussian else (3 + math.pi**2) / 9) / 10_000)
    assert abs(slopes(scale)) < 6 * error
    assert slopes(scale * 1.5) > 6 * error and slopes(scale / 1.5) < -6 * error


def test_only_a_learned_scale_is_kept_in_checkpoints():
    assert [*Gaussian(is_learned=True).state_dict()] == ["scale.log_scale"]
    assert [*Gaussian().state_dict()] == [*Gaussian().parameters()] == [*Bernoulli().state_dict()] == []
    assert [name for name, _ in DiscretisedLogistic().named_parameters()] == ["scale.log_scale"]


@pytest.mark.parametrize("make", ALL)
def test_draws_follow_the_likelihood(make):
    """The mean price of draws is the entropy, here summed or integrated over all values of a pixel."""
    torch.manual_seed(0)
    mean = torch.full((20_000, 1, 1, 1), 0.2, dtype=torch.float64)
    likelihood = (make() if make is Bernoulli else make(0.1)).double()
    drawn = likelihood.draw(mean)
    assert drawn.min() >= -1 and drawn.max() <= 1 and drawn.mean().item() == pytest.approx(0.2, abs=0.02)
    likelihood.refuse(drawn)
    values = {Bernoulli: torch.tensor([-1.0, 1.0]).double().view(-1, 1, 1, 1), DiscretisedLogistic: LEVELS}
    if make is Gaussian:
        entropy = 0.5 * math.log(2 * math.pi * math.e * 0.1**2)
    else:
        prices = likelihood(torch.full_like(values[make], 0.2), values[make])
        entropy = ((-prices).exp() * prices).sum().item()
    assert likelihood(mean, drawn).mean().item() == pytest.approx(entropy, abs=0.03)


def test_images_without_a_likelihood_are_refused():
    with pytest.raises(InputError, match=r"data\.binarize"):
        Bernoulli().refuse(torch.tensor([[-1.0, 0.5, 1.0]]))
    with pytest.raises(InputError, match="256 levels"):
        DiscretisedLogistic().refuse(torch.tensor([0.0011]))
    Bernoulli().refuse(to_float(torch.tensor([0, 255], dtype=torch.uint8)))
    DiscretisedLogistic().refuse(to_float(torch.arange(256, dtype=torch.uint8)))
    Gaussian().refuse(torch.tensor([0.3]))
