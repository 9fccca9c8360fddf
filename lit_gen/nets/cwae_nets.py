"""The convolutional nets with which autoencoders are compared on CIFAR-10 and CelebA.

Source: Knop et al. 2020, "Cramer-Wold auto-encoder", arXiv:1805.09235, in the layout of their later code. The
dense nets of the same comparison are `DenseEncoder` and `DenseDecoder` with hidden=[200,200,200], slope=0.
Convolutions before a batch normalisation have no bias, which it would take away.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_gen.core.types import Fraction, NonNegative, Positive
from lit_gen.nets.layers import mlp, normed, with_condition

_CIFAR_WIDTH = 32
_CELEBA_WIDTHS = (128, 256, 512, 1024)


class CIFAREncoder(nn.Module):
    """Image [B, C, S, S] and condition [B, K] -> [B, out_size]; four 2 x 2 convolutions, S even.

    Args:
        hidden: widths of the linear layers before the last.
        condition_size: K; 0 takes no condition, which joins before the linear layers.
        slope: of LeakyReLU below 0; with 0 it is ReLU.
    """

    def __init__(
        self,
        channels: Positive,
        size: Positive,
        out_size: Positive,
        hidden: Sequence[int] = (128,),
        condition_size: NonNegative = 0,
        slope: Fraction = 0.0,
    ) -> None:
        super().__init__()
        _refuse_size("CIFAREncoder", size, 2)
        self.condition_size = condition_size
        layers: list[nn.Module] = []
        widths = (channels, channels, _CIFAR_WIDTH, _CIFAR_WIDTH, _CIFAR_WIDTH)
        for level, (narrow, wide) in enumerate(pairwise(widths)):
            if level != 1:  # only the second one halves the side, which needs no padding
                layers.append(nn.ZeroPad2d((0, 1, 0, 1)))
            layers += [nn.Conv2d(narrow, wide, 2, stride=2 if level == 1 else 1), nn.LeakyReLU(slope)]
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        flat = _CIFAR_WIDTH * (size // 2) ** 2
        self.head = mlp([flat + condition_size, *hidden, out_size], slope)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.head(with_condition(self.convolutions(image), condition, self.condition_size))


class CIFARDecoder(nn.Module):
    """Code [B, in_size] and condition [B, K] -> image [B, C, S, S] in [-1, 1], S even.

    The published sigmoid on [0, 1] is tanh of half the argument on [-1, 1].
    """

    def __init__(
        self,
        channels: Positive,
        size: Positive,
        in_size: Positive,
        hidden: Sequence[int] = (128,),
        condition_size: NonNegative = 0,
        slope: Fraction = 0.0,
    ) -> None:
        super().__init__()
        _refuse_size("CIFARDecoder", size, 2)
        self.condition_size = condition_size
        width = _CIFAR_WIDTH
        self.stem = nn.Sequential(
            mlp([in_size + condition_size, *hidden, width * (size // 2) ** 2], slope),
            nn.LeakyReLU(slope),
            nn.Unflatten(1, (width, size // 2, size // 2)),
        )
        layers: list[nn.Module] = []
        for _ in range(2):
            # Negative padding cuts off what a transposed convolution adds.
            layers += [
                nn.ConvTranspose2d(width, width, 2),
                nn.ZeroPad2d((0, -1, 0, -1)),
                nn.LeakyReLU(slope),
            ]
        layers += [nn.ConvTranspose2d(width, width, 3, stride=2), nn.LeakyReLU(slope)]  # side S + 1
        self.convolutions = nn.Sequential(*layers, nn.Conv2d(width, channels, 2))

    def forward(self, code: Tensor, condition: Tensor | None = None) -> Tensor:
        hidden = self.stem(with_condition(code, condition, self.condition_size))
        return torch.tanh(self.convolutions(hidden) / 2)


class CelebAEncoder(nn.Module):
    """Image [B, C, S, S] and condition [B, K] -> [B, out_size]; four strided convolutions, S divisible by 16.

    The arguments are those of `CIFAREncoder`.
    """

    def __init__(
        self,
        channels: Positive,
        size: Positive,
        out_size: Positive,
        hidden: Sequence[int] = (),
        condition_size: NonNegative = 0,
        slope: Fraction = 0.0,
    ) -> None:
        super().__init__()
        _refuse_size("CelebAEncoder", size, 16)
        self.condition_size = condition_size
        layers: list[nn.Module] = []
        for narrow, wide in pairwise((channels, *_CELEBA_WIDTHS)):
            layers += normed(nn.Conv2d(narrow, wide, 4, stride=2, padding=1, bias=False), slope)
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        flat = _CELEBA_WIDTHS[-1] * (size // 16) ** 2
        self.head = mlp([flat + condition_size, *hidden, out_size], slope)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.head(with_condition(self.convolutions(image), condition, self.condition_size))


class CelebADecoder(nn.Module):
    """Code [B, in_size] and condition [B, K] -> image [B, C, S, S] in [-1, 1], S divisible by 8."""

    def __init__(
        self,
        channels: Positive,
        size: Positive,
        in_size: Positive,
        hidden: Sequence[int] = (),
        condition_size: NonNegative = 0,
        slope: Fraction = 0.0,
    ) -> None:
        super().__init__()
        _refuse_size("CelebADecoder", size, 8)
        self.condition_size = condition_size
        widths, side = _CELEBA_WIDTHS[::-1], size // 8
        self.stem = nn.Sequential(
            mlp([in_size + condition_size, *hidden, widths[0] * side**2], slope),
            nn.LeakyReLU(slope),
            nn.Unflatten(1, (widths[0], side, side)),
        )
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += normed(nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False), slope)
        self.convolutions = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], channels, 3, padding=1))

    def forward(self, code: Tensor, condition: Tensor | None = None) -> Tensor:
        hidden = self.stem(with_condition(code, condition, self.condition_size))
        return torch.tanh(self.convolutions(hidden))


def _refuse_size(name: str, size: int, divisor: int) -> None:
    if size % divisor:
        raise ValueError(f"{name}: size={size}; images must have a side that {divisor} divides")
