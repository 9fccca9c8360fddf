"""Domain adaptation: labelled images of one domain are trained on with unlabelled ones of the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor
from torchvision.transforms.functional import InterpolationMode, rotate

from datamodules.base import ImageDataModule
from datamodules.dataset import LabelledItems, Store
from datamodules.looks import LOOKS, Look, channels_after
from lit_gen.core.random import DataUse, generator
from lit_gen.core.types import ImageSpec, InputError, NonNegative, together

_AT_ONCE = 4096  # images that are changed together


@dataclass(kw_only=True, eq=False, repr=False)
class AdaptationData(ImageDataModule):
    """Trains on the source's training images with their labels and the target's without (-1), as one task.
    What is held out, validated and tested with is the target's test split, with labels.

    Source: Deja et al. 2023, arXiv:2301.13622, first version, section on domain adaptation.

    Attributes:
        source, target: what they read is used, how they split and load is not. Label k is the same class
            in both.
        num_target: how many of the target's training images are trained on, drawn by the seed; None is all,
            and 0 is what adaptation is compared with: a model that has never seen the target.
        target_degrees: by which the target's images are turned, counter-clockwise; bilinear, black outside.
        target_looks: names of `datamodules.looks` that they go through afterwards, in this order.
        root: where the files are; the config hands it to both.
    """

    source: ImageDataModule
    target: ImageDataModule
    num_target: NonNegative | None = None
    target_degrees: Annotated[float, Ge(-360), Le(360)] = 0.0
    target_looks: Sequence[Look] = ()
    root: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_tasks != 1:
            raise InputError(
                f"stream.num_tasks={self.num_tasks}: the target has no labels by which it could be dealt "
                "into tasks; use stream=none."
            )
        if self.validation != "official":
            raise InputError(
                f"data.validation={self.validation}: an adapted model is scored on the target's test images; "
                "set data.validation=official."
            )
        if self.without_classes:
            raise InputError(
                f"data.without_classes={list(self.without_classes)}: the target has no labels by which "
                "images could be left out; leave it empty."
            )
        target = self.target.spec
        channels = channels_after("data.target_looks", self.target_looks, target.channels)
        for name, found in (("source", self.source.spec), ("target", target._replace(channels=channels))):
            if found != self.spec:
                raise InputError(
                    f"data.{name} has {_words(found)}, data.spec says {_words(self.spec)}; change one of "
                    "them, or data.target_looks (repeat makes three channels of one)."
                )

    def prepare_data(self) -> None:
        together(self.source.prepare_data, self.target.prepare_data)

    def read(self, split: Literal["train", "test"]) -> LabelledItems:
        target = self.target._checked(self.target.read(split), f"target, {split}")
        rows = torch.arange(len(target.label))
        if split == "test":
            return LabelledItems(
                torch.cat(self._seen(target.image, rows)), target.label, torch.zeros_like(rows)
            )
        if self.num_target is not None:
            if self.num_target > len(rows):
                raise InputError(
                    f"data.num_target={self.num_target}: the target has {len(rows)} training images; ask for "
                    "at most that many, or null for all."
                )
            order = torch.randperm(len(rows), generator=generator(self.seed, DataUse.TARGET))
            rows = order[: self.num_target].sort().values
        source = self.source._checked(self.source.read(split), f"source, {split}")
        image = source.image.index_select(0, torch.arange(len(source.label)))
        hidden = source.label.new_full((len(rows), *source.label.shape[1:]), -1)
        label = torch.cat([source.label, hidden])
        image = torch.cat([image, *self._seen(target.image, rows)])
        return LabelledItems(image, label, torch.zeros(len(label), dtype=torch.long))

    def _seen(self, image: Store, rows: Tensor) -> list[Tensor]:
        """The target's images at these rows in the look that models get, a part at a time."""
        seen = []
        for first in range(0, len(rows), _AT_ONCE):
            some = rows[first : first + _AT_ONCE]
            part = image.index_select(0, some)
            if self.target_degrees:
                part = rotate(part, self.target_degrees, InterpolationMode.BILINEAR)
            for look in self.target_looks:
                part = LOOKS[look](part, some, some)
            seen.append(part)
        return seen


def _words(spec: ImageSpec) -> str:
    return f"{spec.channels} channel(s), {spec.size} pixels a side and {spec.num_classes} classes"
