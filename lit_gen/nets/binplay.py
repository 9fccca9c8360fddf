"""BinPlay's convolutional decoder and its classifier; its encoder is a `ConvEncoder`.

Source: the authors' code for Deja et al. 2020, arXiv:2011.14960.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_gen.core.types import Fraction, NonNegative, Positive
from lit_gen.nets.layers import mlp, normed, with_condition

_FEATURES = (32, 8, 8)  # that the decoder's linear layers make


class BinPlayDecoder(nn.Module):
    """Code [B, in_size] and condition [B, K] -> image [B, C, S, S] in [-1, 1], S = 28 or 32."""

    def __init__(
        self, channels: Positive, size: Positive, in_size: Positive, condition_size: NonNegative = 0
    ) -> None:
        super().__init__()
        if size not in (28, 32):
            raise ValueError(f"size={size}: these layers make 28 or 32 pixels; net=binplay_dense makes any")
        self.condition_size = condition_size
        kernels, padding = ((3, 3, 4), 2) if size == 28 else ((4, 4, 4), 1)
        sizes = (in_size + condition_size, 300, math.prod(_FEATURES))
        self.linear = nn.Sequential(mlp(sizes), nn.LeakyReLU())
        self.net = nn.Sequential(
            *normed(nn.ConvTranspose2d(32, 128, 3, 2, 2, bias=False)),
            *normed(nn.ConvTranspose2d(128, 192, kernels[0], 2, bias=False)),
            *normed(nn.ConvTranspose2d(192, 160, kernels[1], bias=False)),
            nn.ConvTranspose2d(160, channels, kernels[2], padding=padding, bias=False),
        )

    def forward(self, code: Tensor, condition: Tensor | None = None) -> Tensor:
        features = self.linear(with_condition(code, condition, self.condition_size))
        # The authors' sigmoid makes pixels from 0 to 1: 2 sigmoid(x) - 1 = tanh(x / 2).
        return torch.tanh(self.net(features.unflatten(1, _FEATURES)) / 2)


class DropoutLeNet(nn.Module):
    """Three convolutions and linear layers, with dropout between them: image -> features [B, hidden[-1]] and
    logits [B, K].

    Args:
        hidden: widths of the linear layers before the classes; (84,) for digits, (128, 64) for CIFAR-10.
    """

    def __init__(
        self,
        channels: Positive,
        num_classes: Positive,
        size: Positive,
        width: Positive = 64,
        hidden: Sequence[Positive] = (84,),
        dropout: Fraction = 0.6,
    ) -> None:
        super().__init__()
        if size < 8:
            raise ValueError(f"size={size}: nothing is left after three halvings; 8 is the least")
        widths, layers = (channels, width, 2 * width, 4 * width), []
        for narrow, wide in pairwise(widths):
            layers += [*normed(nn.Conv2d(narrow, wide, 4, 2, 1, bias=False)), nn.Dropout(dropout)]
        layers.append(nn.Flatten())
        sizes = (widths[-1] * (size // 8) ** 2, *hidden)
        for narrow, wide in pairwise(sizes):
            layers += [nn.Linear(narrow, wide), nn.LeakyReLU(), nn.Dropout(dropout)]
        self.num_features = sizes[-1]
        self.features, self.classes = nn.Sequential(*layers), nn.Linear(sizes[-1], num_classes)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(image)
        return features, self.classes(features)
