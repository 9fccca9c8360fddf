"""Two domains of images of which no pairs are known: any two data sets, or one in two looks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules.base import ImageDataModule
from datamodules.dataset import Indexed, StreamDataset, label_counts
from datamodules.loading import LoadedStream
from datamodules.looks import LOOKS, Look, channels_after
from datamodules.samplers import ShuffledPairs
from lit_gen.core.images import flip_some
from lit_gen.core.random import DataUse, generator
from lit_gen.core.types import Batch, ImageSpec, InputError, PairBatch, Split, Task

_SPLITS = ("train", "val", "test")


class Domain(Indexed):
    """Some images of a data set, in the looks of a domain."""

    def __init__(self, images: StreamDataset, places: Tensor, looks: tuple[Look, ...]) -> None:
        self.images, self.places, self.looks = images, places, looks

    def __len__(self) -> int:
        return len(self.places)

    def batch(self, places: Tensor) -> Batch:
        batch = self.images[self.places[places]]
        image = batch.image
        for look in self.looks:
            image = LOOKS[look](image, batch.index)
        return batch._replace(image=image, task=torch.zeros_like(batch.task))


class Pairs(Indexed):
    """Images of both domains that only share a place; as many as the longer domain has.

    An array of places [n] takes those of the shorter domain again from its start; [n, 2] has a place for each
    domain.
    """

    def __init__(self, a: Domain, b: Domain) -> None:
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_tasks != 1:
            raise InputError(f"stream.num_tasks={self.num_tasks}: two domains are one task; use stream=none.")
        self.sources, self.looks = (self.a, self.b), (tuple(self.a_looks), tuple(self.b_looks))
        self._check_shapes()
        self._domains: dict[Split, tuple[Domain, Domain]] = {}

    def prepare_data(self) -> None:
        for source in self.sources:
            source.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        if self._domains:
            return
        for source in self.sources:
            source.setup(stage)
        self._domains = {split: self._split(split) for split in _SPLITS}
        a, b = self._domains["train"]
        counts = label_counts(a.images.label[a.images.rows[a.places]], self.spec.num_classes)
        self._tasks = (Task(0, "all", counts, 0, max(len(a), len(b))),)

    def dataset(self, split: Split, tasks: Sequence[int] | None = None) -> Pairs:
        """Pairs of this split, uint8; there is only task 0."""
        self.read_once()
        domains = self._domains[split]
        if split == "train":
            return Pairs(*domains)
        length, parts = min(map(len, domains)), []
        for number, (domain, looks) in enumerate(zip(domains, self.looks, strict=True)):
            if len(domain) == length:
                parts.append(domain)
                continue
            order = torch.randperm(len(domain), generator=generator(self.seed, DataUse.PART, number))
            parts.append(Domain(domain.images, domain.places[order[:length].sort().values], looks))
        return Pairs(*parts)

    def changes(self) -> list[Callable[[Tensor, torch.Generator], Tensor]]:
        return [flip_some] * self.flip

    def shuffled(self, data: Pairs, num_replicas: int, rank: int) -> ShuffledPairs:
        return ShuffledPairs((len(data.a), len(data.b)), self.batch_size, self.seed, num_replicas, rank)

    def save_split(self, folder: Path) -> None:
        """Writes `<train|test>_<a|b>.npy`: rows of the official splits of each domain's data set."""
        self.read_once()
        folder.mkdir(parents=True, exist_ok=True)
        for split in ("train", "test"):
            for name, domain in zip("ab", self._domains[split], strict=True):
                np.save(folder / f"{split}_{name}.npy", domain.images.rows[domain.places].numpy())

    def _check_shapes(self) -> None:
        for name, source, looks in zip("ab", self.sources, self.looks, strict=True):
            channels = channels_after(f"data.{name}_looks", looks, source.spec.channels)
            if (channels, source.spec.size) != self.spec[:2]:
                raise InputError(
                    f"data.{name} has images of {channels} channel(s) and {source.spec.size} pixels a side, "
                    f"and data.spec says {self.spec.channels} and {self.spec.size}. Change data.{name}.spec "
                    f"or data.spec, or make grey images colour ones with data.{name}_looks=[repeat]."
                )
        if self.spec.num_classes != self.a.spec.num_classes:
            raise InputError(
                f"data.spec.num_classes={self.spec.num_classes}, but data.a.spec.num_classes="
                f"{self.a.spec.num_classes}; data.spec counts the classes of domain a."
            )

    def _split(self, split: Split) -> tuple[Domain, Domain]:
        images = [source.dataset(split) for source in self.sources]
        counts = [len(one) for one in images]
        places = [torch.arange(count) for count in counts]
        if self.halves:
            if counts[0] != counts[1] or counts[0] < 2:
                raise InputError(
                    f"data.halves=true: data.a has {counts[0]} {split} images and data.b {counts[1]}; halves "
                    "are made of the same two or more images. Set data.halves=false for different data sets."
                )
            order = torch.randperm(
                counts[0], generator=generator(self.seed, DataUse.HALVES, split == "train")
            )
            places = [half.sort().values for half in order.tensor_split(2)]
        return tuple(Domain(*each) for each in zip(images, places, self.looks, strict=True))
