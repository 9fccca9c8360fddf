"""Precision, recall, density and coverage against their definitions and torch-fidelity."""

import pytest
import torch
from torch_fidelity.metric_prc import calculate_precision_recall_full

from lit_gen.metrics import distances
from lit_gen.metrics.distances import nearest
from lit_gen.metrics.neighbours import Neighbours


def clouds(num_real=700, num_fake=650, size=84, offset=5.0):
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(size, size, generator=generator) * torch.logspace(0, -1.5, size)
    real = torch.randn(num_real, size, generator=generator) @ mix + offset
    fake = torch.randn(num_fake, size, generator=generator) @ mix * 0.9 + offset
    return real, fake


def scores(real, fake, **options):
    metric = Neighbours(real.shape[1], **options)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return {name: value.item() for name, value in metric.compute().items()}


@pytest.fixture(params=[(512, 2048), (64, 96)])
def tiles(request, monkeypatch):
    monkeypatch.setattr(distances, "_TILE_ROWS", request.param[0])
    monkeypatch.setattr(distances, "_TILE_COLUMNS", request.param[1])


@pytest.mark.parametrize("size", [2, 84])
def test_agrees_with_torch_fidelity_up_to_ties(tiles, size):
    real, fake = clouds(size=size)
    precision, recall = calculate_precision_recall_full(fake, real, neighborhood=3)
    ours = scores(real, fake)
    assert 0.1 < recall < 0.99  # a case in which something can differ
    assert ours["precision"] == pytest.approx(precision, abs=2 / len(fake))
    assert ours["recall"] == pytest.approx(recall, abs=2 / len(real))


def differences(x, y):
    return torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist")


def definition(real, fake, ball=3, density_ball=5):
    """From all pairs, by differences in float64."""
    real_reach, fake_reach = (
        differences(each, each).fill_diagonal_(torch.inf).sort(dim=1).values for each in (real, fake)
    )
    distance = differences(fake, real)
    inside = distance <= real_reach[:, density_ball - 1]
    return {
        "precision": (distance <= real_reach[:, ball - 1]).any(1).double().mean().item(),
        "recall": (distance <= fake_reach[:, ball - 1, None]).any(0).double().mean().item(),
        "density": inside.sum().item() / (density_ball * len(fake)),
        "coverage": inside.any(0).double().mean().item(),
    }


def difficult():
    generator = torch.Generator().manual_seed(0)

    def normal(*sizes):
        return torch.randn(*sizes, generator=generator)

    def bits(count):
        return torch.randint(0, 2, (count, 84), generator=generator).float()

    far, tight = torch.tensor([[0.0], [1e4]]).repeat_interleave(120, 0), normal(240, 6) * 1e-2
    outlier = normal(300, 20)
    outlier[0] *= 1e6
    return {
        "ordinary": clouds(size=84),
        "ties": (bits(500), bits(480)),
        "far from zero": (normal(300, 20) + 1e5, normal(280, 20) + 1e5),
        "clusters": (far + tight, far + tight[torch.randperm(240, generator=generator)] * 1.01),
        "collapsed": (normal(300, 20), normal(4, 20).repeat(70, 1) + normal(280, 20) * 1e-4),
        "outlier": (outlier, normal(280, 20)),
        "all the same": (torch.ones(90, 5), torch.ones(80, 5)),
    }


@pytest.mark.parametrize("kind", difficult())
def test_every_score_is_its_definition_exactly(tiles, kind):
    real, fake = difficult()[kind]
    expected = definition(real, fake)
    assert scores(real, fake) == pytest.approx(expected, abs=1e-9, rel=2e-7)


@pytest.mark.parametrize("offset, scale", [(50, 10), (1e6, 1), (-3e4, 1e-30), (0.5, 1e30)])
@pytest.mark.parametrize("times", [1, 2, 30])
def test_copies_are_precise_and_cover_everything(offset, scale, times):
    points = torch.randn(10 if times > 2 else 40, 64, generator=torch.Generator().manual_seed(0))
    points = ((points + offset) * scale).repeat(times, 1)
    ours = scores(points, points.clone())
    assert (ours["precision"], ours["recall"], ours["coverage"]) == (1, 1, 1)


def test_balls_without_radius_hold_nothing_beside_them():
    real = torch.tensor([0.0, 1e4]).repeat(6)[:, None].repeat(1, 8)
    assert scores(real, real + 1e-3) == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


@pytest.mark.parametrize(("num_points", "count"), [(6, 5), (65, 1), (700, 3)])
def test_nearest_distances_are_those_of_the_whole_matrix(tiles, num_points, count):
    points = torch.randn(num_points, 9, generator=torch.Generator().manual_seed(1))
    expected = differences(points, points).fill_diagonal_(torch.inf).sort(dim=1).values[:, :count]
    assert torch.equal(nearest(points, count), expected)


@pytest.mark.parametrize("num_real, num_fake", [(5, 50), (50, 3), (0, 0)])
def test_too_few_images_give_nan_and_a_warning(num_real, num_fake, caplog):
    ours = scores(torch.randn(num_real, 2), torch.randn(num_fake, 2))
    assert all(value != value for value in ours.values())
    assert f"got {num_real} and {num_fake}" in caplog.text
