"""Two domains of images of which no pairs are known: any two data sets, or one in two looks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor

from datamodules.base import ImageDataModule
from datamodules.dataset import Indexed, StreamDataset
from datamodules.loading import LoadedStream
from datamodules.looks import LOOKS, Look, channels_after
from datamodules.samplers import ShuffledPairs
from lit_gen.core.images import flip_some
from lit_gen.core.random import DataUse, generator
from lit_gen.core.types import ImageSpec, InputError, PairBatch, Split, Task, together


class Pairs(Indexed):
    """Images of both domains that only share a place; as many as the longer domain has.

    An array of places [n] takes those of the shorter domain again from its start; [n, 2] has a place for each
    domain.
    """

    def __init__(self, a: StreamDataset, b: StreamDataset) -> None:
        self.a, self.b = a, b

    def __len__(self) -> int:
        return max(len(self.a), len(self.b))

    def batch(self, places: Tensor) -> PairBatch:
        if places.ndim == 1:
            places = torch.stack((places % len(self.a), places % len(self.b)), 1)
        return PairBatch(self.a[places[:, 0]], self.b[places[:, 1]])


@dataclass(kw_only=True, eq=False, repr=False)
class UnpairedData(LoadedStream):
    """Domain a and domain b as one task; a batch has as many images of each.

    A training epoch shows every image of the longer domain once, and those of the shorter one as often as it
    takes, shuffled anew each time. In evaluation no image is repeated: of the longer domain a random part is
    left out. `Batch.index` counts within a domain's own data set, and so does `Task.label_counts`, which is
    domain a's.

    Attributes:
        a: its tasks together are the source; how it splits and loads is not used.
        b: the target.
        a_looks: names of `datamodules.looks` that its images go through, in this order.
        halves: a gets a random half of the training (and of the test) images of its data set and b the other
            half, for a and b made of the same images.
        num_tasks: 1.
        flip: training images are mirrored with probability 1/2, on the device.
        root: where the files are; the config hands it to both.
    """

    a: ImageDataModule
    b: ImageDataModule
    spec: ImageSpec
    a_looks: Sequence[Look] = ()
    b_looks: Sequence[Look] = ()
    halves: bool = False
    flip: bool = False
    root: str | None = None

    gives_pairs = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_tasks != 1:
            raise InputError(f"stream.num_tasks={self.num_tasks}: two domains are one task; use stream=none.")
        self.sources, self.looks = (self.a, self.b), (self.a_looks, self.b_looks)
        self._check_shapes()
        self._domains: dict[Split, list[StreamDataset]] = {}

    def prepare_data(self) -> None:
        together(*(source.prepare_data for source in self.sources))

    def setup(self, stage: str | None = None) -> None:
        if self._domains:
            return
        for source in self.sources:
            source.setup(stage)
        self._domains = {split: self._split(split) for split in get_args(Split)}
        a, b = self._domains["train"]
        self._tasks = (Task(0, "all", a.counts(self.spec.num_classes), 0, max(len(a), len(b))),)

    def dataset(self, split: Split, tasks: Sequence[int] | None = None) -> Pairs:
        """Pairs of this split, uint8; there is only task 0."""
        self.read_once()
        domains = self._domains[split]
        if split == "train":
            return Pairs(*domains)
        length, parts = min(map(len, domains)), []
        for number, domain in enumerate(domains):
            order = torch.randperm(len(domain), generator=generator(self.seed, DataUse.PART, number))
            parts.append(domain.at(order[:length].sort().values))
        return Pairs(*parts)

    def changes(self) -> list[Callable[[Tensor, torch.Generator], Tensor]]:
        return [flip_some] * self.flip

    def shuffled(self, data: Pairs, num_replicas: int, rank: int, accumulated: int = 1) -> ShuffledPairs:
        sizes = len(data.a), len(data.b)
        return ShuffledPairs(sizes, self.batch_size, self.seed, num_replicas, rank, accumulated)

    def parts(self, split: Split) -> dict[str, StreamDataset]:
        """The domains, each with rows of its own data set."""
        return dict(zip("ab", self._domains[split], strict=True))

    def _check_shapes(self) -> None:
        for name, source, looks in zip("ab", self.sources, self.looks, strict=True):
            channels = channels_after(f"data.{name}_looks", looks, source.spec.channels)
            if (channels, source.spec.size) != self.spec[:2]:
                raise InputError(
                    f"data.{name} has images of {channels} channel(s) and {source.spec.size} pixels a side, "
                    f"data.spec says {self.spec.channels} and {self.spec.size}; change one of them, or make "
                    f"grey images colour ones with data.{name}_looks=[repeat]."
                )
        if self.spec.num_classes != self.a.spec.num_classes:
            raise InputError(
                f"data.spec.num_classes={self.spec.num_classes} counts the classes of domain a, and "
                f"data.a.spec.num_classes={self.a.spec.num_classes}; set both to the same."
            )

    def _split(self, split: Split) -> list[StreamDataset]:
        domains = [source.dataset(split) for source in self.sources]
        if self.halves:
            a, b = map(len, domains)
            if a != b or a < 2:
                raise InputError(
                    f"data.halves=true: data.a has {a} {split} images and data.b {b}; halves are made of the "
                    "same two or more images. Set data.halves=false for different data sets."
                )
            order = torch.randperm(a, generator=generator(self.seed, DataUse.HALVES, split == "train"))
            halves = zip(domains, order.tensor_split(2), strict=True)
            domains = [one.at(half.sort().values) for one, half in halves]
        for number, looks in enumerate(self.looks):
            one = domains[number]
            changes = [*one.looks, *(LOOKS[look] for look in looks)]
            domains[number] = replace(one, task=torch.zeros_like(one.task), looks=changes)
        return domains
