"""A network that learns where codes lie: noise of a known distribution in, codes out.

Source: Deja et al. 2020, "End-to-end Sinkhorn autoencoder with noise generator", arXiv:2006.06704. The
authors' own layer sizes were not found; these are the ones of two later implementations by others.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_gen.core.types import NonNegative, Positive
from lit_gen.nets.layers import mlp, with_condition

_SLOPE = 0.2


class NoiseGenerator(nn.Module):
    """Noise [B, noise_size] and condition [B, K] -> codes [B, out_size].

    Noise and condition have a layer each, of width 2 h and h; two layers of width 4 h follow on both.

    Args:
        width: h.
        condition_size: K; 0 takes no condition and has no branch for it.
    """

    def __init__(
        self,
        noise_size: Positive,
        out_size: Positive,
        width: Positive = 128,
        condition_size: NonNegative = 0,
    ) -> None:
        super().__init__()
        self.noise_size, self.condition_size = noise_size, condition_size
        self.of_noise = nn.Sequential(nn.Linear(noise_size, 2 * width), nn.LeakyReLU(_SLOPE))
        joined, self.of_condition = 2 * width, None
        if condition_size:
            self.of_condition = nn.Sequential(nn.Linear(condition_size, width), nn.LeakyReLU(_SLOPE))
            joined = 3 * width
        self.of_both = mlp([joined, 4 * width, 4 * width, out_size], _SLOPE)

    def forward(self, noise: Tensor, condition: Tensor | None = None) -> Tensor:
        with_condition(noise, condition, self.condition_size)  # refuses a condition too many or too few
        features = self.of_noise(noise)
        if self.of_condition is not None:
            features = torch.cat([features, self.of_condition(condition)], 1)
        return self.of_both(features)
