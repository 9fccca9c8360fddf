"""Kernel distance and Inception Score against torch-fidelity and the definition."""

import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from lit_gen.metrics.kernel import InceptionScore, KernelDistance, squared_mmd


def clouds(num_real, num_fake, size=20):
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(num_real, size, generator=generator)
    return real, torch.randn(num_fake, size, generator=generator) * 1.2 + 0.1


def compute(metric, real, fake, **more):
    metric.update(real, real=True)
    metric.update(fake, real=False, **more)
    return {name: value.item() for name, value in metric.compute().items()}


def test_kid_is_that_of_torch_fidelity_with_its_subsets():
    real, fake = clouds(400, 300)
    ours = compute(KernelDistance(20, num_subsets=7, subset_size=100), real, fake)
    theirs = kid_features_to_metric(fake, real, kid_subsets=7, kid_subset_size=100, verbose=False)
    assert ours["kid"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-5)
    assert ours["kid_std"] == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-4)


def test_mmd_is_the_sum_over_pairs():
    real, fake = (each.double() for each in clouds(9, 9, 4))

    def kernel(x, y):
        return (x @ y / 4 + 1) ** 3

    pairs = [(i, j) for i in range(9) for j in range(9)]
    within = sum(kernel(s[i], s[j]) for s in (real, fake) for i, j in pairs if i != j) / 72
    across = sum(kernel(real[i], fake[j]) for i, j in pairs) / 81
    assert squared_mmd(real, fake).item() == pytest.approx((within - 2 * across).item(), rel=1e-9)


def test_small_sets_are_one_subset_and_say_so(caplog):
    real, fake = clouds(60, 60)
    ours = compute(KernelDistance(20), real, fake)
    assert ours["kid"] == pytest.approx(squared_mmd(real, fake).item(), rel=1e-4)
    assert ours["kid_std"] != ours["kid_std"]  # NaN: there is one subset
    assert "60 images, not 1000" in caplog.text


def test_inception_score_is_that_of_torch_fidelity():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(203, 10, generator=generator) * 3
    ours = compute(InceptionScore(20), torch.zeros(5, 20), torch.zeros(203, 20), logits=logits)
    theirs = isc_features_to_metric(logits, splits=10)
    assert ours["inception_score"] == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert ours["inception_score_std"] == pytest.approx(theirs["inception_score_std"], rel=1e-7)


def test_inception_score_of_one_class_is_one_however_sure_the_classifier_is():
    logits = torch.tensor([[901.0, 0.0, -901.0]]).repeat(50, 1)
    ours = compute(InceptionScore(3, num_splits=1), torch.zeros(5, 3), torch.zeros(50, 3), logits=logits)
    assert ours["inception_score"] == 1.0
    assert ours["inception_score_std"] != ours["inception_score_std"]


@pytest.mark.parametrize("metric, reason", [(InceptionScore(3), "classify"), (KernelDistance(3), "1 real")])
def test_what_cannot_be_computed_is_nan_with_a_warning(metric, reason, caplog):
    ours = compute(metric, torch.zeros(1, 3), torch.zeros(50, 3))
    assert all(value != value for value in ours.values())
    assert reason in caplog.text
