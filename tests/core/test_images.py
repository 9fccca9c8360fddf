"""The doors between uint8 and [-1, 1]."""

from __future__ import annotations

import pytest
import torch

from lit_gen.core.batch import Batch, ImageSpec, PairBatch
from lit_gen.core.images import flip_some, grid, to_float, to_uint8


def test_every_level_survives_the_way_in_and_out():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    image = to_float(levels)
    assert image.min() == -1 and image.max() == 1
    assert torch.equal(to_uint8(image), levels)


def test_values_are_rounded_and_clamped():
    image = torch.tensor([-1.5, -1.0, -0.0001, 0.9999, 2.0]).view(1, 1, 1, 5)
    assert to_uint8(image).flatten().tolist() == [0, 0, 127, 255, 255]


def test_pixels_that_are_no_numbers_are_black_and_said(caplog):
    image = torch.zeros(3, 1, 1, 2)
    image[0, 0, 0] = torch.tensor([torch.nan, torch.inf])
    assert to_uint8(image)[0].flatten().tolist() == [0, 255]
    assert "1 of 3 images" in caplog.text


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="float64"):
        to_float(torch.zeros(1, 1, 2, 2, dtype=torch.float64))


def test_half_of_the_images_are_mirrored():
    torch.manual_seed(0)
    image = torch.arange(4.0).view(1, 1, 2, 2).repeat(1000, 1, 1, 1)
    flipped = flip_some(image)
    mirrored = (flipped == image.flip(-1)).flatten(1).all(1)
    untouched = (flipped == image).flatten(1).all(1)
    assert (mirrored ^ untouched).all()
    assert 450 < int(mirrored.sum()) < 550


def test_a_grid_holds_every_image_in_reading_order():
    image = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    canvas = grid(image, columns=3, padding=1)
    assert canvas.shape == (2 * 3 + 1, 3 * 3 + 1, 3)
    assert [int(canvas[1 + 3 * (i // 3), 1 + 3 * (i % 3), 0]) for i in range(5)] == [0, 1, 2, 3, 4]
    assert canvas[0].eq(255).all() and canvas[4:, 7:].eq(255).all()


def test_specs_know_the_shape_of_an_item_and_its_doors():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    spec = ImageSpec(1, 16, 0)
    assert spec.shape == (1, 16, 16) and spec.to_stored(to_float(levels)).equal(levels)
    assert spec.mismatch(levels) == "" and "16 x 15" in spec.mismatch(levels[..., :15])
    half = Batch(levels, *torch.zeros(3, 1))
    pair = PairBatch(half, half._replace(image=255 - levels)).ready().to("cpu")
    assert pair.size == 1 and pair.target is pair.b.image and pair.a.image.allclose(-pair.b.image, atol=1e-6)
    assert pair.map(torch.neg).b.image.equal(-pair.b.image)
