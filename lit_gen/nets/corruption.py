"""Noise that a denoising autoencoder takes away again: small frozen objects that a config can name.

All draw from the global generator. Source: Vincent et al. 2010, "Stacked denoising autoencoders", JMLR 11,
section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from lit_gen.core.types import Fraction


@dataclass(frozen=True)
class GaussianNoise:
    """Adds independent noise to every value; the result may leave [-1, 1].

    Args:
        std: standard deviation, where the pixel range is 2.
    """

    std: Annotated[float, Ge(0)] = 0.5

    def __call__(self, image: Tensor) -> Tensor:
        return image + self.std * torch.randn_like(image)


@dataclass(frozen=True)
class Masking:
    """Blackens pixels, in all channels at once.

    Args:
        share: the probability of each pixel; the source takes exactly this part of them.
    """

    share: Fraction = 0.3

    def __call__(self, image: Tensor) -> Tensor:
        return image.masked_fill(_chance(image) < self.share, -1.0)


@dataclass(frozen=True)
class SaltAndPepper:
    """Makes pixels black or white with equal probability, in all channels at once.

    Args:
        share: the probability of each pixel to become either.
    """

    share: Fraction = 0.3

    def __call__(self, image: Tensor) -> Tensor:
        chance = _chance(image)
        return image.masked_fill(chance < self.share, 1.0).masked_fill(chance < self.share / 2, -1.0)


def _chance(image: Tensor) -> Tensor:
    """Uniform in [0, 1), [B, 1, S, S]."""
    return torch.rand_like(image[:, :1])
