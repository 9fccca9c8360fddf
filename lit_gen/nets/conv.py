"""Convolutional encoder and decoder for images of any size from 4 pixels on."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_gen.core.types import NonNegative, Positive
from lit_gen.nets.layers import in_unit_range, mlp, normed, with_condition


def _sizes(size: int) -> list[int]:
    """Side lengths, halved and rounded up until 2 to 4 pixels are left: 28 -> 28, 14, 7, 4."""
    sizes = [size]
    while sizes[-1] > 4:
        sizes.append((sizes[-1] + 1) // 2)
    return sizes


class ConvEncoder(nn.Module):
    """Image [B, C, S, S] and condition [B, K] -> [B, out_size].

    Each block halves the side and doubles the width until 2 to 4 pixels are left; the condition joins before
    the last, linear layers.

    Args:
        width: channels of the first block.
        hidden: width of the linear layer before the output; None is without one.
        condition_size: K; 0 takes no condition.
        unit_range: the first layer is given pixels from 0 to 1 instead of -1 to 1.
    """

    def __init__(
        self,
        channels: Positive,
        size: Positive,
        out_size: Positive,
        width: Positive = 32,
        hidden: Positive | None = 256,
        condition_size: NonNegative = 0,
        unit_range: bool = False,
    ) -> None:
        super().__init__()
        sizes = _sizes(size)
        widths = [channels, *(width * 2**i for i in range(len(sizes) - 1))]
        blocks: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            blocks += normed(nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False))
        self.condition_size, self.unit_range = condition_size, unit_range
        self.blocks = nn.Sequential(*blocks, nn.Flatten())
        widths_of_head = [hidden, out_size] if hidden else [out_size]
        self.head = mlp([widths[-1] * sizes[-1] ** 2 + condition_size, *widths_of_head])

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Tensor:
        features = self.blocks(in_unit_range(image) if self.unit_range else image)
        return self.head(with_condition(features, condition, self.condition_size))


class ConvDecoder(nn.Module):
    """Code [B, in_size] and condition [B, K] -> image [B, C, S, S] in [-1, 1]: the mirrored encoder."""

    def __init__(
        self,
        channels: Positive,
        size: Positive,
        in_size: Positive,
        width: Positive = 32,
        hidden: Positive = 256,
        condition_size: NonNegative = 0,
    ) -> None:
        super().__init__()
        sizes = _sizes(size)[::-1]  # smallest first
        depth = len(sizes) - 1
        widths = [width * 2**i for i in range(depth)][::-1] or [width]
        self.condition_size = condition_size
        start = mlp([in_size + condition_size, hidden, widths[0] * sizes[0] ** 2])
        self.stem = nn.Sequential(*start, nn.LeakyReLU(0.01))
        self.start = (widths[0], sizes[0], sizes[0])
        blocks: list[nn.Module] = []
        for level, target in enumerate(sizes[1:]):
            narrow = widths[min(level + 1, depth - 1)]
            # 2 s - 1 + output_padding pixels come out; odd targets take 0, even ones 1.
            padding = target - (2 * sizes[level] - 1)
            where = {"stride": 2, "padding": 1, "output_padding": padding}
            blocks += normed(nn.ConvTranspose2d(widths[level], narrow, 3, **where, bias=False))
        self.blocks = nn.Sequential(*blocks, nn.Conv2d(widths[-1], channels, 3, padding=1))

    def forward(self, code: Tensor, condition: Tensor | None = None) -> Tensor:
        hidden = self.stem(with_condition(code, condition, self.condition_size)).unflatten(1, self.start)
        return torch.tanh(self.blocks(hidden))
