"""Penalties that keep codes sparse: small frozen objects that a config can name.

They are called as every penalty of an autoencoder is, with (code, image, encoder), and look at the code only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Lt
from torch import Tensor, nn


@dataclass(frozen=True)
class AbsoluteActivity:
    """The L1 norm of each code: [B, Z] -> [B]."""

    def __call__(self, code: Tensor, image: Tensor, encoder: nn.Module) -> Tensor:
        return code.abs().sum(1)


@dataclass(frozen=True)
class KLActivity:
    """KL(Bernoulli(rho) || Bernoulli(mean activity)) in nats, summed over units: [B, Z] in [0, 1] -> [].

    The mean is taken over the batch (of each process), so there is no value per image; the source takes it
    over all training images. Means are kept 1e-6 away from 0 and 1.

    Args:
        rho: the activity that each unit should have on average.

    Source: Ng 2011, "Sparse autoencoder", CS294A lecture notes, section 3.
    """

    rho: Annotated[float, Gt(0), Lt(1)] = 0.05

    def __call__(self, code: Tensor, image: Tensor, encoder: nn.Module) -> Tensor:
        mean = code.mean(0).clamp(1e-6, 1 - 1e-6)
        on = self.rho * (self.rho / mean).log()
        off = (1 - self.rho) * ((1 - self.rho) / (1 - mean)).log()
        return (on + off).sum()
