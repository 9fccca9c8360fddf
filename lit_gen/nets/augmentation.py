"""Changes of training images that leave their class what it is, on the device that the images are on.

Source: Deja et al. 2023, arXiv:2301.13622, whose code clips images of [-1, 1] to [0, 1] here and mixes them
without their labels. These stay within [-1, 1], and labels are mixed as their images are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from torch import Tensor

from lit_gen.core.types import Fraction

_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True)
class Augmentation:
    """Each change with a chance of its own, independently for every image; draws from the global generator.

    Args:
        share: chance of each: a resized crop, a rotation, brightness, contrast, sharpness, and of colour
            images a jitter of all colours.
        flip: chance to be mirrored left to right.
        mixup: chance of a mixture with another labelled image (Zhang et al. 2018, arXiv:1710.09412), of even
            weights between 0 and 1.
        smallest: part of the area that a crop keeps at least.
        degrees: most that an image is turned by.
    """

    share: Fraction = 0.25
    flip: Fraction = 0.5
    mixup: Fraction = 0.5
    smallest: Annotated[float, Gt(0), Le(1)] = 0.5
    degrees: Annotated[float, Ge(0), Le(180)] = 30.0

    def __call__(self, image: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, C, S, S] in [-1, 1] and rows [B, K] of what is in them, below 0 if not known."""
        unit = (self._moved(image) + 1) / 2
        if image.shape[1] == 3:
            unit = self._jittered(unit)
        grey = unit.mean((1, 2, 3), keepdim=True)
        unit = _away_from(grey, unit, self._factor(unit, 0.6, 1.8))
        kernel = unit.new_tensor([[1, 1, 1], [1, 5, 1], [1, 1, 1]]).div(13).expand(unit.shape[1], 1, 3, 3)
        soft = F.conv2d(F.pad(unit, [1] * 4, mode="replicate"), kernel, groups=unit.shape[1])
        unit = _away_from(soft, unit, self._factor(unit, 0.4, 2.0))
        unit = (unit * self._factor(unit, 0.6, 1.8)).clamp(0, 1)
        return self.mixed(unit * 2 - 1, wanted)

    def mixed(self, image: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """MixUp among images of which something is known."""
        known = (wanted >= 0).any(1)
        order = torch.randperm(len(image), device=image.device)
        mixes = known & known[order] & (torch.rand(len(image), device=image.device) < self.mixup)
        own = torch.where(mixes, torch.rand(len(image), device=image.device), 1.0)
        weights = own.view(-1, 1, 1, 1)
        return (
            weights * image + (1 - weights) * image[order],
            torch.where(mixes[:, None], own[:, None] * wanted + (1 - own[:, None]) * wanted[order], wanted),
        )

    def _moved(self, image: Tensor) -> Tensor:
        """Crop, rotation and mirror image in one; what comes in from outside is black."""
        count, device = len(image), image.device
        area = torch.where(self._chosen(image), _even(image, self.smallest, 1.0), 1.0)
        scale = area.sqrt()
        turn = torch.where(self._chosen(image), _even(image, -1, 1) * math.radians(self.degrees), 0.0)
        side = torch.where(torch.rand(count, device=device) < self.flip, -1.0, 1.0)
        x, y = ((1 - scale) * _even(image, -1, 1) for _ in range(2))
        cos, sin = scale * turn.cos(), scale * turn.sin()
        rows = torch.stack([cos * side, -sin, x, sin * side, cos, y], 1).view(-1, 2, 3)
        places = F.affine_grid(rows.to(image.dtype), list(image.shape), align_corners=False)
        return F.grid_sample(image + 1, places, align_corners=False) - 1

    def _jittered(self, unit: Tensor) -> Tensor:
        """Brightness, contrast, saturation and hue by a tenth, of colour images in [0, 1]."""
        light, contrast, colour = (_wide(_even(unit, 0.9, 1.1)) for _ in range(3))
        to_yiq = unit.new_tensor(_TO_YIQ)
        y, i, q = torch.einsum("kc,bchw->bkhw", to_yiq, unit).unbind(1)
        angle = 2 * math.pi * _even(unit, -0.1, 0.1).view(-1, 1, 1)
        i, q = i * angle.cos() - q * angle.sin(), i * angle.sin() + q * angle.cos()
        turned = torch.stack([y, colour[:, 0] * i, colour[:, 0] * q], 1)
        changed = torch.einsum("kc,bchw->bkhw", to_yiq.inverse(), turned)
        changed = light * _away_from(changed.mean((1, 2, 3), keepdim=True), changed, contrast)
        return torch.where(_wide(self._chosen(unit)), changed.clamp(0, 1), unit)

    def _factor(self, image: Tensor, low: float, high: float) -> Tensor:
        """Even in [low, high] for images that are chosen, 1 for others: [B, 1, 1, 1]."""
        return _wide(torch.where(self._chosen(image), _even(image, low, high), 1.0))

    def _chosen(self, image: Tensor) -> Tensor:
        return torch.rand(len(image), device=image.device) < self.share


def _away_from(start: Tensor, unit: Tensor, factor: Tensor) -> Tensor:
    """From `start` to the image, by that part of the way; [0, 1] is not left."""
    return (start + factor * (unit - start)).clamp(0, 1)


def _even(image: Tensor, low: float, high: float) -> Tensor:
    """Uniform in [low, high), [B]."""
    return low + (high - low) * torch.rand(len(image), device=image.device)


def _wide(value: Tensor) -> Tensor:
    return value.view(-1, 1, 1, 1)
