"""The Sinkhorn divergence against exact transport, against POT's own iterations, and its closed forms."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import ot
import pytest
import torch

from lit_gen.cli.config import compose
from lit_gen.losses import sinkhorn
from lit_gen.losses.distances import squared_distances
from lit_gen.losses.sinkhorn import SinkhornDivergence


def points(*shape, seed=0, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator) * scale + shift


def exact(x, y):
    """Half the squared Wasserstein-2 distance, and its gradient by x."""
    cost = squared_distances(x, y).div(2).numpy()
    plan = torch.from_numpy(ot.emd(ot.unif(len(x)), ot.unif(len(y)), cost))
    return float((plan.numpy() * cost).sum()), plan.sum(1, keepdim=True) * x - plan @ y


def entropic_by_pot(x, y, blur):
    """OT with the entropy relative to the product measure, from POT's converged scalings."""
    a, b = ot.unif(len(x)), ot.unif(len(y))
    _, log = ot.sinkhorn(
        a, b, squared_distances(x, y).div(2).numpy(), blur**2, stopThr=1e-10, numItermax=20_000, log=True
    )
    return blur**2 * ((a * np.log(log["u"] / a)).sum() + (b * np.log(log["v"] / b)).sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_a_set_has_no_distance_from_itself_and_no_gradient(dtype):
    x = points(20, 4).to(dtype).requires_grad_()
    value = SinkhornDivergence(blur=0.1, scaling=0.7)(x, x.detach().clone())
    assert value.item() == 0
    (gradient,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(gradient, torch.zeros_like(x), atol=1e-7, rtol=0)


def test_it_tends_to_exact_transport_as_blur_falls():
    x, y = points(24, 3, scale=1.3, shift=0.4), points(24, 3, seed=1)
    goal, _ = exact(x, y)
    errors = [
        abs(SinkhornDivergence(blur, 0.98)(x, y).item() / goal - 1) for blur in (1.0, 0.5, 0.25, 0.1, 0.02)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3 < 0.1 < errors[0]


@pytest.mark.parametrize(("n", "m", "blur"), [(20, 20, 1.5), (30, 12, 0.7)], ids=["equal", "unequal"])
def test_it_is_the_divergence_of_converged_iterations(n, m, blur):
    x, y = points(n, 4, shift=0.3), points(m, 4, seed=1, scale=0.7)
    expected = entropic_by_pot(x, y, blur)
    expected -= (entropic_by_pot(x, x, blur) + entropic_by_pot(y, y, blur)) / 2
    errors = [abs(SinkhornDivergence(blur, scaling)(x, y).item() / expected - 1) for scaling in (0.9, 0.99)]
    assert errors[1] < 2e-4 < 1e-3 < errors[0] < 1e-2


@pytest.mark.parametrize("blur", [0.1, 1.0])
def test_a_shifted_set_is_half_the_squared_shift_away_at_any_blur(blur):
    """Feydy 2020: the divergence of a measure and its translate does not depend on the entropy."""
    x, shift = points(20, 3).requires_grad_(), torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    value = SinkhornDivergence(blur, 0.995)(x, x.detach() + shift)
    assert value.item() == pytest.approx(shift.square().sum().item() / 2, rel=0.02)
    (gradient,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(gradient.sum(0), -shift, rtol=1e-3, atol=1e-3)


def test_its_gradient_is_that_of_finite_differences_at_convergence():
    x, y = points(10, 3, shift=0.3).requires_grad_(), points(12, 3, seed=1).requires_grad_()
    # A fixed diameter: the number of updates must not change with the points.
    divergence = SinkhornDivergence(blur=1.0, scaling=0.998, diameter=6.0)
    gradients = torch.autograd.grad(divergence(x, y), (x, y))
    for which, gradient in enumerate(gradients):
        values = []
        for step in (1e-4, -1e-4):
            moved = [x.detach().clone(), y.detach().clone()]
            moved[which][7, 2] += step
            values.append(divergence(*moved).item())
        assert gradient[7, 2].item() == pytest.approx((values[0] - values[1]) / 2e-4, abs=1e-4)


def test_its_gradient_is_that_of_exact_transport_at_a_small_blur():
    x, y = points(16, 2, shift=0.5).requires_grad_(), points(16, 2, seed=1)
    (gradient,) = torch.autograd.grad(SinkhornDivergence(0.01, 0.99)(x, y), x)
    _, expected = exact(x.detach(), y)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=2e-3)


def test_the_gradient_comes_nearer_to_exact_transport_as_scaling_does_to_one():
    """At the sizes of a minibatch of codes, where few updates leave much of it out."""
    errors = []
    for scaling in (0.8, SinkhornDivergence().scaling, 0.99):
        x, y = points(128, 8, shift=0.3).requires_grad_(), points(128, 8, seed=1)
        (gradient,) = torch.autograd.grad(SinkhornDivergence(scaling=scaling)(x, y), x)
        _, expected = exact(x.detach(), y)
        errors.append(float((gradient - expected).norm() / expected.norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1.25 * errors[1] and errors[1] < 0.5, errors


@pytest.mark.parametrize("model", ["sinkhorn_ae.penalty", "e2e_sae.divergence"])
def test_configurations_have_the_default_settings(model):
    name, _, key = model.partition(".")
    settings = compose("train", [f"model={name}"]).config["model"][key]
    assert settings.pop("_target_").endswith("SinkhornDivergence")
    assert settings == dataclasses.asdict(SinkhornDivergence())


@pytest.mark.parametrize(("n", "m"), [(16, 16), (15, 15), (13, 10)], ids=["equal", "odd", "unequal"])
def test_the_unbiased_value_is_made_of_halves_and_what_each_has_within_itself_cancels(n, m):
    x, y = points(n, 3, shift=0.5).requires_grad_(), points(m, 3, seed=1).requires_grad_()
    (x1, x2), (y1, y2) = ((part[::2], part[1::2]) for part in (x, y))
    plain, unbiased = (SinkhornDivergence(0.2, 0.8, 8.0, unbiased=flag) for flag in (False, True))
    expected = (plain(x1, y1) + plain(x2, y2) - plain(x1, x2) - plain(y1, y2)) / 2
    torch.testing.assert_close(unbiased(x, y), expected)
    ours, goal = (torch.autograd.grad(value, (x, y)) for value in (unbiased(x, y), expected))
    torch.testing.assert_close(ours, goal)


def test_minibatches_are_pulled_inwards_unless_unbiased():
    """The gradient by the scale of codes that are drawn from the prior, over what it is from twice as far."""

    def pull(scale, unbiased):
        x, y = points(40, 128, 8).mul_(scale).requires_grad_(), points(40, 128, 8, seed=1)
        value = SinkhornDivergence(scaling=0.8, unbiased=unbiased)(x, y).mean()
        return float((torch.autograd.grad(value, x)[0] * x.detach()).sum() / scale)

    assert pull(1, False) > 0.2 * pull(2, False)
    assert abs(pull(1, True)) < 0.02 * pull(2, True)


def test_unbiased_sets_in_a_batch_are_independent_and_single_points_have_the_plain_value():
    x, y = points(2, 3, 9, 4), points(2, 3, 9, 4, seed=1)
    plain, unbiased = (SinkhornDivergence(0.2, 0.8, 8.0, unbiased=flag) for flag in (False, True))
    one_by_one = torch.stack([unbiased(a, b) for a, b in zip(x.flatten(0, 1), y.flatten(0, 1), strict=True)])
    torch.testing.assert_close(unbiased(x, y), one_by_one.view(2, 3))
    assert torch.equal(unbiased(x[..., :1, :], y), plain(x[..., :1, :], y))


@pytest.mark.parametrize("m", [15, 9], ids=["equal", "unequal"])
def test_sets_in_a_batch_are_independent(m):
    x, y = points(2, 3, 15, 4).requires_grad_(), points(2, 3, m, 4, seed=1, scale=2.0).requires_grad_()
    divergence = SinkhornDivergence(blur=0.2, scaling=0.8, diameter=8.0)
    together = divergence(x, y)
    one_by_one = torch.stack(
        [divergence(a, b) for a, b in zip(x.flatten(0, 1), y.flatten(0, 1), strict=True)]
    )
    torch.testing.assert_close(together, one_by_one.view(2, 3))
    weights = points(2, 3, seed=5)
    for a, b in zip(
        torch.autograd.grad((weights * together).sum(), (x, y)),
        torch.autograd.grad((weights * one_by_one.view(2, 3)).sum(), (x, y)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("n", [40, 300], ids=["at once", "one by one"])
def test_updates_by_exponentials_and_by_logarithms_are_the_same(n, monkeypatch):
    x, y = points(n, 6, shift=0.5).requires_grad_(), points(n, 6, seed=1)
    divergence = SinkhornDivergence(blur=0.1, scaling=0.7)
    fast = divergence(x, y)
    monkeypatch.setattr(sinkhorn, "_by_exponentials", lambda *_: None)
    slow = divergence(x, y)
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(*(torch.autograd.grad(value, x)[0] for value in (fast, slow)))


def test_sets_further_apart_than_the_diameter_says_are_coupled_by_logarithms(monkeypatch):
    used = []
    slow = sinkhorn._by_logarithms
    monkeypatch.setattr(sinkhorn, "_by_logarithms", lambda *a: used.append(1) or slow(*a))
    x, y = points(12, 3).float(), points(12, 3, seed=1, shift=50.0).float()
    near = SinkhornDivergence(blur=0.05, scaling=0.9)(x, y)
    assert not used
    far = SinkhornDivergence(blur=0.05, scaling=0.9, diameter=0.01)(x, y)
    assert used
    assert far.item() == pytest.approx(near.item(), rel=0.01)


def test_temperatures_are_those_of_geomloss():
    """Its list: diameter^2, then exp(arange(2 log diameter, 2 log blur, 2 log scaling)), then blur^2."""
    nothing = torch.zeros(1, 1)
    for blur, scaling, diameter in (
        (0.05, 0.5, 3.0),
        (0.01, 0.9, 7.0),
        (1e-5, 0.95, 0.01),
        (0.05, 0.95, 0.01),
    ):
        falling = np.arange(2 * np.log(diameter), 2 * np.log(blur), 2 * np.log(scaling))
        expected = [diameter**2, *np.exp(falling), blur**2]
        found = SinkhornDivergence(blur, scaling, diameter).temperatures(nothing, nothing)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert len(found) == 2  # the published 0.05 against a diameter of 0.01 does not anneal


def test_under_mixed_precision_the_result_is_that_of_32_bits():
    x, y = (points(30, 4, seed=seed).to(torch.bfloat16).requires_grad_() for seed in (0, 1))
    divergence = SinkhornDivergence(0.1, 0.7)
    with torch.autocast("cpu", torch.bfloat16):
        value = divergence(x, y)
    assert value.dtype == torch.float32
    assert torch.equal(value, divergence(x.float(), y.float()))
    assert torch.autograd.grad(value, x)[0].dtype == torch.bfloat16


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_points_that_are_not_finite_give_a_value_that_is_not(bad):
    x, y = points(6, 2), points(6, 2, seed=1)
    x[0, 0] = bad
    assert not SinkhornDivergence()(x, y).isfinite()


def test_sets_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match=r"\[5, 2\] against \[5, 3\]"):
        SinkhornDivergence()(torch.zeros(5, 2), torch.zeros(5, 3))
