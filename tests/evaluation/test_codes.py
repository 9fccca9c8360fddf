"""Probes, maps and compression of codes."""

import itertools
import math

import numpy as np
import pytest
import torch
from analysis_toys import FirstPixels, make_context, test_images
from sklearn.metrics import pairwise_distances

from lit_gen.core.types import InputError
from lit_gen.evaluation.context import Codes
from lit_gen.evaluation.uses.clusters import Clusters, agreement
from lit_gen.evaluation.uses.code_map import CodeMap
from lit_gen.evaluation.uses.probe import Probe, accuracies
from lit_gen.evaluation.uses.reconstruction import Compression


def corners(count, seed):
    """Points around the four corners of a square, in a space with a third dimension of large noise, and the
    number of the corner.
    """
    torch.manual_seed(seed)
    corner = torch.arange(count) % 4
    code = torch.stack(((corner % 2) * 2.0 - 1, (corner // 2) * 2.0 - 1), dim=1)
    return code + 0.1 * torch.randn(count, 2), corner


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_classes_in_corners_are_found_whatever_the_scale_of_the_codes(scale):
    (train, train_label), (test, test_label) = corners(80, 0), corners(40, 1)
    assert accuracies(train * scale + 5, train_label, test * scale + 5, test_label, 3) == (1.0, 1.0)


def test_opposite_corners_of_one_class_are_beyond_a_line_but_not_beyond_neighbours():
    (train, train_label), (test, test_label) = corners(80, 0), corners(40, 1)
    odd = [((label % 2) ^ (label // 2)) for label in (train_label, test_label)]
    linear, nearest = accuracies(train, odd[0], test, odd[1], 3)
    assert nearest == 1.0 and linear < 0.8


def test_the_vote_of_neighbours_is_that_of_the_nearest_codes():
    torch.manual_seed(0)
    train, test = torch.randn(60, 4), torch.randn(25, 4)
    labels = torch.randint(3, (60,)), torch.randint(3, (25,))
    nearest = pairwise_distances(test.numpy(), train.numpy()).argmin(1)
    expected = float(np.mean(labels[0].numpy()[nearest] == labels[1].numpy()))
    assert accuracies(train, labels[0], test, labels[1], 1)[1] == pytest.approx(expected)


def test_a_dimension_that_a_model_does_not_use_does_not_disturb_the_neighbours():
    (train, train_label), (test, test_label) = corners(80, 0), corners(40, 1)
    idle = [torch.cat((code, 1e-4 * torch.randn(len(code), 30)), dim=1) for code in (train, test)]
    assert accuracies(idle[0], train_label, idle[1], test_label, 3)[1] == 1.0


def test_a_probe_looks_at_known_classes_of_labelled_images_only():
    context = make_context(without_classes=[1], labelled_share=0.5)
    (row,) = Probe()(context).table
    assert row["train_codes"] == 36  # half of 3 x 24
    assert row["test_codes"] == 30 and row["latent_size"] == 6
    assert 0 <= row["linear_accuracy"] <= 1
    assert Probe(n=10)(make_context()).table[0]["train_codes"] == 10


def test_the_map_is_the_two_axes_of_largest_variance():
    context = make_context()
    found = CodeMap(n=40)(context)
    code = test_images(context).flatten(1)[:, :6].double()
    values = torch.linalg.svdvals(code - code.mean(0)).square()
    place = torch.tensor([[row["x"], row["y"]] for row in found.rows])
    torch.testing.assert_close(place.double().square().sum(0), values[:2], rtol=1e-5, atol=1e-6)
    assert float((place[:, 0] * place[:, 1]).sum()) == pytest.approx(0, abs=1e-4)
    assert found.table[0]["variance_explained"] == pytest.approx(float(values[:2].sum() / values.sum()))
    assert [row["class"] for row in found.rows] == [index % 4 for index in range(40)]


def test_t_sne_is_the_same_for_the_same_seed():
    found = [CodeMap(method="tsne", n=24)(make_context()) for _ in range(2)]
    assert found[0].rows == found[1].rows and len(found[0].rows) == 24
    assert math.isfinite(found[0].table[0]["kl_divergence"])


def test_a_map_of_codes_with_one_dimension_is_refused():
    with pytest.raises(InputError, match="1 dimensions"):
        CodeMap()(make_context(FirstPixels(latent_size=1)))


def test_distortion_falls_with_the_size_of_the_code_as_by_hand():
    contexts = [make_context(FirstPixels(size), name=f"z{size}") for size in (16, 4, 64)]
    found = Compression()(contexts)
    image = test_images(contexts[0]).flatten(1)
    assert [row["run"] for row in found.table] == ["z4", "z16", "z64"]
    assert [row["ratio"] for row in found.table] == [16.0, 4.0, 1.0]
    for row in found.table:
        error = float(image[:, row["latent_size"] :].square().sum(1).mean() / 64 / 4)
        assert row["mse"] == pytest.approx(error, rel=1e-5)
        assert row["psnr"] == pytest.approx(-10 * math.log10(error) if error else math.inf, rel=1e-5)
    assert found.picture.ndim == 3 and found.picture.dtype == torch.uint8


class Corners(FirstPixels):
    """The code of an image is near the corner of a square that its class has."""

    @torch.no_grad()
    def encode(self, batch):
        noise = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))[batch.index]
        return torch.stack([batch.label % 2, batch.label // 2], 1) * 2e3 + 1e2 * noise


def test_clusters_of_codes_are_the_classes_where_these_lie_apart():
    found = Clusters(most=8, columns=3)(make_context(Corners(2)))
    means, mixture, pixels = found.table
    assert {row["clusters"] for row in found.table} == {4}, "by the criterion"
    for row in (means, mixture):
        assert (row["nmi"], row["ari"], row["accuracy"]) == pytest.approx((1, 1, 1))
    assert pixels["what"] == "k-means of pixels" and len(found.rows) == pixels["test_images"] == 40
    height, width, _ = found.picture.shape
    assert (height - 1) / 4 == (width - 1) / 7, "a row for each cluster, two sides and a gap"
    assert Clusters(number=5)(make_context(Corners(2))).table[0]["clusters"] == 5


def test_clusters_are_matched_with_classes_as_well_as_can_be():
    rng = np.random.default_rng(0)
    label, cluster = rng.integers(0, 4, 50), rng.integers(0, 5, 50)
    codes = Codes(torch.zeros(50, 1), torch.from_numpy(label), *(torch.zeros(50),) * 2)
    best = max(
        np.mean(np.array(classes)[cluster] == label) for classes in itertools.permutations([0, 1, 2, 3, -1])
    )
    assert agreement(cluster, codes)["accuracy"] == pytest.approx(best)
    half = codes._replace(label=torch.where(torch.arange(50) < 25, codes.label, -1))
    assert agreement(cluster, half) == agreement(cluster[:25], codes.only(torch.arange(50) < 25))
    assert agreement(cluster, codes._replace(label=torch.full((50,), -1))) == {}


def test_more_clusters_than_codes_are_refused():
    with pytest.raises(InputError, match="number=31: more clusters than codes; toy has 30 training images"):
        Clusters(number=31, n=30)(make_context())
