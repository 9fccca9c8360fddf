"""Blocks that several networks share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn


def mlp(sizes: Sequence[int], slope: float = 0.01) -> nn.Sequential:
    """Linear layers of these widths with LeakyReLU between them, none after the last.

    Args:
        slope: of LeakyReLU below 0; with 0 it is ReLU.
    """
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(sizes):
        layers += [nn.Linear(narrow, wide), nn.LeakyReLU(slope)]
    return nn.Sequential(*layers[:-1])


def normed(layer: nn.Conv2d | nn.ConvTranspose2d, slope: float = 0.01) -> list[nn.Module]:
    """The convolution with batch norm and LeakyReLU behind it; a bias would be taken away by the norm."""
    return [layer, nn.BatchNorm2d(layer.out_channels), nn.LeakyReLU(slope)]


class Layer(NamedTuple):
    """A (transposed) convolution; `width` in multiples of the net's, 0 for the channels of images."""

    width: int
    kernel: int
    stride: int
    padding: int = 0
    output_padding: int = 0


class Plan(NamedTuple):
    """What makes images of features."""

    start: tuple[int, int]  # width in multiples, side
    layers: tuple[Layer, ...]


PLANS = {
    28: Plan((4, 4), (Layer(4, 4, 2), Layer(2, 4, 2), Layer(1, 4, 1), Layer(0, 4, 1))),
    64: Plan((8, 8), (*(Layer(width, 5, 2, 2, 1) for width in (4, 2, 1)), Layer(0, 5, 1, 2))),
}
"""By the side of the image: those that Multiband's VAE and GAN share."""


def in_unit_range(image: Tensor) -> Tensor:
    """Pixels from -1 to 1 as pixels from 0 to 1."""
    return (image + 1) / 2


def with_condition(features: Tensor, condition: Tensor | None, size: int) -> Tensor:
    """Features [B, F] with the condition [B, size] behind them; unchanged when size is 0.

    Raises:
        ValueError: the network depends on a condition and got none, or the other way round.
    """
    if (condition is None) != (size == 0):
        got = "none" if condition is None else f"one of size {condition.shape[1]}"
        raise ValueError(f"this network takes a condition of size {size} (0 = none), got {got}")
    return features if condition is None else torch.cat([features, condition], 1)
