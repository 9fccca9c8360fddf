"""Images made in memory, for tests and trials."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge

from datamodules.base import ImageDataModule
from datamodules.dataset import LabelledItems
from lit_gen.core.memory import refuse_beyond_memory
from lit_gen.core.random import generator
from lit_gen.core.types import Positive


@dataclass(kw_only=True, eq=False, repr=False)
class SyntheticData(ImageDataModule):
    """Every class is a blurry pattern of its own with noise on it, so that there is something to learn.

    Attributes:
        num_images: training images, as many of each class as possible.
        num_test_images: likewise.
        noise: standard deviation, in levels of 255.
    """

    num_images: Positive = 256
    num_test_images: Positive = 64
    noise: Annotated[float, Ge(0)] = 20.0

    def read(self, split: Literal["train", "test"]) -> LabelledItems:
        channels, size, num_classes = self.spec
        count = self.num_images if split == "train" else self.num_test_images
        num_bytes = 16 * (count + num_classes) * channels * size**2  # the noise and three steps behind it
        refuse_beyond_memory(num_bytes, f"data.num_images={count}, data.spec.size={size}: making the images")
        # The patterns are the same in both splits and for every seed; the images are not.
        patterns = torch.rand(max(num_classes, 1), channels, 4, 4, generator=generator(0)) * 200 + 28
        patterns = torch.nn.functional.interpolate(patterns, (size, size), mode="bilinear")
        rng = generator(self.seed, 1 + (split == "test"))
        label = torch.arange(count) % max(num_classes, 1)
        noise = torch.randn(len(label), channels, size, size, generator=rng) * self.noise
        image = (patterns[label] + noise).round().clamp(0, 255).to(torch.uint8)
        return LabelledItems(image, label if num_classes else torch.full_like(label, -1), label)
