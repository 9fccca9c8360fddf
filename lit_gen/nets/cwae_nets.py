"""The convolutional nets with which autoencoders are compared on CIFAR-10 and CelebA.

Source: Knop et al. 2020, "Cramer-Wold auto-encoder", arXiv:1805.09235, in the layout of their later code. The
dense nets of the same comparison are `DenseEncoder` and `DenseDecoder` with hidden=[200,200,200], slope=0, in
net=knop_dense. All encoders see pixels from 0 to 1, as published. Convolutions before a batch normalisation
have no bias, which it would take away.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from lit_gen.core.types import Fraction, NonNegative, Positive
from lit_gen.nets.layers import in_unit_range, mlp, normed, with_condition

_CIFAR_WIDTH = 32
_CELEBA_WIDTHS = (128, 256, 512, 1024)


class _Net(nn.Module):
    """Convolutions on the side of the image, linear layers on that of the code.

    Args:
        size: of the images, a multiple of `divisor`.
        hidden: widths of the linear layers between; None takes the published ones.
        condition_size: K; 0 takes no condition, which joins before the linear layers.
        slope: of LeakyReLU below 0; with 0 it is ReLU.
    """

    divisor: ClassVar[int]  # by which the convolutions shrink images, or enlarge features
    width: ClassVar[int]  # channels of the smallest features
    published: ClassVar[tuple[int, ...]] = ()  # hidden layers
    gain: ClassVar[float] = 1.0  # before the tanh

    def _prepare(self, size: int, hidden: Sequence[int] | None, condition_size: int) -> tuple[int, list[int]]:
        """The side of the smallest features, and the widths between them and the code."""
        if size % self.divisor:
            raise ValueError(
                f"{type(self).__name__}: size={size}; images must have a side that {self.divisor} divides"
            )
        self.condition_size = condition_size
        return size // self.divisor, [*(self.published if hidden is None else hidden)]


class _Encoder(_Net):
    def __init__(
        self,
        channels: Positive,
        size: Positive,
        out_size: Positive,
        hidden: Sequence[Positive] | None = None,
        condition_size: NonNegative = 0,
        slope: Fraction = 0.0,
    ) -> None:
        super().__init__()
        side, between = self._prepare(size, hidden, condition_size)
        self.convolutions = nn.Sequential(*self._convolutions(channels, slope), nn.Flatten())
        self.head = mlp([self.width * side**2 + condition_size, *between, out_size], slope)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Tensor:
        features = self.convolutions(in_unit_range(image))
        return self.head(with_condition(features, condition, self.condition_size))


class _Decoder(_Net):
    def __init__(
        self,
        channels: Positive,
        size: Positive,
        in_size: Positive,
        hidden: Sequence[Positive] | None = None,
        condition_size: NonNegative = 0,
        slope: Fraction = 0.0,
    ) -> None:
        super().__init__()
        side, between = self._prepare(size, hidden, condition_size)
        self.stem = nn.Sequential(
            mlp([in_size + condition_size, *between, self.width * side**2], slope),
            nn.LeakyReLU(slope),
            nn.Unflatten(1, (self.width, side, side)),
        )
        self.convolutions = nn.Sequential(*self._convolutions(channels, slope))

    def forward(self, code: Tensor, condition: Tensor | None = None) -> Tensor:
        features = self.stem(with_condition(code, condition, self.condition_size))
        return torch.tanh(self.gain * self.convolutions(features))


class CIFAREncoder(_Encoder):
    """Image [B, C, S, S] and condition [B, K] -> [B, out_size]; four 2 x 2 convolutions, S even."""

    divisor, width, published = 2, _CIFAR_WIDTH, (128,)

    def _convolutions(self, channels: int, slope: float) -> list[nn.Module]:
        layers: list[nn.Module] = []
        widths = (channels, channels, _CIFAR_WIDTH, _CIFAR_WIDTH, _CIFAR_WIDTH)
        for level, (narrow, wide) in enumerate(pairwise(widths)):
            if level != 1:  # only the second one halves the side, which needs no padding
                layers.append(nn.ZeroPad2d((0, 1, 0, 1)))
            layers += [nn.Conv2d(narrow, wide, 2, stride=2 if level == 1 else 1), nn.LeakyReLU(slope)]
        return layers


class CIFARDecoder(_Decoder):
    """Code [B, in_size] and condition [B, K] -> image [B, C, S, S] in [-1, 1], S even."""

    divisor, width, published = 2, _CIFAR_WIDTH, (128,)
    gain = 0.5  # the published sigmoid on [0, 1] is tanh of half the argument on [-1, 1]

    def _convolutions(self, channels: int, slope: float) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for _ in range(2):
            # Negative padding cuts off what a transposed convolution adds.
            layers += [nn.ConvTranspose2d(self.width, self.width, 2), nn.ZeroPad2d((0, -1, 0, -1))]
            layers.append(nn.LeakyReLU(slope))
        layers += [nn.ConvTranspose2d(self.width, self.width, 3, stride=2), nn.LeakyReLU(slope)]  # side S + 1
        return [*layers, nn.Conv2d(self.width, channels, 2)]


class CelebAEncoder(_Encoder):
    """Image [B, C, S, S] and condition [B, K] -> [B, out_size]; four convolutions, S divisible by 16."""

    divisor, width = 16, _CELEBA_WIDTHS[-1]

    def _convolutions(self, channels: int, slope: float) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for narrow, wide in pairwise((channels, *_CELEBA_WIDTHS)):
            layers += normed(nn.Conv2d(narrow, wide, 4, stride=2, padding=1, bias=False), slope)
        return layers


class CelebADecoder(_Decoder):
    """Code [B, in_size] and condition [B, K] -> image [B, C, S, S] in [-1, 1], S divisible by 8."""

    divisor, width = 8, _CELEBA_WIDTHS[-1]

    def _convolutions(self, channels: int, slope: float) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(_CELEBA_WIDTHS[::-1]):
            layers += normed(nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False), slope)
        return [*layers, nn.ConvTranspose2d(_CELEBA_WIDTHS[0], channels, 3, padding=1)]
