"""Codes of which only a few numbers are not zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_gen.core.types import InputError, Positive


class KeepLargest(nn.Module):
    """The `count` largest numbers of each code [B, Z] stay, the others become 0.

    Source: Makhzani & Frey 2013, "k-sparse autoencoders", arXiv:1312.5663, algorithm 1. We keep as many when
    images are encoded as in training (their alpha = 1), and do not anneal the number.
    """

    def __init__(self, count: Positive) -> None:
        super().__init__()
        self.count = count

    def forward(self, code: Tensor) -> Tensor:
        if self.count > code.shape[1]:
            raise InputError(
                f"model.activation.count={self.count}: a code has {code.shape[1]} numbers; keep fewer, or "
                "raise model.latent_size"
            )
        largest = code.topk(self.count, dim=1)
        return torch.zeros_like(code).scatter(1, largest.indices, largest.values)
