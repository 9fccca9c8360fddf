"""Precision, recall, density and coverage against their definitions and torch-fidelity."""

import pytest
import torch
from torch_fidelity.metric_prc import calculate_precision_recall_full

from lit_gen.metrics import neighbours
from lit_gen.metrics.neighbours import Neighbours, nearest_squared


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
    monkeypatch.setattr(neighbours, "_TILE_ROWS", request.param[0])
    monkeypatch.setattr(neighbours, "_TILE_COLUMNS", request.param[1])


@pytest.mark.parametrize("size", [2, 84])
def test_agrees_with_torch_fidelity_up_to_ties(tiles, size):
    real, fake = clouds(size=size)
    precision, recall = calculate_precision_recall_full(fake, real, neighborhood=3)
    ours = scores(real, fake)
    assert 0.1 < recall < 0.99  # a case in which something can differ
    assert ours["precision"] == pytest.approx(precision, abs=2 / len(fake))
    assert ours["recall"] == pytest.approx(recall, abs=2 / len(real))


def test_density_and_coverage_are_their_definition(tiles):
    real, fake = (each.double() for each in clouds(size=7))
    among = torch.cdist(real, real).fill_diagonal_(torch.inf)
    reach = among.sort(dim=1).values[:, 4]
    inside = torch.cdist(real, fake) <= reach[:, None]
    ours = scores(real, fake)
    assert ours["density"] == pytest.approx(inside.double().sum().item() / (5 * len(fake)), abs=2 / len(fake))
    assert ours["coverage"] == pytest.approx(inside.any(dim=1).double().mean().item(), abs=2 / len(real))


@pytest.mark.parametrize(("num_points", "count"), [(6, 5), (65, 1), (700, 3)])
def test_nearest_distances_are_those_of_the_whole_matrix(tiles, num_points, count):
    points = torch.randn(num_points, 9, generator=torch.Generator().manual_seed(1))
    whole = torch.cdist(points.double(), points.double()).fill_diagonal_(torch.inf).square()
    expected = whole.sort(dim=1).values[:, :count].float()
    torch.testing.assert_close(nearest_squared(points, count), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_real, num_fake", [(5, 50), (50, 3), (0, 0)])
def test_too_few_images_give_nan_and_a_warning(num_real, num_fake, caplog):
    ours = scores(torch.randn(num_real, 2), torch.randn(num_fake, 2))
    assert all(value != value for value in ours.values())
    assert f"got {num_real} and {num_fake}" in caplog.text
