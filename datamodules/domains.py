"""Domain-incremental data: every task shows all images under a transformation of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor
from torchvision.transforms.functional import InterpolationMode, rotate

from datamodules.base import ImageDataModule
from datamodules.dataset import LabelledItems
from lit_gen.core.random import DataUse, generator
from lit_gen.core.types import Positive

View = Callable[[Tensor], Tensor]
"""uint8 [B, C, S, S] twice."""


class TransformedImages:
    """D views of N images, made when asked: row d * N + n is image n in view d. Nothing is stored D times."""

    def __init__(self, image: Tensor, views: list[View]) -> None:
        self.image, self.views = image, views

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.views) * len(self.image), *self.image.shape[1:]

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        view, row = index // len(self.image), index % len(self.image)
        image = self.image.index_select(0, row)
        for number in view.unique().tolist():
            image[view == number] = self.views[number](image[view == number])
        return image


@dataclass(kw_only=True, eq=False, repr=False)
class TransformedData(ImageDataModule):
    """The images of `source` once per domain; a domain is a group, all classes are in each.

    Attributes:
        source: what it reads is used, how it splits and loads is not.
        num_domains: the first one shows the images as they are.
        root: where the files are; the config hands it to `source`.
    """

    source: ImageDataModule
    num_domains: Positive
    root: str | None = None

    def view(self, domain: int) -> View:
        raise NotImplementedError

    def prepare_data(self) -> None:
        self.source.prepare_data()

    def read(self, split: Literal["train", "test"]) -> LabelledItems:
        own = self.source.read(split)
        count = len(own.label)
        return LabelledItems(
            TransformedImages(own.image, [self.view(domain) for domain in range(self.num_domains)]),
            own.label.repeat(self.num_domains),
            torch.arange(self.num_domains).repeat_interleave(count),
            torch.arange(count).repeat(self.num_domains),
        )


@dataclass(kw_only=True, eq=False, repr=False)
class PermutedData(TransformedData):
    """Every domain has a random order of the pixels of its own.

    Source: Goodfellow et al. 2013, arXiv:1312.6211.
    """

    def view(self, domain: int) -> View:
        order = torch.arange(self.spec.size**2)
        if domain:
            order = torch.randperm(len(order), generator=generator(self.seed, DataUse.PERMUTATION, domain))
        return partial(_reordered, order)

    def group_names(self) -> tuple[str, ...]:
        return tuple(f"permutation{domain}" for domain in range(self.num_domains))


@dataclass(kw_only=True, eq=False, repr=False)
class RotatedData(TransformedData):
    """The domains are rotated counter-clockwise by angles from 0 to `max_angle` degrees, equally far apart.

    Source: Lopez-Paz & Ranzato 2017, arXiv:1706.08840. Bilinear, black outside.
    """

    max_angle: Annotated[float, Ge(-360), Le(360)] = 90.0

    def view(self, domain: int) -> View:
        return partial(rotate, angle=self.angle(domain), interpolation=InterpolationMode.BILINEAR)

    def angle(self, domain: int) -> float:
        return self.max_angle * domain / max(1, self.num_domains - 1)

    def group_names(self) -> tuple[str, ...]:
        return tuple(f"{self.angle(domain):g}deg" for domain in range(self.num_domains))


def _reordered(order: Tensor, image: Tensor) -> Tensor:
    return image.flatten(2)[:, :, order].view_as(image)
