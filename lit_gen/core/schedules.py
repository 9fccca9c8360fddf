"""Learning-rate factors over a phase's progress in [0, 1]: small frozen objects that a config can name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt

from lit_gen.core.types import Fraction, Positive


@dataclass(frozen=True)
class Exponential:
    """rate ** (epochs done), as a per-epoch ExponentialLR does; `epochs` is the length of the phase."""

    rate: Annotated[float, Gt(0)]
    epochs: Positive

    def __call__(self, progress: float) -> float:
        # The tolerance keeps 3 / 10 * 10 from being epoch 2.
        return self.rate ** math.floor(progress * self.epochs + 1e-6)


@dataclass(frozen=True)
class Cosine:
    """Falls from 1 to `floor` along half a cosine; before it a linear warm-up over the part `warmup`."""

    floor: Fraction = 0.0
    warmup: Fraction = 0.0

    def __call__(self, progress: float) -> float:
        if progress < self.warmup:
            return progress / self.warmup
        rest = (progress - self.warmup) / (1 - self.warmup) if self.warmup < 1 else 1.0
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))


@dataclass(frozen=True)
class LinearDecay:
    """Stays 1 up to the part `start` of the phase and falls from there to 0 in a line."""

    start: Fraction = 0.5

    def __call__(self, progress: float) -> float:
        return 1.0 if progress <= self.start else (1 - progress) / (1 - self.start)
