"""Grey images as black and white ones: for likelihoods of binary pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from datamodules.dataset import Store

Binarization = Literal["none", "threshold", "dynamic"]


class BinaryImages:
    """Black and white views of an image store, made when asked: uint8, 0 or 255.

    Args:
        image: grey, uint8 in [0, 255].
        how: "threshold" makes levels from 128 on white; "dynamic" draws every pixel, white with the chance
            level / 255. The draw of an image depends on its row alone: neither the run's seed nor the split
            into tasks changes it, so that all runs are scored on the same black and white images.
    """

    def __init__(self, image: Store, how: Binarization) -> None:
        self.image, self.how = image, how

    @property
    def shape(self) -> Sequence[int]:
        return self.image.shape

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        grey = self.image.index_select(0, index)
        if self.how == "threshold":
            return (grey >= 128).byte() * 255
        chance, rng = torch.empty(grey.shape), torch.Generator()
        for place, row in enumerate(index.tolist()):
            # Not `generator`, which takes longer than the draw.
            torch.rand(grey.shape[1:], generator=rng.manual_seed(row), out=chance[place])
        return (chance * 255 < grey).byte() * 255


def draw_pixels(image: Tensor, generator: torch.Generator) -> Tensor:
    """Every pixel white (1) with the chance (x + 1) / 2, otherwise black (-1): float32 [B, C, S, S] twice.

    Source: Salakhutdinov & Murray 2008, who drew MNIST once; anew in every epoch in Burda et al. 2016,
    arXiv:1509.00519.
    """
    chance = torch.rand(image.shape, generator=generator, device=image.device)
    return (chance * 2 - 1 < image).to(image.dtype) * 2 - 1
