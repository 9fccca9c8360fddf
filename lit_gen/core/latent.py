"""What autoencoders with a latent distribution of their own have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_gen.core.conditional import CodedGenerator
from lit_gen.core.types import Batch, Phase, Positive, Task
from lit_gen.losses.distances import widened
from lit_gen.losses.latent_penalties import LatentPenalty
from lit_gen.losses.reconstruction import squared_error
from lit_gen.nets.latent_density import LatentDensity


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
