"""Denoising of test images and of given ones."""

import pytest
import torch
from analysis_toys import FirstPixels, make_context, test_images

from lit_gen.core.images import to_float, to_uint8
from lit_gen.evaluation.uses.denoise import Denoise


def flip_signs(image):
    return -image


def test_errors_before_and_after_are_those_against_the_clean_image():
    context = make_context()
    (row,) = Denoise(n=40)(context, flip_signs).table
    image = test_images(context).flatten(1)
    before = float((2 * image).square().mean() / 4)
    restored = torch.zeros_like(image)
    restored[:, :6] = -image[:, :6]
    after = float((restored - image).square().mean() / 4)
    assert row["mse_before"] == pytest.approx(before) and row["mse_after"] == pytest.approx(after)
    assert row["images"] == 40


def test_a_model_that_keeps_everything_removes_nothing_and_noise_follows_the_seed():
    def noisy(image):
        return image + 0.3 * torch.randn_like(image)

    found = [Denoise(n=24)(make_context(FirstPixels(64), seed=seed), noisy).table[0] for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert found[0]["mse_before"] == found[0]["mse_after"]
    # Variance 0.09 in a range of 2, over 24 x 64 pixels: four standard deviations of their mean square.
    assert found[0]["mse_before"] == pytest.approx(0.09 / 4, rel=4 * (2 / (24 * 64)) ** 0.5)


def test_given_images_come_back_as_images_of_eight_bits():
    torch.manual_seed(0)
    image = torch.randint(0, 256, (37, 1, 8, 8), dtype=torch.uint8)
    found = Denoise().given(make_context(FirstPixels(64)), image)
    assert found.images.equal(image) and found.table == [{"images": 37, "mean_change": 0.0}]
    found = Denoise().given(make_context(), image)
    assert found.images[:, 0].flatten(1)[:, :6].equal(image[:, 0].flatten(1)[:, :6])
    assert (found.images[:, 0].flatten(1)[:, 6:] == int(to_uint8(torch.zeros(1, 1, 1, 1)))).all()
    change = to_float(image).flatten(1)[:, 6:].square().sum(1) / 64 / 4
    torch.testing.assert_close(torch.tensor([row["change"] for row in found.rows]), change)
