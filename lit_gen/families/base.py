"""What families have in common: conditions, codes and their decoders, a latent distribution of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gen.core.module import LitGenerator
from lit_gen.core.types import Batch, NonNegative, Phase, Positive, Task
from lit_gen.families.density import LatentDensity
from lit_gen.losses.distances import widened
from lit_gen.losses.latent_penalties import LatentPenalty
from lit_gen.losses.reconstruction import squared_error

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


class LatentGenerator(CodedGenerator):
    """Gives every image one code, without noise, and decodes codes that it draws.

    A family writes `draw_codes` and what trains: `step`, or `training_phases`.

    Args:
        encoder: image [B, C, S, S] and condition [B, K] or None -> code [B, latent_size].
        decoder: code [B, latent_size] and condition -> image [B, C, S, S] in [-1, 1].
        reconstruction: (image, target) -> one value per image.
        ex_post: samples come from a density that is fitted to the codes of the training images after
            training, instead of from the family's own distribution.
        num_components: of ex_post=mixture.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_size: Positive,
        reconstruction: Callable[[Tensor, Tensor], Tensor] = squared_error,
        ex_post: Literal["none", "gaussian", "mixture"] = "none",
        num_components: Positive = 10,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        if ex_post != "none" and self.condition != "none":
            raise ValueError(
                f"{type(self).__name__}: ex_post={ex_post!r} with condition={self.condition!r}; the density "
                "of all codes knows no condition. Set ex_post=none or condition=none"
            )
        self.encoder, self.decoder = encoder, decoder
        self.latent_size = latent_size
        self.reconstruction = reconstruction
        kind = "standard_normal" if ex_post == "none" else ex_post  # which is never fitted, nor drawn from
        self.density = LatentDensity(latent_size, kind, num_components)

    def draw_codes(self, n: int, condition: Tensor | None) -> Tensor:
        """[n, Z], from the family's own distribution."""
        raise NotImplementedError(f"{type(self).__name__} draws no codes")

    def training_phases(self, task: Task) -> tuple[Phase, ...]:
        """The phases before the density's."""
        return super().phases(task)

    def phases(self, task: Task) -> tuple[Phase, ...]:
        return (*self.training_phases(task), *self.density.phases(self.encode))

    @torch.no_grad()
    def sample(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        self.refuse(label=label, task=task)
        if self.density.is_fitted:
            return self.decode(self.density.sample(n))
        codes = self.draw_codes(n, self.one_hot(label=label, task=task))
        return self.decode(codes, label=label, task=task)

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        return self.encoder(batch.image, self.told(label=batch.label, task=batch.task))


def penalty_of(
    penalty: LatentPenalty, codes: Tensor, drawn: Tensor | None, condition: Tensor | None, scale: float
) -> Tensor:
    """The penalty between codes and drawn codes, in 32 bits whatever the precision around it: scalar.

    Codes [B, Z] and drawn codes [B, Z] are compared with the condition [B, K] behind both. Their distance is
    then one between joint distributions, and codes are held against drawn ones of the same condition.

    Args:
        drawn: None for a penalty that takes none; it does not look at the condition either.
        scale: two conditions are sqrt(2) times this apart.
    """
    with torch.autocast(codes.device.type, enabled=False):
        if drawn is None:
            return penalty(widened(codes), None)
        behind = () if condition is None else (scale * condition,)
        return penalty(*(torch.cat([widened(points), *behind], 1) for points in (codes, drawn)))
