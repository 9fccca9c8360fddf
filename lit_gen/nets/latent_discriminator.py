"""Tells codes of images from points of a prior."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lit_gen.core.types import Fraction, NonNegative, Positive
from lit_gen.nets.layers import mlp, with_condition


class LatentDiscriminator(nn.Module):
    """Code [B, in_size] and condition [B, K] -> logit of being drawn from the prior, [B].

    Args:
        hidden: widths of the layers between; those of Tolstikhin et al. 2018, arXiv:1711.01558, by default.
        condition_size: K; 0 takes no condition.
        slope: of LeakyReLU below 0; with 0 it is ReLU.
    """

    def __init__(
        self,
        in_size: Positive,
        hidden: Sequence[Positive] = (512, 512, 512, 512),
        condition_size: NonNegative = 0,
        slope: Fraction = 0.0,
    ) -> None:
        super().__init__()
        self.condition_size = condition_size
        self.net = mlp([in_size + condition_size, *hidden, 1], slope)

    def forward(self, code: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.net(with_condition(code, condition, self.condition_size)).squeeze(1)
