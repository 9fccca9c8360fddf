"""CycleGAN's networks: an image-to-image generator of residual blocks and a critic of overlapping patches.

Source: Zhu et al. 2017, arXiv:1703.10593, section 4 and appendix 7.2; the generator is that of Johnson et al.
2016, arXiv:1603.08155, the critic that of Isola et al. 2017, arXiv:1611.07004.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_gen.core.types import InputError, NonNegative, Positive


class ResnetGenerator(nn.Module):
    """Image [B, C, S, S] -> image in [-1, 1]: c7s1-k, d2k, d4k, residual blocks, u2k, uk, c7s1-C.

    Instance norm without weights of its own, reflection padding; every convolution has a bias.

    Args:
        size: of the images, a multiple of 2^halvings.
        width: k; published is 64.
        num_blocks: published are 6 for 128 pixels and 9 for 256.
        halvings: how often the side is halved before the blocks and doubled after them; published is 2.
    """

    def __init__(
        self,
        channels: Positive,
        size: Positive,
        width: Positive = 64,
        num_blocks: NonNegative = 9,
        halvings: NonNegative = 2,
    ) -> None:
        super().__init__()
        step = 2**halvings
        if size % step or size < max(4, 2 * step):
            raise InputError(
                f"ResnetGenerator: size={size} with halvings={halvings}; a size is a multiple of {step} and "
                f"at least {max(4, 2 * step)}. Change data.spec.size or lower model.generator.halvings"
            )
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), *_normed(nn.Conv2d(channels, width, 7))]
        now = width
        for _ in range(halvings):
            layers += _normed(nn.Conv2d(now, 2 * now, 3, stride=2, padding=1))
            now *= 2
        layers += [ResidualBlock(now) for _ in range(num_blocks)]
        for _ in range(halvings):
            layers += _normed(nn.ConvTranspose2d(now, now // 2, 3, stride=2, padding=1, output_padding=1))
            now //= 2
        self.layers = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, channels, 7))
        self.apply(_draw_weights)

    def forward(self, image: Tensor) -> Tensor:
        return torch.tanh(self.layers(image))


class ResidualBlock(nn.Module):
    """Features [B, width, S, S] plus what two convolutions make of them."""

    def __init__(self, width: Positive) -> None:
        super().__init__()
        first = [nn.ReflectionPad2d(1), *_normed(nn.Conv2d(width, width, 3))]
        second = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)]
        self.layers = nn.Sequential(*first, *second)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)


class PatchCritic(nn.Module):
    """Image [B, C, S, S] -> scores [B, 1, H, W], each of one patch of the image, higher for real ones.

    Strided convolutions C64-C128-C256-C512 without instance norm in the first, then one score per place.

    Args:
        size: of the images.
        width: channels of the first layer; published is 64.
        num_strides: layers that halve the side. A patch is 16 pixels wide with 1, 34 with 2, and with the
            published 3 it is 70.
    """

    def __init__(
        self, channels: Positive, size: Positive, width: Positive = 64, num_strides: Positive = 3
    ) -> None:
        super().__init__()
        side = size // 2**num_strides
        if side < 3:  # the layer that follows has a norm, which needs more than one place
            raise InputError(
                f"PatchCritic: size={size} with num_strides={num_strides} leaves {side} pixels, and 3 are "
                "the least. Raise data.spec.size or lower model.critic.num_strides"
            )
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        now = width
        for number in range(1, num_strides + 1):
            wide = width * min(2**number, 8)
            stride = 2 if number < num_strides else 1
            convolution = nn.Conv2d(now, wide, 4, stride=stride, padding=1)
            layers += [convolution, nn.InstanceNorm2d(wide), nn.LeakyReLU(0.2)]
            now = wide
        self.layers = nn.Sequential(*layers, nn.Conv2d(now, 1, 4, padding=1))
        self.apply(_draw_weights)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


def _normed(layer: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    return [layer, nn.InstanceNorm2d(layer.out_channels), nn.ReLU()]


def _draw_weights(layer: nn.Module) -> None:
    """Normal with standard deviation 0.02, as published (appendix 7.1)."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
