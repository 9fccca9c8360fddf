"""The classifier on top of a U-Net's pooled features. Source: Deja et al. 2023, arXiv:2301.13622, and the
authors' code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gen.core.types import Fraction, NonNegative, Positive
from lit_gen.nets.unet import embedded

_WAVES = 32  # size of the embedding of a time


class FeatureHead(nn.Module):
    """Features [B, F] and what a network is told of their time [B] -> logits [B, num_classes].

    The time is embedded and added behind the first layer. As published it is one more feature instead, as a
    number from 0 to 1000 in front of batch norm: whoever trains on clean images alone, where it is 0, divides
    it by a standard deviation of 0 wherever it is not.

    Args:
        num_features: F.
        dropout: before both layers.
        legacy: takes the time as published.
    """

    def __init__(
        self, num_features: Positive, num_classes: NonNegative, dropout: Fraction = 0.7, legacy: bool = False
    ) -> None:
        super().__init__()
        hidden, self.legacy = max(1, num_features // 2), legacy
        self.first = _layer(num_features + legacy, hidden, dropout)
        self.time = None if legacy else nn.Linear(_WAVES, hidden, bias=False)
        if self.time is not None:
            nn.init.zeros_(self.time.weight)  # times that it never saw say nothing
        self.second = nn.Sequential(nn.LeakyReLU(), *_layer(hidden, num_classes, dropout))

    def forward(self, features: Tensor, time: Tensor) -> Tensor:
        if self.time is None:
            return self.second(self.first(torch.cat([features, time[:, None].to(features.dtype)], 1)))
        return self.second(self.first(features) + self.time(embedded(time, _WAVES).to(features.dtype)))


class _Norm(nn.BatchNorm1d):
    """Batch norm to which an image without others is one as in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1 or not self.training:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def _layer(narrow: int, wide: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Dropout(dropout), _Norm(narrow), nn.Linear(narrow, wide))
