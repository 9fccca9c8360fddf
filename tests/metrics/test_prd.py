"""PRD against closed forms of its curve and against what precision and recall mean."""

import math

import numpy as np
import pytest
import torch
from sklearn.cluster import kmeans_plusplus

from lit_gen.metrics.prd import PRD, best_f, prd_curve, spread_centres


def scores(real, fake, **options):
    metric = PRD(real.shape[1], **options)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return {name: value.item() for name, value in metric.compute().items()}


def modes(which, count, seed):
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(10, 8, generator=torch.Generator().manual_seed(0)) * 10
    return centre[which].repeat_interleave(count, 0) + torch.randn(len(which) * count, 8, generator=generator)


def test_curve_of_equal_histograms_is_the_unit_square():
    histogram = torch.tensor([0.2, 0.3, 0.5])
    precision, recall = prd_curve(histogram, histogram, 101)
    angle = torch.linspace(0, math.pi / 2, 101, dtype=torch.float64)
    torch.testing.assert_close(precision, angle.tan().clamp(0, 1), rtol=0, atol=1e-7)
    torch.testing.assert_close(recall, (1 / angle.tan()).clamp(0, 1), rtol=0, atol=1e-7)


def test_curve_with_a_missing_mode_ends_at_its_mass():
    # Generated images are all in cluster 0, which holds 0.3 of the real ones: all precise, 0.3 recalled.
    precision, recall = prd_curve(torch.tensor([0.3, 0.7]), torch.tensor([1.0, 0.0]), 1001)
    assert precision.max().item() == pytest.approx(1, abs=1e-6)
    assert recall.max().item() == pytest.approx(0.3, abs=1e-6)


def test_f_is_the_weighted_harmonic_mean():
    curve = torch.tensor([[0.5], [0.8]]).double()
    assert best_f(curve, 1.0).item() == pytest.approx(2 * 0.5 * 0.8 / 1.3)
    assert best_f(curve, 8.0).item() == pytest.approx(65 * 0.4 / (64 * 0.5 + 0.8))
    assert best_f(curve, 8.0) > best_f(curve, 1 / 8)  # 8 asks for recall


def test_first_centres_are_spread_as_well_as_those_of_scikit_learn():
    points = modes(range(10), 40, 1).numpy()

    def cost(centres):
        return torch.cdist(torch.from_numpy(points), torch.from_numpy(centres)).square().amin(1).sum().item()

    states = [np.random.RandomState(seed) for seed in range(20)]
    ours = [cost(spread_centres(points, 10, state)) for state in states]
    theirs = [cost(kmeans_plusplus(points, 10, random_state=seed)[0]) for seed in range(20)]
    drawn = [cost(points[state.choice(len(points), 10, replace=False)]) for state in states]
    assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.1)
    assert np.mean(ours) < 0.2 * np.mean(drawn)


def test_centres_of_identical_points_are_that_point():
    assert (spread_centres(np.ones((30, 4), np.float32), 20, np.random.RandomState(0)) == 1).all()


def test_a_generator_that_covers_2_of_10_modes_is_precise_and_recalls_little():
    ours = scores(modes(range(10), 40, 1), modes([3, 7], 200, 2), num_runs=2)
    assert ours["prd_precision"] > 0.8 and ours["prd_recall"] < 0.4


def test_a_generator_that_invents_8_of_10_modes_recalls_all_and_is_not_precise():
    ours = scores(modes([3, 7], 200, 1), modes(range(10), 40, 2), num_runs=2)
    assert ours["prd_precision"] < 0.4 and ours["prd_recall"] > 0.8


def test_the_larger_set_is_thinned_evenly_and_global_generators_are_left_alone():
    real, fake = modes(range(10), 40, 1), modes(range(10), 80, 2)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    ours = scores(real, fake, num_runs=2)
    assert ours == scores(real, fake[::2], num_runs=2)
    assert torch.equal(states[0], torch.get_rng_state()) and (states[1] == np.random.get_state()[1]).all()


def test_features_far_from_zero_give_the_same():
    real, fake = modes(range(10), 20, 1), modes(range(5), 40, 2)
    near, far = scores(real, fake, num_runs=2), scores(real + 512, fake + 512, num_runs=2)
    assert near == pytest.approx(far, abs=0.02)


def test_too_few_images_give_nan_and_a_warning(caplog):
    assert all(value != value for value in scores(torch.randn(30, 2), torch.randn(19, 2)).values())
    assert "got 30 real and 19 generated" in caplog.text
