"""Losses against torch's distributions and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from lit_gen.losses.divergence import gaussian_kl
from lit_gen.losses.reconstruction import absolute_error, bernoulli_nll, squared_error


def test_gaussian_kl_is_that_of_torch():
    mean, log_var = torch.randn(7, 5), torch.randn(7, 5)
    posterior = Independent(Normal(mean, (0.5 * log_var).exp()), 1)
    prior = Independent(Normal(torch.zeros(7, 5), 1.0), 1)
    torch.testing.assert_close(gaussian_kl(mean, log_var), kl_divergence(posterior, prior))


def test_squared_error_is_a_gaussian_log_likelihood_up_to_a_constant():
    image, target = torch.rand(2, 4, 3, 5, 5) * 2 - 1
    likelihood = Independent(Normal(image, 0.5**0.5), 3).log_prob(target)
    constant = -0.5 * 75 * torch.log(torch.tensor(torch.pi))
    torch.testing.assert_close(squared_error(image, target), constant - likelihood)


def test_bernoulli_nll_is_that_of_torch_on_binary_targets():
    image = torch.rand(4, 1, 5, 5) * 1.8 - 0.9
    target = (torch.rand(4, 1, 5, 5) < 0.5).float() * 2 - 1
    expected = -Independent(Bernoulli((image + 1) / 2), 3).log_prob((target + 1) / 2)
    torch.testing.assert_close(bernoulli_nll(image, target), expected)


@pytest.mark.parametrize("loss", [squared_error, absolute_error, bernoulli_nll])
def test_losses_give_one_value_per_image_that_does_not_depend_on_the_others(loss):
    image, target = torch.rand(2, 4, 3, 5, 5) * 2 - 1
    whole = loss(image, target)
    assert whole.shape == (4,)
    torch.testing.assert_close(whole[2:3], loss(image[2:3], target[2:3]))


def test_absolute_error_counts_pixels():
    image = torch.full((1, 2, 3, 3), 0.5)
    assert absolute_error(image, -image).item() == pytest.approx(18.0)
