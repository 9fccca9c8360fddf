"""Encoders and decoders of Multiband VAE. Source of the layer sizes: the code of Deja et al. 2022,
arXiv:2106.12196.

The 32-pixel layout (CIFAR) is ours; the authors have none. The strides of the 44-pixel decoder are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, NamedTuple

import torch
from annotated_types import MinLen
from torch import Tensor, nn

from lit_gen.core.types import Positive
from lit_gen.nets.layers import PLANS, Layer, Plan, in_unit_range, mlp, normed


class DenseFeatures(nn.Module):
    """Image [B, C, S, S] -> [B, hidden[-1]], with a LeakyReLU after every layer, the last included.

    Args:
        unit_range: the first layer is given pixels from 0 to 1, as the authors' is, instead of -1 to 1.
    """

    def __init__(
        self,
        channels: Positive,
        size: Positive,
        hidden: Annotated[Sequence[Positive], MinLen(1)] = (512, 128, 64),
        unit_range: bool = False,
    ) -> None:
        super().__init__()
        self.num_features, self.unit_range = hidden[-1], unit_range
        self.net = nn.Sequential(nn.Flatten(), *mlp([channels * size * size, *hidden]), nn.LeakyReLU(0.01))

    def forward(self, image: Tensor) -> Tensor:
        return self.net(in_unit_range(image) if self.unit_range else image)


class DenseImages(nn.Module):
    """[B, in_size] -> image [B, C, S, S] in [-1, 1]."""

    def __init__(
        self,
        channels: Positive,
        size: Positive,
        in_size: Positive,
        hidden: Sequence[Positive] = (512, 1024),
    ) -> None:
        super().__init__()
        self.shape = (channels, size, size)
        self.net = mlp([in_size, *hidden, math.prod(self.shape)])

    def forward(self, code: Tensor) -> Tensor:
        return _to_image(self.net(code)).unflatten(1, self.shape)


class _Layout(NamedTuple):
    """Convolutions for one size of image; widths are multiples of the network's."""

    down: tuple[int, ...]  # widths of convolutions of stride 2, padding 1
    kernel: int  # of these
    up: Plan


_LAYOUTS = {
    28: _Layout((1, 1, 1), 4, PLANS[28]),
    32: _Layout((1, 2, 4), 4, Plan((4, 4), (*(Layer(w, 4, 2, 1) for w in (4, 2, 1)), Layer(0, 3, 1, 1)))),
    44: _Layout((1, 1, 2, 4), 4, Plan((5, 5), (*(Layer(w, 4, 2, 1) for w in (4, 2, 1)), Layer(0, 5, 1)))),
    64: _Layout((1, 2, 4, 4), 5, PLANS[64]),
}


class ConvFeatures(nn.Module):
    """Image [B, C, S, S] -> [B, num_features]; S is 28, 32, 44 or 64.

    Args:
        width: channels of the first block.
        unit_range: the first layer is given pixels from 0 to 1, as the authors' is, instead of -1 to 1.
    """

    def __init__(
        self, channels: Positive, size: Positive, width: Positive = 32, unit_range: bool = False
    ) -> None:
        super().__init__()
        self.unit_range = unit_range
        layout = _layout(size)
        widths = [channels, *(width * factor for factor in layout.down)]
        blocks: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            blocks += normed(nn.Conv2d(narrow, wide, layout.kernel, stride=2, padding=1, bias=False))
            size = (size + 2 - layout.kernel) // 2 + 1
        self.num_features = 4 * width
        self.net = nn.Sequential(
            *blocks, nn.Flatten(), nn.Linear(widths[-1] * size**2, self.num_features), nn.LeakyReLU(0.01)
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.net(in_unit_range(image) if self.unit_range else image)


class ConvImages(nn.Module):
    """[B, in_size] -> image [B, C, S, S]; S is 28, 32, 44 or 64.

    Args:
        width: channels before the image.
        bounded: whether the image ends in [-1, 1]; False is for data with values beyond.
    """

    def __init__(
        self,
        channels: Positive,
        size: Positive,
        in_size: Positive,
        width: Positive = 32,
        bounded: bool = True,
    ) -> None:
        super().__init__()
        (first, side), layers = _layout(size).up
        self.start = (first * width, side, side)
        self.stem = nn.Linear(in_size, math.prod(self.start))
        blocks, now = [], first * width
        for layer in layers:
            wide = layer.width * width or channels
            convolution = nn.ConvTranspose2d(now, wide, *layer[1:], bias=False)
            blocks += normed(convolution) if layer.width else [convolution]
            now = wide
        self.blocks = nn.Sequential(*blocks)
        self.bounded = bounded

    def forward(self, code: Tensor) -> Tensor:
        image = self.blocks(self.stem(code).unflatten(1, self.start))
        return _to_image(image) if self.bounded else image


def _layout(size: int) -> _Layout:
    if size not in _LAYOUTS:
        raise ValueError(
            f"size={size}: Multiband's convolutional networks are made for images of "
            f"{', '.join(map(str, _LAYOUTS))} pixels. Set data.spec.size to one of these, or take dense ones"
        )
    return _LAYOUTS[size]


def _to_image(logits: Tensor) -> Tensor:
    """2 sigmoid(x) - 1: the authors' sigmoid, in the range [-1, 1]."""
    return torch.tanh(0.5 * logits)
