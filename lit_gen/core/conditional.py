"""Generators whose networks may be told the task or the class of an image."""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from lit_gen.core.module import LitGenerator
from lit_gen.core.types import NonNegative

ConditionKind = Literal["none", "task", "label"]


class ConditionalGenerator(LitGenerator):
    """Knows its condition as a one-hot vector.

    Args:
        condition: what the networks are told.
        condition_size: K: number of tasks, number of classes, or 0.
    """

    def __init__(
        self, condition: ConditionKind = "none", condition_size: NonNegative = 0, **base: Any
    ) -> None:
        super().__init__(**base)
        if (condition == "none") != (condition_size == 0):
            raise ValueError(
                f"{type(self).__name__}: condition={condition!r} with condition_size={condition_size}; a "
                "condition needs the number of its values (condition=label needs data with labels), and "
                "condition=none needs 0"
            )
        self.condition, self.condition_size = condition, condition_size
        self.conditions = frozenset() if condition == "none" else frozenset({condition})

    def one_hot(self, **conditions: Tensor | None) -> Tensor | None:
        """float32 [B, K] of the condition that this model takes; an unlabelled image (-1) gives zeros.

        Args:
            conditions: `label` and `task`, int64 [B]; None where it is not taken.
        """
        if self.condition == "none":
            return None
        value = conditions[self.condition].to(self.device)
        known = F.one_hot(value.clamp(min=0), self.condition_size).float()
        return known * (value >= 0).unsqueeze(1)
