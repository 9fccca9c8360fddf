"""The one image range, float32 in [-1, 1], and the doors in and out of it."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

log = logging.getLogger(__name__)


def to_float(image: Tensor) -> Tensor:
    """uint8 [B, C, S, S] in [0, 255] -> float32 in [-1, 1]; float images are checked for dtype only."""
    if image.dtype == torch.uint8:
        return image.float().mul_(2 / 255).sub_(1)
    if image.dtype != torch.float32:
        raise TypeError(f"images are uint8 or float32, got {image.dtype}")
    return image


def to_uint8(image: Tensor) -> Tensor:
    """float32 [B, C, S, S] in [-1, 1] -> uint8 in [0, 255], rounded to the nearest level, clamped.

    A warning says how many images have pixels that are not finite; NaN becomes 0.
    """
    if image.dtype == torch.uint8:
        return image
    whole = image.isfinite()
    if not whole.all():
        broken = int((~whole).flatten(1).any(1).sum())
        log.warning(
            "%d of %d images have pixels that are infinite or NaN; NaN is shown black", broken, len(image)
        )
        image = image.nan_to_num(nan=-1)
    return image.float().add(1).mul(127.5).round_().clamp_(0, 255).to(torch.uint8)


def flip_some(image: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Mirrors each image left to right with probability 1/2; without a generator, from the global one."""
    mirrored = torch.rand(len(image), device=image.device, generator=generator) < 0.5
    return torch.where(mirrored[:, None, None, None], image.flip(-1), image)


def grid(image: Tensor, columns: int | None = None, padding: int = 1) -> Tensor:
    """Lays images out in rows.

    Args:
        image: uint8 or float32 [B, C, S, S].
        columns: None makes the grid as square as it gets.
        padding: white pixels around every image.

    Returns:
        uint8 [H, W, C], C as given.
    """
    image = to_uint8(image)
    count, channels, size, _ = image.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    cell = size + padding
    canvas = torch.full((rows * cell + padding, columns * cell + padding, channels), 255, dtype=torch.uint8)
    for place, picture in enumerate(image.cpu()):
        top, left = place // columns * cell + padding, place % columns * cell + padding
        canvas[top : top + size, left : left + size] = picture.permute(1, 2, 0)
    return canvas
