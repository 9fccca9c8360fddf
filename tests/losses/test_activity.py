"""Activity penalties against torch.distributions."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributions import Bernoulli, kl_divergence

from lit_gen.losses.activity import AbsoluteActivity, KLActivity

IMAGE, ENCODER = torch.zeros(5, 1, 2, 2), nn.Identity()  # no activity penalty looks at them


def test_the_l1_norm_is_one_value_per_image():
    code = torch.tensor([[1.0, -2.0, 0.0], [0.5, 0.0, 0.0]])
    assert AbsoluteActivity()(code, IMAGE, ENCODER).tolist() == [3.0, 0.5]


def test_kl_to_rho_is_that_of_bernoulli_variables_with_the_mean_activities():
    torch.manual_seed(0)
    code = torch.rand(5, 7, dtype=torch.float64, requires_grad=True)
    found = KLActivity(rho=0.1)(code, IMAGE, ENCODER)
    wanted = kl_divergence(Bernoulli(torch.tensor(0.1, dtype=torch.float64)), Bernoulli(code.mean(0))).sum()
    torch.testing.assert_close(found, wanted)
    gradients = [torch.autograd.grad(value, code)[0] for value in (found, wanted)]
    torch.testing.assert_close(*gradients)


def test_kl_to_rho_is_zero_where_each_unit_has_the_mean_rho_whoever_is_active():
    code = torch.zeros(20, 3)
    code[[3, 7, 11], [0, 1, 2]] = 1.0
    assert KLActivity(rho=0.05)(code, IMAGE, ENCODER).abs() < 1e-6


def test_units_that_are_always_or_never_active_give_a_finite_penalty_that_pulls_back():
    code = torch.tensor([[0.0, 1.0]]).repeat(5, 1).requires_grad_()
    assert KLActivity(rho=0.05)(code, IMAGE, ENCODER).isfinite()
    near = torch.tensor([[1e-4, 1 - 1e-4]]).repeat(5, 1).requires_grad_()
    gradient = torch.autograd.grad(KLActivity(rho=0.05)(near, IMAGE, ENCODER), near)[0]
    assert (gradient[:, 0] < 0).all() and (gradient[:, 1] > 0).all()
