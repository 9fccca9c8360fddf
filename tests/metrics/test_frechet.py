"""Frechet distance against closed forms and torch-fidelity."""

import logging
import math

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from lit_gen.metrics.frechet import FrechetDistance, add_to_moments, frechet_distance, merge_moments


def features(count, size, seed, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5
    return torch.randn(count, size, generator=generator, dtype=torch.float64) @ mix + offset


def fid(real, fake, block=300):
    metric = FrechetDistance(real.shape[1])
    for part in real.split(block):
        metric.update(part, real=True)
    for part in fake.split(block):
        metric.update(part, real=False)
    return metric.compute()["fid"].item()


def torch_fidelity(real, fake):
    statistics = [fid_features_to_statistics(each.double()) for each in (fake, real)]
    return fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]


def test_distance_of_commuting_covariances_is_exact():
    a, b = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([4.0, 0.0, 1.0]).double()
    mean = torch.tensor([1.0, 2.0, 2.0]).double()
    expected = 9 + (a.sqrt() - b.sqrt()).square().sum()
    for first, second in ((a, b), (b, a)):  # the second order has no Cholesky factor
        distance = frechet_distance(mean, first.diag(), torch.zeros_like(mean), second.diag())
        assert distance.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("size, offset", [(4, 0.0), (84, 0.0), (84, 50.0)])
def test_agrees_with_torch_fidelity(size, offset):
    real = features(12 * size, size, 1, offset).float()
    fake = features(10 * size, size, 2, offset).float() * 1.1
    assert fid(real, fake) == pytest.approx(torch_fidelity(real, fake), rel=1e-6)


def test_a_large_mean_costs_no_digits():
    real, fake = features(500, 6, 1), features(500, 6, 2)
    # Shifted features keep 1e-10 of their spread; sums of raw squares would keep 1e-4 of it.
    assert fid(real + 2**20, fake + 2**20) == pytest.approx(fid(real, fake), rel=1e-8)


def test_a_set_and_itself_are_at_distance_zero_also_with_dead_features():
    real = features(100, 12, 1)
    real[:, 3] = 0
    real[:, 4] = real[:, 5]
    assert 0 <= fid(real, real) < 1e-9


def test_fewer_images_than_features_agree_with_the_definition():
    real, fake = features(12, 20, 1), features(15, 20, 2)
    centred = [(each - each.mean(0)) / (len(each) - 1) ** 0.5 for each in (real, fake)]
    # tr (S1 S2)^(1/2) is the nuclear norm of the cross product of the centred features.
    trace = torch.linalg.svdvals(centred[0] @ centred[1].T).sum()
    expected = (
        (real.mean(0) - fake.mean(0)).square().sum() + sum(c.square().sum() for c in centred) - 2 * trace
    )
    assert fid(real, fake) == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("condition", [1, 1e6, 1e12])
def test_commuting_covariances_keep_ten_digits_at_any_condition(condition):
    generator = torch.Generator().manual_seed(0)
    size = 84
    turn = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    a = torch.logspace(0, -math.log10(condition), size, dtype=torch.float64)
    dead = a.clone()
    dead[::3] = 0
    for b in (a, a.flip(0), a[torch.randperm(size, generator=generator)], dead):
        expected = (a.sqrt() - b.sqrt()).square().sum()
        first, second = ((turn * each) @ turn.T for each in (a, b))
        zero = torch.zeros_like(a)
        for one, other in ((first, second), (second, first)):
            error = frechet_distance(zero, one, zero, other) - expected
            assert abs(error) <= 1e-10 * (a.sum() + b.sum())


def test_one_wide_feature_hides_none_of_the_others():
    torch.manual_seed(0)
    real, fake, wide = torch.randn(2000, 84), torch.randn(2000, 84), torch.randn(2000, 1) * 1e4
    real, fake = (torch.cat((each, wide), dim=1).double() for each in (real, fake))
    # The definition from the features themselves: factors of QR decompositions, no covariance.
    factors = [torch.linalg.qr(each - each.mean(0)).R / 1999**0.5 for each in (real, fake)]
    trace = torch.linalg.svdvals(factors[0] @ factors[1].T).sum()
    spread = sum(each.square().sum() for each in factors)
    expected = (real.mean(0) - fake.mean(0)).square().sum() + spread - 2 * trace
    assert fid(real, fake) == pytest.approx(expected.item(), abs=1e-10 * spread.item())
    # Eigenvalues of the covariances' product would be lost: 168.18.
    assert fid(real, fake) == pytest.approx(2.01657, abs=1e-5)


def test_a_steep_spectrum_is_at_distance_zero_of_itself():
    size = 256
    real = features(3 * size, size, 1) @ torch.diag(torch.arange(1, size + 1).double() ** -1.25)
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))
    assert fid(real, real[order]) < 1e-12


def moments(features):
    held = features.new_zeros(features.shape[1] + 2, features.shape[1])
    add_to_moments(held, features)
    return held


def test_merged_moments_are_those_of_the_union():
    union = features(100, 5, 1)
    parts = torch.stack([moments(part) for part in union.split([1, 60, 39])] + [torch.zeros(7, 5).double()])
    torch.testing.assert_close(merge_moments(parts[[3, 1, 0, 2]]), moments(union))
    np.testing.assert_allclose(merge_moments(parts)[2:] / 99, np.cov(union.numpy(), rowvar=False))


def test_few_images_warn_once_and_too_few_give_nan(caplog):
    metric = FrechetDistance(4)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            metric.reset()
            metric.update(features(39, 4, 1), real=True)
            metric.update(features(40, 4, 2), real=False)
            assert metric.compute()["fid"].isfinite()
        assert len(caplog.records) == 1
        metric.reset()
        metric.update(features(1, 4, 1), real=True)
        assert metric.compute()["fid"].isnan()
    assert "1 real and 0 generated" in caplog.records[-1].getMessage()


def test_wrong_width_is_refused():
    with pytest.raises(ValueError, match=r"\[B, 4\]"):
        FrechetDistance(4).update(torch.zeros(3, 5), real=True)
