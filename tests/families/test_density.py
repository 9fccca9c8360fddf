"""The density that is fitted to codes, against numpy and scikit-learn."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from lit_gen.core.types import Batch, Task
from lit_gen.families import density as latent_density
from lit_gen.families.density import LatentDensity

TASK = Task(0, "all", (4,), 0, 4)


def clusters(count=600, scale=1.0):
    """Three Gaussians in the plane, far apart, of unequal weight and shape."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 9.0]])
    spread = torch.tensor([[[1.0, 0.0], [0.5, 0.3]], [[0.5, 0.0], [0.0, 1.0]], [[0.2, 0.0], [-0.4, 0.7]]])
    kind = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), count, replacement=True, generator=generator)
    noise = torch.randn(count, 2, generator=generator)
    return scale * (centre[kind] + (spread[kind] @ noise[..., None])[..., 0]), kind


def fitted(codes, kind="mixture", num_components=3, seed=0, index=None, chunk=70):
    density = LatentDensity(codes.shape[1], kind, num_components)
    index = torch.arange(len(codes)) if index is None else index
    for part, places in zip(codes.split(chunk), index.split(chunk), strict=True):
        density.collect(part, places)
    torch.manual_seed(seed)
    density.fit()
    return density


def theirs(density):
    """scikit-learn's mixture with our parameters."""
    mixture = GaussianMixture(len(density.weights))
    mixture.weights_, mixture.means_ = density.weights.double().numpy(), density.means.double().numpy()
    factors = density.factors.double().numpy()
    mixture.covariances_ = factors @ factors.transpose(0, 2, 1)
    mixture.precisions_cholesky_ = np.linalg.inv(factors).transpose(0, 2, 1)
    return mixture


def test_a_gaussian_has_the_mean_and_covariance_of_the_codes():
    torch.manual_seed(0)
    codes = torch.randn(200, 5) @ torch.randn(5, 5) + 3
    density = fitted(codes, "gaussian")
    found = (density.factors @ density.factors.mT)[0]
    np.testing.assert_allclose(density.means[0], codes.double().numpy().mean(0), rtol=1e-6)
    np.testing.assert_allclose(found, np.cov(codes.double().numpy().T, ddof=0), rtol=1e-4, atol=1e-5)
    assert int(density.num_fitted) == 200


def test_a_mixture_finds_the_clusters():
    codes, kind = clusters()
    density = fitted(codes)
    order = torch.cdist(torch.stack([codes[kind == k].mean(0) for k in range(3)]), density.means).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    for k, component in enumerate(order):
        own = codes[kind == k].double()
        torch.testing.assert_close(
            density.weights[component], (kind == k).float().mean(), rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(density.means[component], own.mean(0).float(), rtol=1e-3, atol=1e-3)
        covariance = density.factors[component] @ density.factors[component].T
        torch.testing.assert_close(covariance, own.T.cov(correction=0).float(), rtol=1e-2, atol=1e-3)


def test_its_samples_are_those_of_scikit_learn():
    codes, _ = clusters()
    density = fitted(codes, num_components=4)
    mixture = theirs(density)
    mean = torch.einsum("k,kz->z", density.weights, density.means).double()
    square = torch.einsum("k,kzy->zy", density.weights, density.factors @ density.factors.mT).double()
    square += torch.einsum("k,kz,ky->zy", density.weights, density.means, density.means)
    torch.manual_seed(0)
    ours = density.sample(20_000).double()
    assert (ours.mean(0) - mean).abs().max() < 4 * (ours.std(0) / 20_000**0.5).max()
    torch.testing.assert_close(ours.T @ ours / 20_000, square, rtol=0.02, atol=0.1)
    # The mean log-density of draws is minus the entropy, which neither mean nor covariance tells.
    mixture.random_state = 0
    entropy = mixture.score_samples(mixture.sample(20_000)[0])
    found = mixture.score_samples(ours)
    assert abs(found.mean() - entropy.mean()) < 4 * (found.var() / 20_000 + entropy.var() / 20_000) ** 0.5


@pytest.mark.parametrize("kind", ["none", "gaussian", "mixture"])
def test_before_the_fit_codes_come_from_a_standard_normal(kind):
    density = LatentDensity(4, kind)
    torch.manual_seed(0)
    draws = density.sample(20_000)
    assert draws.mean(0).abs().max() < 4 / 20_000**0.5
    torch.testing.assert_close(draws.T @ draws / 20_000, torch.eye(4), rtol=0, atol=0.04)
    assert not density.num_fitted


@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_order_of_arrival_and_size_of_batches_change_nothing(kind):
    codes, _ = clusters()
    order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(1))
    first, second = fitted(codes, kind), fitted(codes[order], kind, index=order, chunk=33)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_the_same_seed_gives_the_same_mixture_and_the_state_dict_is_all_of_it():
    codes, _ = clusters()
    density = fitted(codes, num_components=6)
    again, other = LatentDensity(2, "mixture", 6), fitted(codes, num_components=6, seed=1)
    again.load_state_dict(fitted(codes, num_components=6).state_dict(), strict=True)
    draws = []
    for each in (density, again, other):
        torch.manual_seed(5)
        draws.append(each.sample(9))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_a_mixture_of_many_codes_looks_at_an_even_part_of_them(monkeypatch):
    codes, _ = clusters()
    monkeypatch.setattr(latent_density, "_MOST_CODES", 200)
    thinned, of_all = fitted(codes), fitted(codes, "gaussian")
    assert (int(thinned.num_fitted), int(of_all.num_fitted)) == (200, 600)
    for name, value in fitted(codes[::3]).state_dict().items():
        assert torch.equal(value, thinned.state_dict()[name]), name


