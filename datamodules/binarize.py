"""Grey images as black and white ones: for likelihoods of binary pixels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Binarization = Literal["none", "threshold", "dynamic"]


def threshold(grey: Tensor, rows: Tensor, index: Tensor) -> Tensor:
    """Levels from 128 on white, the others black."""
    return (grey >= 128).byte() * 255


def fixed_draw(grey: Tensor, rows: Tensor, index: Tensor) -> Tensor:
    """Every pixel white with the chance level / 255. The draw of an image depends on its row alone: neither
    the run's seed nor the split into tasks changes it, so that all runs are scored on the same images.
    """
    chance, rng = torch.empty(grey.shape), torch.Generator()
    for place, row in enumerate(rows.tolist()):
        # Not `generator`, which takes longer than the draw.
        torch.rand(grey.shape[1:], generator=rng.manual_seed(row), out=chance[place])
    return (chance * 255 < grey).byte() * 255


BINARIZED = {"none": [], "threshold": [threshold], "dynamic": [fixed_draw]}
"""What evaluated images go through, uint8 twice: `looks` of a StreamDataset."""


def draw_pixels(image: Tensor, generator: torch.Generator) -> Tensor:
    """Every pixel white (1) with the chance (x + 1) / 2, otherwise black (-1): float32 [B, C, S, S] twice.

    Source: Salakhutdinov & Murray 2008, who drew MNIST once; anew in every epoch in Burda et al. 2016,
    arXiv:1509.00519.
    """
    chance = torch.rand(image.shape, generator=generator, device=image.device)
    return (chance * 2 - 1 < image).to(image.dtype) * 2 - 1
