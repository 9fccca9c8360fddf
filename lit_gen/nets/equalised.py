"""Layers of progressively grown networks: run-time scaled weights, pixel norm, minibatch standard deviation.

Source: Karras et al. 2018, "Progressive growing of GANs", arXiv:1710.10196, sections 3 and 4.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gen.core.types import Positive


class EqualisedLinear(nn.Module):
    """Linear layer whose weights are N(0, 1) and are multiplied by gain / sqrt(inputs) when it runs.

    All weights have the same range then, and an adaptive optimizer moves them at the same speed. Inputs of
    unit variance give outputs of variance gain^2.

    Args:
        gain: sqrt(2) keeps the variance through a ReLU that follows.
    """

    def __init__(self, in_size: Positive, out_size: Positive, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_size, in_size))
        self.bias = nn.Parameter(torch.zeros(out_size))
        self.scale = gain / math.sqrt(in_size)

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight * self.scale, self.bias)


class EqualisedConv2d(nn.Module):
    """Convolution that keeps the size of the image, with weights as in `EqualisedLinear`.

    Args:
        kernel: odd side of the window.
    """

    def __init__(
        self, in_channels: Positive, out_channels: Positive, kernel: Positive = 3, gain: float = 1.0
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"EqualisedConv2d: kernel={kernel}; an odd one keeps the size of the image")
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.scale = gain / math.sqrt(in_channels * kernel**2)
        self.padding = kernel // 2

    def forward(self, image: Tensor) -> Tensor:
        return F.conv2d(image, self.weight * self.scale, self.bias, padding=self.padding)


class PixelNorm(nn.Module):
    """Every pixel's vector of features, dimension 1, gets a mean square of 1. Source: section 4.2."""

    def forward(self, features: Tensor) -> Tensor:
        # In 32 bits: 1e-8 is 0 in 16 bits, and a pixel without features would become nan.
        square = features.float().square().mean(1, keepdim=True)
        return features * torch.rsqrt(square + 1e-8).to(features.dtype)


class MinibatchStd(nn.Module):
    """Adds a channel that says how much the images of a group differ: [B, C, H, W] -> [B, C + 1, H, W].

    The standard deviation of every feature over the group, averaged over features and pixels, is the same
    for all images of the group. Source: section 3.

    Args:
        group_size: images in a group, neighbours in the batch; where it does not divide the batch, the
            largest smaller divisor is taken.
    """

    def __init__(self, group_size: Positive = 4) -> None:
        super().__init__()
        self.group_size = group_size

    def forward(self, features: Tensor) -> Tensor:
        count, _, height, width = features.shape
        size = next(n for n in range(min(self.group_size, count), 0, -1) if count % n == 0)
        groups = features.float().unflatten(0, (-1, size))
        # Not torch.std: its gradient is not finite where all images are the same.
        std = (groups.var(1, unbiased=False) + 1e-8).sqrt().flatten(1).mean(1)
        channel = std.to(features.dtype).repeat_interleave(size).view(-1, 1, 1, 1)
        return torch.cat([features, channel.expand(-1, 1, height, width)], 1)
