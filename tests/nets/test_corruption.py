"""Statistics of corrupted images."""

from __future__ import annotations

import pytest
import torch

from lit_gen.nets.corruption import GaussianNoise, Masking, SaltAndPepper


def images(value=0.25):
    torch.manual_seed(0)
    return torch.full((50, 3, 20, 20), value)


def test_gaussian_noise_has_its_deviation_and_is_independent_in_every_value():
    noise = GaussianNoise(0.5)(images()) - 0.25
    count = noise.numel()
    assert noise.mean().abs() < 4 * 0.5 / count**0.5
    assert (noise.std() - 0.5).abs() < 4 * 0.5 / (2 * count) ** 0.5
    channels = noise.transpose(0, 1).flatten(1)
    assert (torch.corrcoef(channels) - torch.eye(3)).abs().max() < 4 / channels.shape[1] ** 0.5


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    ("make", "values"), [(Masking, (-1.0,)), (SaltAndPepper, (-1.0, 1.0))], ids=["masking", "salt-and-pepper"]
)
def test_a_share_of_the_pixels_takes_the_extreme_values_in_all_channels_and_the_rest_stays(
    make, values, share
):
    image = make(share)(images())
    assert image.shape == (50, 3, 20, 20)
    assert (image == image[:, :1]).all(), "whole pixels"
    pixels = image[:, 0]
    assert set(pixels.unique().tolist()) <= {0.25, *values}
    for value in values:
        part = share / len(values)
        found = (pixels == value).float().mean()
        assert (found - part).abs() <= 4 * (part * (1 - part) / pixels.numel()) ** 0.5


def test_the_given_images_stay_as_they_were_and_the_global_generator_decides():
    image = images()
    for corrupt in (GaussianNoise(), Masking(), SaltAndPepper()):
        torch.manual_seed(3)
        first = corrupt(image)
        torch.manual_seed(3)
        assert torch.equal(corrupt(image), first) and not torch.equal(corrupt(image), first)
        assert (image == 0.25).all()
