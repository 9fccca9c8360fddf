"""Classes of generated images: against scipy's relative entropy, and the definition."""

import pytest
import torch
from scipy.stats import entropy

from lit_gen.metrics.classes import ClassHistogram


def one_hot(counts):
    """Logits of `counts[k]` images of class k, in an order that mixes classes."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.one_hot(labels[order], len(counts)).float()


def compute(real, fake):
    metric = ClassHistogram(3)
    for counts, is_real in ((real, True), (fake, False)):
        for logits in one_hot(counts).split(50):
            metric.update(torch.randn(len(logits), 3), is_real, logits=logits)
    return {name: value.item() for name, value in metric.compute().items()}


def test_divergence_is_that_of_scipy():
    real, fake = [100, 120, 80, 90], [300, 0, 20, 5]
    expected = entropy([n + 0.5 for n in fake], [n + 0.5 for n in real])
    assert compute(real, fake)["class_kl"] == pytest.approx(expected, rel=1e-12)


def test_a_class_is_covered_with_a_tenth_of_its_share():
    scores = compute([100, 100, 100, 100], [374, 10, 9, 7])
    assert scores["class_coverage"] == 0.5  # 9 of 400 are short of a tenth of a quarter


def test_what_a_classifier_gets_wrong_is_no_class_of_the_real_images():
    scores = compute([500, 500, 3, 0], [480, 520, 0, 0])
    assert scores["class_coverage"] == 1


def test_coverage_of_one_distribution_is_one_for_any_number_of_images_and_size_of_the_largest_class():
    generator = torch.Generator().manual_seed(0)
    share = 1 / torch.arange(1, 101.0)  # the largest class is a hundred times as large as the smallest
    for count in (200, 2000, 20_000):
        drawn = [torch.multinomial(share, count, replacement=True, generator=generator) for _ in range(2)]
        real, fake = (each.bincount(minlength=100).tolist() for each in drawn)
        assert compute(real, fake)["class_coverage"] == 1


def test_too_few_images_of_every_class_give_no_coverage(caplog):
    scores = compute([9, 9, 9], [9, 9, 9])
    assert scores["class_coverage"] != scores["class_coverage"] and scores["class_kl"] == 0
    assert "no class has 10 images" in caplog.text


def test_an_extractor_that_does_not_classify_gives_no_number(caplog):
    metric = ClassHistogram(3)
    for is_real in (True, False):
        metric.update(torch.randn(9, 3), is_real, logits=torch.empty(9, 0))
    assert all(torch.isnan(value) for value in metric.compute().values())
    assert "does not classify" in caplog.text
