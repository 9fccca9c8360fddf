"""What a data set's items look like, and batches of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from lit_gen.core.images import to_float, to_uint8


class ImageSpec(NamedTuple):
    """What the images of a data set look like; they are square."""

    stored = torch.uint8  # levels of 255; what files, pools and loaders keep
    channels: Annotated[int, Gt(0)]
    size: Annotated[int, Gt(0)]
    num_classes: Annotated[int, Ge(0)]  # 0 when the data has no labels

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions of one image."""
        return (self.channels, self.size, self.size)

    def to_stored(self, items: Tensor) -> Tensor:
        """float32 in [-1, 1] -> uint8, rounded to the nearest level."""
        return to_uint8(items)

    def mismatch(self, stored: Tensor) -> str:
        """What is wrong with stored images [N, ...]; "" where they fit."""
        if tuple(stored.shape[1:]) == self.shape:
            return ""
        found, wanted = (" x ".join(map(str, shape)) for shape in (stored.shape[1:], self.shape))
        return f"images of {found} where data.spec.channels and data.spec.size ask for {wanted}"


class SequenceSpec(NamedTuple):
    """What the sequences of a data set look like: all of one length, symbols 0 to vocabulary - 1."""

    stored = torch.int64
    length: Annotated[int, Gt(0)]
    vocabulary: Annotated[int, Gt(0)]
    num_classes: Annotated[int, Ge(0)]  # 0 when the data has no labels

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    def to_stored(self, items: Tensor) -> Tensor:
        return items

    def mismatch(self, stored: Tensor) -> str:
        """What is wrong with stored sequences [N, ...]; "" where they fit."""
        if tuple(stored.shape[1:]) != self.shape or stored.dtype != self.stored:
            found = " x ".join(map(str, stored.shape[1:]))
            return f"{stored.dtype} of {found} where data.spec.length asks for {self.length} symbols, int64"
        low, high = (int(bound) for bound in stored.aminmax()) if stored.numel() else (0, 0)
        if low < 0 or high >= self.vocabulary:
            return f"symbols from {low} to {high} where data.spec.vocabulary={self.vocabulary}"
        return ""


Spec = ImageSpec | SequenceSpec


class Batch(NamedTuple):
    """B items with what is known about them."""

    image: Tensor
    """The items. Images: float32 [B, C, S, S] in [-1, 1], uint8 in [0, 255] until they are `ready`.
    Sequences: int64 [B, L], symbols throughout."""
    label: Tensor  # int64 [B], -1 = unlabelled; float32 [B, A] in {0, 1} for attribute data
    task: Tensor  # int64 [B], index of the task the item came from
    index: Tensor  # int64 [B], the item's place in the whole stream, the same in every epoch; -1 = replayed

    @property
    def item(self) -> Tensor:
        """`image` under the name that also fits what is no image."""
        return self.image

    @property
    def target(self) -> Tensor:
        """The real items that generated ones are compared with."""
        return self.image

    @property
    def size(self) -> int:
        """Number of items."""
        return len(self.index)

    @property
    def first(self) -> int:
        """The place of its first item in the stream."""
        return int(self.index[0])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """All parts on the device."""
        return Batch(*(part.to(device, non_blocking=non_blocking) for part in self))

    def ready(self) -> Batch:
        """As models get it: images float32 in [-1, 1], symbols as they are."""
        return self if self.image.dtype == torch.int64 else self._replace(image=to_float(self.image))

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Each part changed, as in `batch.map(lambda part: part[rows])`."""
        return Batch(*map(change, self))

    def each(self, change: Callable[[Batch], Batch]) -> Batch:
        """The batch itself changed; of a pair, each half."""
        return change(self)


class PairBatch(NamedTuple):
    """Equally many images of two domains, in no common pairs; methods change both halves, a first."""

    a: Batch
    b: Batch

    @property
    def target(self) -> Tensor:
        """The real items that generated ones, translations to b, are compared with."""
        return self.b.image

    @property
    def label(self) -> Tensor:
        """Those of `target`."""
        return self.b.label

    @property
    def size(self) -> int:
        return self.a.size

    @property
    def first(self) -> int:
        return self.a.first

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PairBatch:
        return self.each(lambda half: half.to(device, non_blocking))

    def ready(self) -> PairBatch:
        return self.each(Batch.ready)

    def map(self, change: Callable[[Tensor], Tensor]) -> PairBatch:
        return self.each(lambda half: half.map(change))

    def each(self, change: Callable[[Batch], Batch]) -> PairBatch:
        return PairBatch(change(self.a), change(self.b))
