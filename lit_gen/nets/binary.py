"""Codes that are partly continuous and partly binary, and the encoder that gives both.

Source: Deja et al. 2022, "Multiband VAE", arXiv:2106.12196. Relaxation of the bits: Jang et al. 2017,
arXiv:1611.01144, and Maddison et al. 2017, arXiv:1611.00712.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lit_gen.core.types import NonNegative, Positive

_HARD_BELOW = 0.1


class BinaryPosterior(NamedTuple):
    """What an encoder says about B images."""

    mean: Tensor  # [B, Z]
    log_var: Tensor  # [B, Z]
    logits: Tensor  # [B, bits]; a bit is +1 with probability sigmoid(2 * logit)


class BinaryEncoder(nn.Module):
    """Image [B, C, S, S] -> BinaryPosterior.

    Args:
        features: image -> [B, features.num_features].
        num_bits: 0 is a purely continuous code.
        bias_of_bits: whether the bits' linear layer has a bias.
    """

    def __init__(
        self, features: nn.Module, latent_size: Positive, num_bits: NonNegative, bias_of_bits: bool = True
    ) -> None:
        super().__init__()
        self.features = features
        self.latent_size, self.num_bits = latent_size, num_bits
        width = features.num_features
        # Mean and log-variance as one layer: the same numbers as two, in half the calls.
        self.gaussian = nn.Linear(width, 2 * latent_size)
        self.bits = nn.Linear(width, num_bits, bias=bias_of_bits) if num_bits else None

    def forward(self, image: Tensor) -> BinaryPosterior:
        features = self.features(image)
        mean, log_var = self.gaussian(features).chunk(2, dim=1)
        logits = features.new_zeros(len(features), 0) if self.bits is None else self.bits(features)
        return BinaryPosterior(mean, log_var, logits)


def gumbel_temperature(progress: float, num_epochs: int) -> float | None:
    """Temperature of the relaxed bits, constant within an epoch; None: hard bits.

    max(1 - 5 e / N, 0.01) in epoch e of N, hard from below 0.1 on: from epoch 13 of 70 and epoch 38 of 210.

    Args:
        progress: in [0, 1], the part of the N epochs that is done.
        num_epochs: N.
    """
    # The tolerance keeps 13 / 70 * 70 from being epoch 12.
    epoch = math.floor(progress * num_epochs + 1e-6)
    temperature = max(1 - 5 * epoch / num_epochs, 0.01)
    return None if temperature < _HARD_BELOW else temperature


def relaxed_bits(logits: Tensor, temperature: float | None) -> Tensor:
    """Draws bits: [B, bits] -> [B, bits] in (-1, 1), or -1 and +1 when the temperature is None.

    The first of two classes with logits (a, -a) under Gumbel noise, as 2 p - 1. The difference of two Gumbel
    variables is logistic, so p = sigmoid((2 a + logistic) / temperature) and 2 p - 1 is a tanh: one uniform
    number a bit. Hard bits have the gradient of soft ones at temperature 1 (straight through).
    """
    uniform = torch.rand_like(logits).clamp_(1e-7, 1 - 1e-7)
    logistic = torch.log(uniform) - torch.log1p(-uniform)
    soft = torch.tanh((logits + 0.5 * logistic) / (temperature or 1.0))
    if temperature is not None:
        return soft
    return soft + (torch.sign(soft) - soft).detach()


def thresholded(uniform: Tensor, chance: Tensor) -> Tensor:
    """+1 where uniform < chance, else -1, as float."""
    return (uniform < chance).to(uniform.dtype).mul_(2).sub_(1)


def gaussian_code(posterior: BinaryPosterior) -> Tensor:
    """Draws the continuous part, [B, Z]."""
    return posterior.mean + (0.5 * posterior.log_var).exp() * torch.randn_like(posterior.mean)
