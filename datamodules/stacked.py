"""Images of several classes at once, one in each channel: a test of how many combinations a model covers.

Source: Srivastava et al. 2017 (VEEGAN), arXiv:1705.07761, section 5.2: stacked MNIST, 1,000 classes.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from datamodules.base import ImageDataModule
from datamodules.dataset import LabelledItems
from lit_gen.core.random import DataUse, generator
from lit_gen.core.types import InputError, Positive


@dataclass(kw_only=True, eq=False, repr=False)
class StackedData(ImageDataModule):
    """Grey images drawn at random, one for each channel; the label counts through their classes, the first
    channel's the most significant digit.

    Attributes:
        part: what it reads is used, how it splits and loads is not.
        num_images, num_test_images: drawn, by the seed.
        root, download: the config hands them to the part.
    """

    part: ImageDataModule
    num_images: Positive = 25_600
    num_test_images: Positive = 10_000
    root: str | None = None
    download: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        wanted = self.part.spec.num_classes**self.spec.channels
        if self.part.spec.channels != 1 or self.spec.num_classes != wanted:
            raise InputError(
                f"data.spec.num_classes={self.spec.num_classes}: {self.spec.channels} channels of grey "
                f"images with {self.part.spec.num_classes} classes make {wanted}; set it to that."
            )

    def prepare_data(self) -> None:
        self.part.prepare_data()

    def read(self, split: Literal["train", "test"]) -> LabelledItems:
        items, count = self.part.read(split), self.num_images if split == "train" else self.num_test_images
        rng = generator(self.seed, DataUse.STACK, split == "test")
        places = torch.randint(len(items.label), (count, self.spec.channels), generator=rng)
        digits = items.label[places]
        label = torch.zeros(count, dtype=torch.long)
        for channel in range(self.spec.channels):
            label = label * self.part.spec.num_classes + digits[:, channel]
        return LabelledItems(items.image[places, 0], label, label)
