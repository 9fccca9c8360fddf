"""Generators whose networks may be told the task or the class of an image."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gen.core.module import LitGenerator
from lit_gen.core.types import Batch, NonNegative

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


class CodedGenerator(ConditionalGenerator):
    """Has a decoder of codes, and keeps the promise `Reconstructs`; a family says what `encode` is.

    Attributes:
        nets_are_told: whether encoder and decoder get the condition.
        decoder: code [B, Z] and condition [B, K] or None -> image [B, C, S, S] in [-1, 1].
    """

    nets_are_told: bool = True
    decoder: nn.Module

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not encode")

    @torch.no_grad()
    def decode(self, codes: Tensor, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        return self.decoder(codes, self.told(label=label, task=task))

    @torch.no_grad()
    def reconstruct(self, batch: Batch) -> Tensor:
        return self.decode(self.encode(batch), label=batch.label, task=batch.task)

    def told(self, **conditions: Tensor | None) -> Tensor | None:
        """What encoder and decoder get beside image and code."""
        return self.one_hot(**conditions) if self.nets_are_told else None