@pytest.mark.parametrize(("kind", "scale"), [("gaussian", 1e3), ("mixture", 1e-4)])
def test_the_scale_of_codes_does_not_matter(kind, scale):
    plain, scaled = (fitted(clusters(scale=s)[0].double(), kind) for s in (1.0, scale))
    torch.testing.assert_close(scaled.weights, plain.weights, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(scaled.means / scale, plain.means, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(scaled.factors / scale, plain.factors, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_units_that_never_change_are_drawn_as_they_are(kind):
    codes = torch.cat([clusters()[0], torch.full((600, 2), 7.0)], 1)
    torch.testing.assert_close(
        fitted(codes, kind).sample(50)[:, 2:], torch.full((50, 2), 7.0), rtol=0, atol=0.05
    )


def test_fewer_codes_than_components_use_fewer_components(caplog):
    codes = torch.randn(5, 2)
    density = fitted(codes, num_components=8)
    assert (density.weights > 0).sum() == 5 and density.weights.sum() == pytest.approx(1)
    assert density.sample(100).isfinite().all()
    assert "only 5 codes" in caplog.text


@pytest.mark.parametrize(
    "codes", [torch.empty(0, 2), torch.tensor([[float("nan"), 0.0]] * 20)], ids=["none", "nan"]
)
def test_codes_that_tell_nothing_leave_the_standard_normal_and_say_so(codes, caplog):
    with caplog.at_level(logging.WARNING):
        density = fitted(codes) if len(codes) else LatentDensity(2, "mixture", 3)
        density.fit()
    assert not density.num_fitted and torch.equal(density.means, torch.zeros(3, 2))
    assert "N(0, I)" in caplog.text


def test_a_standard_normal_needs_no_phase_and_the_others_one_that_trains_nothing():
    assert LatentDensity(2).phases(lambda batch: batch.image) == ()
    density = LatentDensity(2, "gaussian")
    (phase,) = density.phases(lambda batch: batch.image.flatten(1))
    assert [turn.trains for turn in phase.turns] == [()]
    batch = Batch(torch.randn(9, 1, 1, 2), *[torch.zeros(9, dtype=torch.long)] * 2, torch.arange(9))
    for _ in range(2):  # a pass that is begun again starts from nothing
        phase.begin(TASK)
        phase.turns[0].loss(batch, 1.0)
    phase.end(TASK)
    assert int(density.num_fitted) == 9
    torch.testing.assert_close(density.means[0], batch.image.flatten(1).mean(0))
