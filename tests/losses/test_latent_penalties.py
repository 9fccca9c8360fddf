"""Distances of codes from a prior against their closed forms, double loops and numerical integrals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import hyp1f1

from lit_gen.losses.latent_penalties import MMD, CramerWold, Logarithm, SlicedWasserstein, _profile
from lit_gen.losses.sinkhorn import SinkhornDivergence

PENALTIES = [MMD(), SlicedWasserstein(), CramerWold(), SinkhornDivergence(blur=0.5, scaling=0.8)]
NAMES = [type(penalty).__name__ for penalty in PENALTIES]


def normal(n, size, seed=0):
    return torch.randn(n, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("penalty", PENALTIES, ids=NAMES)
def test_it_is_small_on_the_prior_and_grows_with_a_shift(penalty):
    torch.manual_seed(0)
    codes, drawn = normal(400, 2), normal(400, 2, seed=1)
    values = [penalty(codes + shift, drawn).item() for shift in (0.0, 0.5, 1.0, 1.5)]
    assert values == sorted(values)
    assert abs(values[0]) < 0.15 * values[2]


def test_mmd_is_that_of_a_double_loop():
    codes, drawn = normal(5, 3).double() + 0.4, normal(7, 3, seed=1).double()
    mmd = MMD(sigma=1.5, scales=(0.2, 1.0))

    def kernel(a, b):
        base = 2 * 3 * 1.5**2
        return sum(c / (c + float((a - b).square().sum())) for c in (0.2 * base, base))

    def within(x):
        pairs = [kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
        return sum(pairs) / len(pairs)

    between = sum(kernel(a, b) for a in codes for b in drawn) / 35
    assert mmd(codes, drawn).item() == pytest.approx(within(codes) + within(drawn) - 2 * between, rel=1e-10)


def test_mmd_is_unbiased_and_defined_for_one_code():
    values = [MMD()(normal(20, 4, seed=s), normal(20, 4, seed=1000 + s)).item() for s in range(300)]
    error = np.std(values) / math.sqrt(len(values))
    assert (
        abs(np.mean(values)) < 3 * error < 0.1 * abs(MMD()(normal(20, 4) + 1, normal(20, 4, seed=1)).item())
    )
    assert MMD()(torch.zeros(1, 4), torch.zeros(1, 4)).isfinite()


@pytest.mark.parametrize("size", [1, 5])
def test_sliced_wasserstein_of_a_shifted_set_is_known(size):
    torch.manual_seed(0)
    codes, shift = normal(50, size), torch.arange(1.0, size + 1)
    found = SlicedWasserstein(num_projections=8_000)(codes + shift, codes)
    assert found.item() == pytest.approx(shift.square().sum().item() / size, rel=0.03)


def test_sliced_wasserstein_in_one_dimension_is_wasserstein():
    ot = pytest.importorskip("ot")
    codes, drawn = normal(40, 1) * 2, normal(40, 1, seed=1)
    expected = ot.wasserstein_1d(codes.flatten().numpy(), drawn.flatten().numpy(), p=2)
    assert SlicedWasserstein(1)(codes, drawn).item() == pytest.approx(float(expected), rel=1e-4)


def test_sliced_wasserstein_needs_as_many_points_as_codes():
    with pytest.raises(ValueError, match=r"\[4, 2\] against \[5, 2\]"):
        SlicedWasserstein()(torch.zeros(4, 2), torch.zeros(5, 2))


def test_cramer_wold_in_one_dimension_is_the_integral():
    """2 sqrt(pi) times the squared L2 distance of the smoothed sample from the smoothed normal density."""
    codes = normal(30, 1).double() * 0.7 + 0.5
    gamma = (4 / (3 * 30)) ** 0.4
    grid = torch.linspace(-12, 12, 20_001, dtype=torch.float64)

    def density(centre, variance):
        return (-(grid - centre).square() / (2 * variance)).exp() / math.sqrt(2 * math.pi * variance)

    difference = torch.stack([density(code, gamma) for code in codes.flatten()]).mean(0) - density(
        0, 1 + gamma
    )
    expected = 2 * math.sqrt(math.pi) * torch.trapezoid(difference.square(), grid)
    assert CramerWold()(codes).item() == pytest.approx(expected.item(), rel=1e-6)


def test_cramer_wold_in_two_dimensions_is_the_mean_over_lines():
    codes = normal(25, 2).double() + 0.3
    gamma = (4 / (3 * 25)) ** 0.4
    angles = torch.arange(720, dtype=torch.float64) * math.pi / 720
    lines = codes @ torch.stack([angles.cos(), angles.sin()])  # [25, 720]

    def product(difference, variance):
        """Integral of the product of two normal densities, times 2 sqrt(pi)."""
        return (-difference.square() / (2 * variance)).exp() * math.sqrt(2 / variance)

    among = product(lines[:, None] - lines[None], 2 * gamma).mean()
    to_prior = product(lines, 1 + 2 * gamma).mean()
    expected = among - 2 * to_prior + product(torch.zeros((), dtype=torch.float64), 2 * (1 + gamma))
    assert CramerWold()(codes).item() == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize(("size", "error"), [(1, 1e-9), (2, 1e-9), (3, 0.093), (8, 0.023), (64, 0.0023)])
def test_cramer_wold_profile_is_kummers_function(size, error):
    s = torch.linspace(0, 200, 4001, dtype=torch.float64)
    expected = torch.from_numpy(hyp1f1(0.5, size / 2, -s.numpy()))
    torch.testing.assert_close(_profile(s, size), expected, rtol=0, atol=error)


def test_cramer_wold_is_the_published_formula_in_many_dimensions():
    codes, size, count = normal(64, 10), 10, 64
    gamma, k = (4 / (3 * count)) ** 0.4, 1 / (2 * size - 3)
    squared = torch.cdist(codes, codes).square()
    expected = (
        (1 + gamma) ** -0.5
        + (gamma + k * squared).rsqrt().mean()
        - 2 * (gamma + 0.5 + k * codes.square().sum(1)).rsqrt().mean()
    )
    torch.testing.assert_close(CramerWold()(codes), expected, rtol=1e-4, atol=1e-6)


def test_the_logarithm_has_a_floor_and_hands_points_on():
    codes, drawn = normal(30, 4) + 1, normal(30, 4, seed=1)
    assert Logarithm(MMD())(codes, drawn).item() == pytest.approx(
        math.log(MMD()(codes, drawn) + 1e-7), rel=1e-5
    )
    negative = next(
        (a, b) for s in range(50) if MMD()(a := normal(30, 4, seed=s), b := normal(30, 4, seed=99 + s)) < 0
    )
    assert Logarithm(MMD(), floor=1e-3)(*negative).item() == pytest.approx(math.log(1e-3))
    assert Logarithm(MMD()).takes_samples and not Logarithm(CramerWold()).takes_samples
