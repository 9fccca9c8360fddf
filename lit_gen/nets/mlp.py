"""Dense encoder and decoder for small images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn

from lit_gen.core.types import Fraction, NonNegative, Positive
from lit_gen.nets.layers import in_unit_range, mlp, with_condition


class DenseEncoder(nn.Module):
    """Image [B, C, S, S] and condition [B, K] -> [B, out_size].

    Args:
        hidden: widths of the layers between the pixels and the output.
        condition_size: K; 0 takes no condition.
        slope: of LeakyReLU below 0; with 0 it is ReLU.
        unit_range: the first layer is given pixels from 0 to 1 instead of -1 to 1.
    """

    def __init__(
        self,
        channels: Positive,
        size: Positive,
        out_size: Positive,
        hidden: Sequence[Positive] = (512, 256),
        condition_size: NonNegative = 0,
        slope: Fraction = 0.01,
        unit_range: bool = False,
    ) -> None:
        super().__init__()
        self.condition_size, self.unit_range = condition_size, unit_range
        self.net = mlp([channels * size * size + condition_size, *hidden, out_size], slope)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Tensor:
        pixels = (in_unit_range(image) if self.unit_range else image).flatten(1)
        return self.net(with_condition(pixels, condition, self.condition_size))


class DenseDecoder(nn.Module):
    """Code [B, in_size] and condition [B, K] -> image [B, C, S, S] in [-1, 1], through a tanh.

    Args:
        gain: before the tanh; 0.5 makes it the sigmoid of nets for [0, 1]: tanh(x / 2) = 2 sigmoid(x) - 1.
    """

    def __init__(
        self,
        channels: Positive,
        size: Positive,
        in_size: Positive,
        hidden: Sequence[Positive] = (256, 512),
        condition_size: NonNegative = 0,
        slope: Fraction = 0.01,
        gain: Annotated[float, Gt(0)] = 1.0,
    ) -> None:
        super().__init__()
        self.condition_size, self.gain = condition_size, gain
        self.shape = (channels, size, size)
        self.net = mlp([in_size + condition_size, *hidden, math.prod(self.shape)], slope)

    def forward(self, code: Tensor, condition: Tensor | None = None) -> Tensor:
        pixels = self.net(with_condition(code, condition, self.condition_size))
        return torch.tanh(self.gain * pixels).unflatten(1, self.shape)
