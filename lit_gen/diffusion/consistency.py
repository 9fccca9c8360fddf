"""Consistency tuning: how the two noise levels are drawn at which a model is to name the same image.

Source: Geng et al. 2024, "Consistency models made easy", arXiv:2406.14548, section 3 and algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from lit_gen.core.types import Positive


@dataclass(frozen=True)
class ConsistencyTuning:
    """A phase of so many epochs in which the levels come closer to each other.

    Args:
        stages: in each of which the distance between the levels is halved.
        mean, spread: of the logarithm of the larger level.
        k, slope: of how much closer levels are where there is little noise.
    """

    epochs: Positive
    stages: Positive = 8
    mean: float = -1.1
    spread: Annotated[float, Gt(0)] = 2.0
    k: Annotated[float, Ge(0)] = 8.0
    slope: Annotated[float, Gt(0)] = 1.0

    def draw(self, count: int, progress: float, device: torch.device) -> tuple[Tensor, Tensor]:
        """Levels t and r < t, [count] each; r may be 0.

        Args:
            progress: part of the phase that is done.
        """
        t = (self.mean + self.spread * torch.randn(count, device=device)).exp()
        stage = min(int(progress * self.stages), self.stages - 1)
        part = (1 + self.k * torch.sigmoid(-self.slope * t)) / 2 ** (stage + 1)
        return t, (t * (1 - part)).clamp(min=0)
