"""Domain-incremental data: every task shows all images under a transformation of its own."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from datamodules.base import ImageDataModule
from datamodules.dataset import LabelledImages
from datamodules.tasks import seeded

_PERMUTATION = 5  # keeps the permutations apart from the other uses of the seed


class Taps(NamedTuple):
    """A linear map of the pixels of an image: target p is the sum of weight[k, p] * source[index[k, p]]."""

    index: Tensor  # int64 [K, S * S]
    weight: Tensor  # float32 [K, S * S]


class TransformedImages:
    """D views of N images, made when asked: row d * N + n is image n under taps d. Nothing is stored D times.

    Args:
        image: uint8 [N, C, S, S].
        taps: one per view, all with equally many taps.
    """

    def __init__(self, image: Tensor, taps: list[Taps]) -> None:
        self.image = image
        self.index = torch.stack([one.index for one in taps])  # [D, K, S * S]
        weight = torch.stack([one.weight for one in taps])
        self.weight = None if weight.eq(1).all() else weight

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.index) * len(self.image), *self.image.shape[1:]

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        view, row = index // len(self.image), index % len(self.image)
        source = self.image.index_select(0, row)  # [B, C, S, S]
        flat = source.flatten(2)[:, :, None]  # [B, C, 1, S * S]
        places = self.index[view][:, None].expand(-1, flat.shape[1], -1, -1)  # [B, C, K, S * S]
        found = flat.expand(-1, -1, places.shape[2], -1).gather(-1, places)
        if self.weight is None:
            return found[:, :, 0].view_as(source)
        mixed = (found * self.weight[view][:, None]).sum(2)
        return mixed.round().clamp(0, 255).to(torch.uint8).view_as(source)


class TransformedData(ImageDataModule):
    """The images of `source` once per domain; a domain is a group, all classes are in each.

    Args:
        source: what it reads is used, how it splits and loads is not.
        num_domains: the first one shows the images as they are.
        root: where the files are; the config hands it to `source`.
    """

    def __init__(self, source: ImageDataModule, num_domains: int, root: str | None = None, **base) -> None:
        super().__init__(**base)
        self.source, self.num_domains, self.root = source, num_domains, root

    def taps(self, domain: int) -> Taps:
        raise NotImplementedError

    def prepare_data(self) -> None:
        self.source.prepare_data()

    def read(self, split: Literal["train", "test"]) -> LabelledImages:
        own = self.source.read(split)
        count = len(own.label)
        return LabelledImages(
            TransformedImages(own.image, [self.taps(domain) for domain in range(self.num_domains)]),
            own.label.repeat(self.num_domains),
            torch.arange(self.num_domains).repeat_interleave(count),
            torch.arange(count).repeat(self.num_domains),
        )


class PermutedData(TransformedData):
    """Every domain has a random order of the pixels of its own.

    Source: Goodfellow et al. 2013, arXiv:1312.6211.
    """

    def taps(self, domain: int) -> Taps:
        count = self.spec.size**2
        if domain == 0:
            return _as_taps(torch.arange(count))
        return _as_taps(torch.randperm(count, generator=seeded(self.seed, _PERMUTATION, domain)))

    def group_names(self) -> tuple[str, ...]:
        return tuple(f"permutation{domain}" for domain in range(self.num_domains))


class RotatedData(TransformedData):
    """The domains are rotated counter-clockwise by angles from 0 to `max_angle` degrees, equally far apart.

    Source: Lopez-Paz & Ranzato 2017, arXiv:1706.08840. Bilinear, black outside.
    """

    def __init__(self, max_angle: float = 90.0, **base) -> None:
        super().__init__(**base)
        self.max_angle = max_angle

    def taps(self, domain: int) -> Taps:
        return rotation(self.spec.size, self.angles()[domain])

    def angles(self) -> list[float]:
        steps = max(1, self.num_domains - 1)
        return [self.max_angle * domain / steps for domain in range(self.num_domains)]

    def group_names(self) -> tuple[str, ...]:
        return tuple(f"{angle:g}deg" for angle in self.angles())


def rotation(size: int, angle: float) -> Taps:
    """Counter-clockwise by `angle` degrees around the centre, bilinear, black outside."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    centre = (size - 1) / 2
    y, x = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) - centre,) * 2, indexing="ij")
    # Where a target pixel comes from; rounding lets multiples of 90 degrees hit pixels exactly.
    source_x = (cos * x - sin * y + centre).flatten().mul(1e6).round().div(1e6)
    source_y = (sin * x + cos * y + centre).flatten().mul(1e6).round().div(1e6)
    indices, weights = [], []
    for down in (0, 1):
        for right in (0, 1):
            row, column = source_y.floor() + down, source_x.floor() + right
            weight = (1 - (source_y - row).abs()) * (1 - (source_x - column).abs())
            is_inside = (row >= 0) & (row < size) & (column >= 0) & (column < size)
            indices.append(torch.where(is_inside, row * size + column, 0).long())
            weights.append(torch.where(is_inside, weight, 0).float())
    return Taps(torch.stack(indices), torch.stack(weights))


def _as_taps(order: Tensor) -> Taps:
    return Taps(order[None], torch.ones(1, len(order)))
