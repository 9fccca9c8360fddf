"""Changes of how images look, by name: they turn a data set into another domain of the same content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from lit_gen.core.types import InputError

Look = Literal["thicken", "invert", "colour", "repeat"]


def thicken(image: Tensor, rows: Tensor, index: Tensor) -> Tensor:
    """The brightest of the 3 x 3 pixels around each: grey dilation."""
    return max_pool2d(image.float(), 3, stride=1, padding=1).to(torch.uint8)


def invert(image: Tensor, rows: Tensor, index: Tensor) -> Tensor:
    """Black becomes white."""
    return 255 - image


def colour(image: Tensor, rows: Tensor, index: Tensor) -> Tensor:
    """Grey becomes a fully saturated hue of the same brightness, which only depends on the image's index."""
    # Multiples of the golden ratio are spread evenly, however many there are.
    hue = (index.double() * 0.6180339887498949) % 1
    shifted = (hue[:, None] + torch.tensor([0.0, 2 / 3, 1 / 3], dtype=torch.float64)) % 1  # [B, 3]
    share = ((shifted * 6 - 3).abs() - 1).clamp(0, 1)
    return (image.double() * share[:, :, None, None]).round().to(torch.uint8)


def repeat(image: Tensor, rows: Tensor, index: Tensor) -> Tensor:
    """Grey becomes three equal channels."""
    return image.expand(-1, 3, -1, -1)


LOOKS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "thicken": thicken,
    "invert": invert,
    "colour": colour,
    "repeat": repeat,
}
"""uint8 [B, C, S, S] and the images' rows and indices, int64 [B] -> uint8 of the same side."""


def channels_after(key: str, looks: Sequence[str], channels: int) -> int:
    """How many channels images have after these looks. InputError where one takes grey images only."""
    for look in looks:
        if look in ("colour", "repeat"):
            if channels != 1:
                raise InputError(
                    f"{key}={list(looks)}: {look} takes grey images, and these have {channels} channels."
                )
            channels = 3
    return channels
