"""What configs can compute: `${times:2,${..latent_size}}`."""

from __future__ import annotations

import math

from omegaconf import OmegaConf


def register() -> None:
    """Makes the resolvers known to OmegaConf; may be called again."""
    OmegaConf.register_new_resolver("times", _times, replace=True)


def _times(*factors: int | float) -> int | float:
    return math.prod(factors)
