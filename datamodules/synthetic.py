"""Images made in memory, for tests and trials."""

from __future__ import annotations

from typing import Literal

import torch

from datamodules.base import ImageDataModule
from datamodules.dataset import LabelledImages
from datamodules.tasks import seeded


class SyntheticData(ImageDataModule):
    """Every class is a blurry pattern of its own with noise on it, so that there is something to learn.

    Args:
        num_images: training images, as many of each class as possible.
        num_test_images: likewise.
        noise: standard deviation, in levels of 255.
    """

    def __init__(self, num_images: int = 256, num_test_images: int = 64, noise: float = 20.0, **base) -> None:
        super().__init__(**base)
        self.sizes, self.noise = {"train": num_images, "test": num_test_images}, noise

    def read(self, split: Literal["train", "test"]) -> LabelledImages:
        channels, size, num_classes = self.spec
        # The patterns are the same in both splits and for every seed; the images are not.
        patterns = torch.rand(max(num_classes, 1), channels, 4, 4, generator=seeded(0)) * 200 + 28
        patterns = torch.nn.functional.interpolate(patterns, (size, size), mode="bilinear")
        rng = seeded(self.seed, 1 + (split == "test"))
        label = torch.arange(self.sizes[split]) % max(num_classes, 1)
        noise = torch.randn(len(label), channels, size, size, generator=rng) * self.noise
        image = (patterns[label] + noise).round().clamp(0, 255).to(torch.uint8)
        return LabelledImages(image, label if num_classes else torch.full_like(label, -1), label)

    def group_names(self) -> tuple[str, ...]:
        return tuple(str(group) for group in range(max(self.spec.num_classes, 1)))
