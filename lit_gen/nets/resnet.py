"""ResNet-18 for small images. Source: He et al. 2016, arXiv:1512.03385, with a first convolution of 3 x 3
that keeps the side, as is usual for images of 32 pixels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lit_gen.core.types import Positive


class ResNet18(nn.Module):
    """Eight blocks of two convolutions in four levels; the mean of the last one's output is the features.

    Args:
        width: channels of the first level; each other level has twice as many, and half the side.
    """

    def __init__(self, channels: Positive, num_classes: Positive, width: Positive = 64) -> None:
        super().__init__()
        self.num_features = 8 * width
        self.start = nn.Sequential(_conv(channels, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        blocks, narrow = [], width
        for level in range(4):
            for number in range(2):
                wide, stride = width * 2**level, 2 if level and not number else 1
                blocks.append(_Block(narrow, wide, stride))
                narrow = wide
        self.blocks = nn.Sequential(*blocks)
        self.classes = nn.Linear(self.num_features, num_classes)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, S, S] in [-1, 1] -> features [B, 8 * width] and logits [B, K]."""
        features = self.blocks(self.start(image)).mean((2, 3))
        return features, self.classes(features)


class _Block(nn.Module):
    """Two convolutions around a bypass."""

    def __init__(self, narrow: int, wide: int, stride: int) -> None:
        super().__init__()
        first = [_conv(narrow, wide, 3, stride), nn.BatchNorm2d(wide), nn.ReLU()]
        self.inner = nn.Sequential(*first, _conv(wide, wide, 3), nn.BatchNorm2d(wide))
        self.bypass: nn.Module = nn.Identity()
        if narrow != wide or stride > 1:
            self.bypass = nn.Sequential(_conv(narrow, wide, 1, stride), nn.BatchNorm2d(wide))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.inner(x) + self.bypass(x))


def _conv(narrow: int, wide: int, side: int, stride: int = 1) -> nn.Conv2d:
    """With He et al.'s first weights, and no bias in front of batch norm."""
    conv = nn.Conv2d(narrow, wide, side, stride, side // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
