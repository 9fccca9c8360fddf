"""Losses against torch's distributions and closed forms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Independent, Normal, kl_divergence

from lit_gen.losses.divergence import gaussian_kl
from lit_gen.losses.reconstruction import absolute_error, bernoulli_nll, squared_error, unit_squared_error


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


def test_absolute_error_counts_pixels():
    image = torch.full((1, 2, 3, 3), 0.5)
    assert absolute_error(image, -image).item() == pytest.approx(18.0)


# --- the fast cross-entropy against torch's own


def by_torch(image, target):
    chance, goal = ((image + 1) / 2).clamp(0, 1), (target + 1) / 2
    return F.binary_cross_entropy(chance, goal, reduction="none").flatten(1).sum(1)


@pytest.mark.parametrize("edge", [0.5, 1.5])
def test_value_and_gradients_are_those_of_torch(edge):
    image = (torch.rand(6, 1, 4, 4, dtype=torch.float64) * 2 - 1) * edge
    image[0, 0, 0] = torch.tensor([-1.0, 1.0, 0.0, 0.5], dtype=torch.float64)
    target = torch.rand(6, 1, 4, 4, dtype=torch.float64) * 2 - 1
    results = []
    for function in (bernoulli_nll, by_torch):
        x, y = image.clone().requires_grad_(), target.clone().requires_grad_()
        value = function(x, y)
        value.sum().backward()
        # torch's gradient by the target is infinite at the edge, where ours is that of the cut-off logarithm.
        results.append((value.detach(), x.grad, y.grad[image.abs() < 1]))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_second_derivative_is_right():
    image = (torch.rand(2, 1, 2, 2, dtype=torch.float64) - 0.5).requires_grad_()
    target = torch.rand(2, 1, 2, 2, dtype=torch.float64) * 2 - 1
    assert torch.autograd.gradgradcheck(lambda x: bernoulli_nll(x, target), image)


def test_unit_squared_error_is_that_of_images_in_0_1():
    image, target = torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4)
    expected = (image - target).square().flatten(1).sum(1)
    torch.testing.assert_close(unit_squared_error(image * 2 - 1, target * 2 - 1), expected)
    torch.testing.assert_close(squared_error(image * 2 - 1, target * 2 - 1), 4 * expected)
