"""A generator and a critic that grow from a small resolution to the full one.

Source: Karras et al. 2018, arXiv:1710.10196, section 2, figure 2 and table 2, at the sizes of small images.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gen.core.types import InputError, NonNegative, Positive
from lit_gen.nets.equalised import EqualisedConv2d, EqualisedLinear, MinibatchStd, PixelNorm
from lit_gen.nets.layers import with_condition

_GAIN = 2**0.5  # before LeakyReLU
_SLOPE = 0.2


def resolutions(first_size: int, size: int) -> tuple[int, ...]:
    """first_size, doubled until it is `size`: (8, 32) -> (8, 16, 32).

    Raises:
        InputError: `size` is not reached, or `first_size` is no size.
    """
    if first_size < 1:
        raise InputError(f"model.first_size={first_size}: it must be at least 1 pixel")
    sizes = [first_size]
    while sizes[-1] < size:
        sizes.append(2 * sizes[-1])
    if sizes[-1] != size:
        halves = [size]
        while halves[-1] % 2 == 0 and halves[-1] > 4:
            halves.append(halves[-1] // 2)
        raise InputError(
            f"model.first_size={first_size}: doubled it never is data.spec.size={size}. Set it to one of "
            f"{', '.join(map(str, reversed(halves)))}, or data.spec.size to {sizes[-1]} (drawings are padded)"
        )
    return tuple(sizes)


def enlarged(image: Tensor, factor: int = 2) -> Tensor:
    """Every pixel becomes a square of factor x factor: [B, C, S, S] -> [B, C, factor S, factor S]."""
    return image if factor == 1 else F.interpolate(image, scale_factor=factor, mode="nearest")


def reduced(image: Tensor, factor: int = 2) -> Tensor:
    """Means of squares of factor x factor: [B, C, S, S] -> [B, C, S / factor, S / factor]."""
    return image if factor == 1 else F.avg_pool2d(image, factor)


class GrowingGenerator(nn.Module):
    """Noise [B, in_size] and condition [B, K] -> image [B, C, s, s], unbounded, s the size of a level.

    Args:
        size: of the last level.
        first_size: of level 0; every level has twice the size of the one before.
        width: channels at the last level; every level before has twice as many, up to `max_width`.
        condition_size: K; 0 takes no condition.

    Attributes:
        sizes: of the levels.
    """

    def __init__(
        self,
        channels: Positive,
        size: Positive,
        in_size: Positive,
        first_size: Positive = 4,
        width: Positive = 16,
        max_width: Positive = 128,
        condition_size: NonNegative = 0,
    ) -> None:
        super().__init__()
        self.sizes = resolutions(first_size, size)
        widths = _widths(len(self.sizes), width, max_width)
        self.condition_size = condition_size
        self.norm = PixelNorm()
        start = (widths[0], first_size, first_size)
        self.stem = nn.Sequential(
            EqualisedLinear(in_size + condition_size, widths[0] * first_size**2, _GAIN),
            nn.Unflatten(1, start),
            nn.LeakyReLU(_SLOPE),
            PixelNorm(),
            *_normed_conv(widths[0], widths[0]),
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(*_normed_conv(wide, narrow), *_normed_conv(narrow, narrow))
            for wide, narrow in pairwise(widths)
        )
        self.to_image = nn.ModuleList(EqualisedConv2d(wide, channels, 1) for wide in widths)

    def up_to(self, level: int, fades: bool = False) -> nn.ModuleList:
        """What makes the images of a level; with `fades` also what the level before needs to show its own."""
        images = self.to_image[max(level - fades, 0) : level + 1]
        return nn.ModuleList([self.stem, *self.blocks[:level], *images])

    def forward(
        self, noise: Tensor, condition: Tensor | None = None, level: int | None = None, fade: float = 1.0
    ) -> Tensor:
        """The image of a level (None: the last), of which `fade` is the part; the rest is the enlarged image
        of the level before."""
        level = _checked(level, self.sizes)
        features = self.stem(with_condition(self.norm(noise), condition, self.condition_size))
        before = features
        for block in self.blocks[:level]:
            before = features
            features = block(enlarged(features))
        image = self.to_image[level](features)
        if level == 0 or fade >= 1:
            return image
        return torch.lerp(enlarged(self.to_image[level - 1](before)), image, fade)


class GrowingCritic(nn.Module):
    """Image [B, C, s, s] and condition [B, K] -> score [B, 1]; s is the size of a level.

    The generator in a mirror, with its arguments; a condition joins the features before the last two layers,
    which all levels share.

    Args:
        group_size: images whose differences the critic is told of; see `MinibatchStd`.
    """

    def __init__(
        self,
        channels: Positive,
        size: Positive,
        first_size: Positive = 4,
        width: Positive = 16,
        max_width: Positive = 128,
        group_size: Positive = 4,
        condition_size: NonNegative = 0,
    ) -> None:
        super().__init__()
        self.sizes = resolutions(first_size, size)
        widths = _widths(len(self.sizes), width, max_width)
        self.condition_size = condition_size
        self.from_image = nn.ModuleList(
            nn.Sequential(EqualisedConv2d(channels, wide, 1, _GAIN), nn.LeakyReLU(_SLOPE)) for wide in widths
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(*_conv(narrow, narrow), *_conv(narrow, wide), nn.AvgPool2d(2))
            for wide, narrow in pairwise(widths)
        )
        self.last_block = nn.Sequential(
            MinibatchStd(group_size), *_conv(widths[0] + 1, widths[0]), nn.Flatten()
        )
        self.head = nn.Sequential(
            EqualisedLinear(widths[0] * first_size**2 + condition_size, widths[0], _GAIN),
            nn.LeakyReLU(_SLOPE),
            EqualisedLinear(widths[0], 1),
        )

    def up_to(self, level: int, fades: bool = False) -> nn.ModuleList:
        """What judges the images of a level; with `fades` also what reads those of the level before."""
        readers = self.from_image[max(level - fades, 0) : level + 1]
        return nn.ModuleList([*readers, *self.blocks[:level], self.last_block, self.head])

    def forward(
        self, image: Tensor, condition: Tensor | None = None, level: int | None = None, fade: float = 1.0
    ) -> Tensor:
        """The score of images of a level (None: the last), whose own features count `fade`; the rest are the
        features of the image at the level before."""
        level = _checked(level, self.sizes)
        if image.shape[2:] != (self.sizes[level],) * 2:
            raise ValueError(
                f"GrowingCritic: images of {image.shape[2]} x {image.shape[3]} pixels at level {level}, "
                f"which is for {self.sizes[level]} x {self.sizes[level]}"
            )
        features = self.from_image[level](image)
        for number in range(level, 0, -1):
            features = self.blocks[number - 1](features)
            if number == level and fade < 1:
                features = torch.lerp(self.from_image[level - 1](reduced(image)), features, fade)
        return self.head(with_condition(self.last_block(features), condition, self.condition_size))


def _widths(levels: int, width: int, max_width: int) -> list[int]:
    return [min(max_width, width * 2 ** (levels - 1 - level)) for level in range(levels)]


def _conv(narrow: int, wide: int) -> tuple[nn.Module, ...]:
    return EqualisedConv2d(narrow, wide, 3, _GAIN), nn.LeakyReLU(_SLOPE)


def _normed_conv(narrow: int, wide: int) -> tuple[nn.Module, ...]:
    return (*_conv(narrow, wide), PixelNorm())


def _checked(level: int | None, sizes: tuple[int, ...]) -> int:
    level = len(sizes) - 1 if level is None else level
    if not 0 <= level < len(sizes):
        raise ValueError(f"level={level}: there are {len(sizes)} levels, 0 to {len(sizes) - 1}")
    return level
