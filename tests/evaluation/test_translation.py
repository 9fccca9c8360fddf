"""Translations judged by an extractor whose answers can be told by hand."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from analysis_toys import SPEC, make_context

from datamodules.synthetic import SyntheticData
from datamodules.tasks import NoSplit
from datamodules.unpaired import UnpairedData
from lit_gen.core.images import to_uint8
from lit_gen.core.module import LitModel
from lit_gen.core.types import InputError
from lit_gen.evaluation.context import Context
from lit_gen.evaluation.uses.translation import Translation
from lit_gen.metrics.features import FeatureExtractor
from lit_gen.metrics.frechet import FrechetDistance


class Inverts(LitModel):
    """The exact translation between images and their negatives, or one that leaves them alone."""

    def __init__(self, sign: float = -1.0) -> None:
        super().__init__(spec=SPEC, optimizer=functools.partial(torch.optim.SGD, lr=0.5))
        self.sign = sign
        self.asked: list[str] = []

    def translate(self, image, to):
        self.asked.append(to)
        return self.sign * image


class FirstFeatures(FeatureExtractor):
    """Features are the mean grey level and the first pixels; the class is found on the right images only."""

    name, num_features, weights_hash = "toy", 4, ""

    def __init__(self, patterns=None) -> None:
        super().__init__()
        self.patterns, self.num_logits = patterns, 0 if patterns is None else len(patterns)

    @torch.no_grad()
    def forward(self, image):
        flat = image.float().flatten(1)
        features = torch.cat((flat.mean(1, keepdim=True), flat[:, :3]), 1)
        return features, None if self.patterns is None else -torch.cdist(flat, self.patterns)


def context(model, noise=5.0) -> Context:
    """Domain b holds negatives of images like those of a."""
    source = {"spec": SPEC, "split": NoSplit(), "num_images": 40, "num_test_images": 40, "noise": noise}
    data = UnpairedData(
        a=SyntheticData(**source), b=SyntheticData(seed=1, **source), spec=SPEC, b_looks=["invert"]
    )
    data.setup()
    return Context(model.eval(), data, 1, "toy", "toy", batch_size=16)


def patterns() -> torch.Tensor:
    """[4, 64]: the mean image of each class of domain a."""
    batch = context(Inverts()).data.dataset("test", [0])[torch.arange(40)].a
    return torch.stack([batch.image[batch.label == k].float().flatten(1).mean(0) for k in range(4)])


def test_an_exact_translation_keeps_content_and_reaches_the_style():
    toy = context(Inverts())
    found = Translation(columns=5)(toy, FirstFeatures(patterns()))
    there, back = found.table
    assert (there["way"], back["way"]) == ("a to b", "b to a") and there["images"] == 40
    # The extractor knows domain a: what is an inverted image to it is no digit of the right class.
    assert there["accuracy_before"] == there["accuracy_back"] == back["accuracy_after"] == 1
    assert there["accuracy_after"] == there["accuracy_target"] == back["accuracy_before"] < 0.5
    assert back["accuracy_target"] == 1 and there["cycle_mse"] == back["cycle_mse"] == 0
    assert there["fid_after"] < 0.05 * there["fid_before"]
    batch = toy.data.dataset("test", [0])[torch.arange(40)]
    for row, real, fake in ((there, batch.b, batch.a), (back, batch.a, batch.b)):
        metric, extractor = FrechetDistance(4), FirstFeatures()
        metric.update(extractor(real.image)[0], real=True)
        metric.update(extractor(255 - fake.image)[0], real=False)
        assert row["fid_after"] == pytest.approx(float(metric.compute()["fid"]), rel=1e-6)


def test_a_translation_that_does_nothing_keeps_content_but_reaches_no_style():
    found = Translation(n=30, columns=5)(context(Inverts(1.0)), FirstFeatures(patterns()))
    for row in found.table:
        assert row["accuracy_after"] == row["accuracy_before"]
        assert row["fid_after"] == pytest.approx(row["fid_before"], rel=1e-6) and row["images"] == 30
    assert len(found.rows) == 60
    assert {"way", "image", "label", "before", "after", "back", "cycle_mse"} == set(found.rows[0])


def test_the_picture_shows_images_translations_and_those_translated_back():
    toy = context(Inverts())
    picture = Translation(columns=3)(toy, FirstFeatures()).picture
    batch = toy.data.dataset("test", [0])[torch.arange(3)]
    assert set(toy.model.asked) == {"a", "b"}
    side = picture.shape[1] // 3
    times = (side - 1) // 8
    for row, expected in enumerate(
        (batch.a.image, 255 - batch.a.image, batch.a.image, batch.b.image, 255 - batch.b.image, batch.b.image)
    ):
        top = row * (8 * times + 1) + 1
        shown = picture[top : top + 8 * times : times, 1 : 1 + 8 * times : times, 0]
        assert torch.equal(shown, to_uint8(expected)[0, 0])


def test_an_extractor_without_classes_says_nothing_of_content():
    row = Translation()(context(Inverts()), FirstFeatures()).table[0]
    assert math.isnan(row["accuracy_before"]) and math.isfinite(row["fid_after"])


def test_data_of_one_domain_are_refused():
    with pytest.raises(InputError, match="its data has one domain only"):
        Translation()(make_context(Inverts()), FirstFeatures())
