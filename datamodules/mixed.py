"""Several data sets as one stream: FashionMNIST and then MNIST, or the same classes in other looks."""

from dataclasses import dataclass
from typing import Literal

import torch

from datamodules.base import ImageDataModule
from datamodules.dataset import LabelledItems
from lit_gen.core.types import InputError, together


@dataclass(kw_only=True, eq=False, repr=False)
class MixedData(ImageDataModule):
    """The images of all parts, one part after the other.

    Attributes:
        parts: what each reads is used, how it splits and loads is not.
        group_by: a split deals out classes, or whole parts (domain-incremental; stream=domains).
        root: where the files are; the config hands it to the parts.
        share_labels: label k is the same class in every part; otherwise each part's labels follow the last
            part's.
    """

    parts: list[ImageDataModule]
    group_by: Literal["class", "part"] = "class"
    share_labels: bool = False
    root: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = [part.spec.num_classes for part in self.parts]
        needed = max(counts) if self.share_labels else sum(counts)
        if needed != self.spec.num_classes:
            raise InputError(
                f"data.spec.num_classes={self.spec.num_classes}, but its parts {counts}; set it to {needed}."
            )

    def prepare_data(self) -> None:
        together(*(part.prepare_data for part in self.parts))

    def read(self, split: Literal["train", "test"]) -> LabelledItems:
        read = [part.read(split) for part in self.parts]
        shapes = {tuple(one.image.shape[1:]) for one in read}
        if len(shapes) > 1:
            raise InputError(
                f"data.parts: their images have the shapes {sorted(shapes)}; give all one spec.channels and "
                "spec.size."
            )
        counts = torch.tensor([0 if self.share_labels else part.spec.num_classes for part in self.parts])
        part = torch.arange(len(read)).repeat_interleave(torch.tensor([len(one.label) for one in read]))
        label = torch.cat([one.label for one in read]) + (counts.cumsum(0) - counts)[part]
        image = torch.cat([one.image for one in read])
        return LabelledItems(image, label, label if self.group_by == "class" else part)

    def group_names(self) -> tuple[str, ...]:
        names = [type(part).__name__.removesuffix("Data") for part in self.parts]
        if self.group_by == "part":
            return tuple(names)
        if self.share_labels:
            return super().group_names()
        return tuple(
            f"{name}{label}"
            for name, part in zip(names, self.parts, strict=True)
            for label in range(part.spec.num_classes)
        )
