"""A small convolutional classifier for digits. Source: LeCun et al. 1998, with ReLU and max pooling in place
of the original units."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from lit_gen.core.types import Positive


class LeNet(nn.Module):
    """Two convolutions and three linear layers; the second linear layer's output, before its ReLU, is the
    features.

    Args:
        size: side at which images are looked at; others are resized to it (bilinear, no antialiasing).
    """

    num_features = 84

    def __init__(self, channels: Positive, num_classes: Positive, size: Annotated[int, Ge(16)] = 28) -> None:
        super().__init__()
        side = ((size - 4) // 2 - 4) // 2
        if side < 1:
            raise ValueError(
                f"size={size}: nothing is left after two convolutions and poolings; 16 is the least"
            )
        self.channels, self.num_classes, self.size = channels, num_classes, size
        first = [nn.Conv2d(channels, 6, 5), nn.ReLU(), nn.MaxPool2d(2)]
        second = [nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
        self.convolutions = nn.Sequential(*first, *second, nn.Flatten())
        self.features = nn.Sequential(
            nn.Linear(16 * side * side, 120), nn.ReLU(), nn.Linear(120, self.num_features)
        )
        self.classes = nn.Sequential(nn.ReLU(), nn.Linear(self.num_features, num_classes))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, S, S] in [-1, 1] -> features [B, 84] and logits [B, K]."""
        if image.shape[-2:] != (self.size, self.size):
            image = F.interpolate(image, (self.size, self.size), mode="bilinear", align_corners=False)
        features = self.features(self.convolutions(image))
        return features, self.classes(features)
