"""Two domains of images of which no pairs are known: any two data sets, or one in two looks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.base import ImageDataModule, _processes
from datamodules.dataset import StreamDataset
from datamodules.looks import LOOKS, Look, channels_after
from datamodules.noise import batch_noise
from datamodules.samplers import EvenBatches, ShuffledBatches
from datamodules.tasks import NoSplit, seeded
from lit_gen.core.images import flip_some, to_float
from lit_gen.core.types import Batch, ImageSpec, InputError, PairBatch, Positive, Split, Task

# Uses of the seed; those of the other files of this folder end at 6.
_ORDER, _HALVES, _SUBSET = 7, 8, 9
_SPLITS = ("train", "val", "test")


class Domain(Dataset[Batch]):
    """Some images of a data set, in the looks of a domain."""

    def __init__(self, images: StreamDataset, places: Tensor, looks: tuple[str, ...]) -> None:
        self.images, self.places, self.looks = images, places, looks

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: int | np.ndarray | Tensor) -> Batch:
        """A batch for an array of places; for one place an image without the batch dimension."""
        if isinstance(place, int):
            return Batch(*(part[0] for part in self[torch.tensor([range(len(self))[place]])]))
        batch = self.images[self.places[torch.as_tensor(place)]]
        image = batch.image
        for look in self.looks:
            image = LOOKS[look](image, batch.index)
        return batch._replace(image=image, task=torch.zeros_like(batch.task))

    def some(self, places: Tensor) -> Domain:
        """The images at these places only."""
        return Domain(self.images, self.places[places], self.looks)


class Pairs(Dataset[PairBatch]):
    """Images of both domains that only share a place; as many as the longer domain has.

    An array of places [n] takes those of the shorter domain again from its start; [n, 2] has a place for each
    domain.
    """

    def __init__(self, a: Domain, b: Domain) -> None:
        self.a, self.b = a, b

    def __len__(self) -> int:
        return max(len(self.a), len(self.b))

    def __getitem__(self, place: int | np.ndarray | Tensor) -> PairBatch:
        if isinstance(place, int):
            place = range(len(self))[place]
            return PairBatch(self.a[place % len(self.a)], self.b[place % len(self.b)])
        place = torch.as_tensor(place)
        if place.ndim == 1:
            place = torch.stack((place % len(self.a), place % len(self.b)), 1)
        return PairBatch(self.a[place[:, 0]], self.b[place[:, 1]])

    def __getitems__(self, places: list[int]) -> PairBatch:
        return self[torch.as_tensor(places)]


class ShuffledPairs(ShuffledBatches):
    """Batches of a training epoch, int64 [n, 2]: a place in each domain. A function of (seed, epoch) alone.

    Each domain has permutations of its own, one after the other, until the longer one is through; they are
    dealt round robin to the processes, as ShuffledBatches does.
    """

    def __init__(
        self, sizes: tuple[int, int], batch_size: int, seed: int, num_replicas: int = 1, rank: int = 0
    ) -> None:
        super().__init__(max(sizes), batch_size, seed, num_replicas, rank)
        self.sizes = sizes

    def __iter__(self) -> Iterator[np.ndarray]:
        share = np.stack([self._dealt(domain) for domain in range(2)], 1)
        for first in range(0, self.share_size, self.batch_size):
            yield share[first : first + self.batch_size]

    def _dealt(self, domain: int) -> np.ndarray:
        size, total = self.sizes[domain], self.share_size * self.num_replicas
        rounds = (
            torch.randperm(size, generator=seeded(self.seed, _ORDER, domain, self.epoch, number))
            for number in range(math.ceil(total / size))
        )
        return torch.cat(list(rounds))[:total].numpy()[self.rank :: self.num_replicas]


class UnpairedData(ImageDataModule):
    """Domain a and domain b as one task; a batch has as many images of each.

    A training epoch shows every image of the longer domain once, and those of the shorter one as often as it
    takes, shuffled anew each time. In evaluation no image is repeated: of the longer domain a random part is
    left out. `Batch.index` counts within a domain's own data set, and so does `Task.label_counts`, which is
    domain a's.

    Args:
        a: its tasks together are the source; how it splits and loads is not used.
        b: the target.
        a_looks: names of `datamodules.looks` that its images go through, in this order.
        halves: a gets a random half of the training (and of the test) images of its data set and b the other
            half, for a and b made of the same images.
        num_tasks: 1.
        root: where the files are; the config hands it to both.
    """

    def __init__(
        self,
        a: ImageDataModule,
        b: ImageDataModule,
        spec: ImageSpec,
        a_looks: Sequence[Look] = (),
        b_looks: Sequence[Look] = (),
        halves: bool = False,
        num_tasks: Positive = 1,
        batch_size: Positive = 64,
        seed: int = 0,
        num_workers: int = 0,
        flip: bool = False,
        root: str | None = None,
    ) -> None:
        if num_tasks != 1:
            raise InputError(f"stream.num_tasks={num_tasks}: two domains are one task; use stream=none.")
        super().__init__(
            spec, NoSplit(), batch_size=batch_size, seed=seed, num_workers=num_workers, flip=flip
        )
        self.sources, self.looks = (a, b), (tuple(a_looks), tuple(b_looks))
        self.halves, self.root = halves, root
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
        label = a.images.label[a.images.rows[a.places]]
        counts = (
            label.sum(0).long()
            if label.ndim > 1
            else label[label >= 0].bincount(minlength=self.spec.num_classes)
        )
        self.tasks = (Task(0, "all", tuple(counts.tolist()), 0, max(len(a), len(b))),)

    def dataset(self, split: Split, tasks: Sequence[int]) -> Pairs:
        """Pairs of this split, uint8; there is only task 0."""
        if not self._domains:
            raise RuntimeError("the data is known after setup()")
        a, b = self._domains[split]
        if split == "train":
            return Pairs(a, b)
        length = min(len(a), len(b))
        return Pairs(*(self._part_of(domain, length, number) for number, domain in enumerate((a, b))))

    def save_split(self, folder: Path) -> None:
        """Writes `<train|test>_<a|b>.npy`: rows of the official splits of each domain's data set."""
        folder.mkdir(parents=True, exist_ok=True)
        for split in ("train", "test"):
            for name, domain in zip("ab", self._domains[split], strict=True):
                np.save(folder / f"{split}_{name}.npy", domain.images.rows[domain.places].numpy())

    def train_dataloader(self) -> DataLoader[PairBatch]:
        data = self.dataset("train", [0])
        if self.trainer is not None and self.trainer.overfit_batches:
            return self._loader(data, EvenBatches(len(data), self.batch_size, *_processes()))
        sizes = len(data.a), len(data.b)
        batches = ShuffledPairs(sizes, self.batch_size, self.seed, *_processes())
        if self.trainer is not None:
            # As in ImageDataModule: workers begin before Lightning tells the epoch.
            batches.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)
        return self._loader(data, batches)

    def transfer_batch_to_device(
        self, batch: PairBatch, device: torch.device, dataloader_idx: int
    ) -> PairBatch:
        move = super().transfer_batch_to_device
        return PairBatch(move(batch.a, device, dataloader_idx), move(batch.b, device, dataloader_idx))

    def on_after_batch_transfer(self, batch: PairBatch, dataloader_idx: int) -> PairBatch:
        """Images become float32 in [-1, 1] here; in training some are mirrored."""
        noise = None
        if self.flip and self.trainer is not None and self.trainer.training:
            noise = batch_noise(self.trainer, self.seed, batch.a.image.device)

        def ready(half: Batch) -> Batch:
            image = to_float(half.image)
            return half._replace(image=image if noise is None else flip_some(image, noise))

        return PairBatch(ready(batch.a), ready(batch.b))

    def _check_shapes(self) -> None:
        shapes = []
        for name, source, looks in zip("ab", self.sources, self.looks, strict=True):
            channels = channels_after(f"data.{name}_looks", looks, source.spec.channels)
            shapes.append((channels, source.spec.size))
        (a_channels, a_size), (b_channels, b_size) = shapes
        channels, size, num_classes = self.spec
        if set(shapes) != {(channels, size)}:
            raise InputError(
                f"data.a has images of {a_channels} channel(s) and {a_size} x {a_size} pixels, data.b of "
                f"{b_channels} and {b_size} x {b_size}, and data.spec says {channels} and {size} x {size}; "
                "all three must agree. Change data.a.spec, data.b.spec or data.spec, or make grey images "
                "colour ones with data.a_looks=[repeat] or data.b_looks=[repeat]."
            )
        if num_classes != self.sources[0].spec.num_classes:
            raise InputError(
                f"data.spec.num_classes={num_classes}, but data.a.spec.num_classes="
                f"{self.sources[0].spec.num_classes}; data.spec counts the classes of domain a."
            )

    def _split(self, split: Split) -> tuple[Domain, Domain]:
        images = [source.dataset(split, range(source.num_tasks)) for source in self.sources]
        counts = [len(one) for one in images]
        places = [torch.arange(count) for count in counts]
        if self.halves:
            if counts[0] != counts[1] or counts[0] < 2:
                raise InputError(
                    f"data.halves=true: data.a has {counts[0]} {split} images and data.b {counts[1]}; halves "
                    "are made of the same two or more images. Set data.halves=false for different data sets."
                )
            order = torch.randperm(counts[0], generator=seeded(self.seed, _HALVES, split == "train"))
            places = [half.sort().values for half in order.tensor_split(2)]
        return tuple(Domain(*each) for each in zip(images, places, self.looks, strict=True))

    def _part_of(self, domain: Domain, length: int, number: int) -> Domain:
        """A random part of the domain, the same at every call."""
        if len(domain) == length:
            return domain
        rng = seeded(self.seed, _SUBSET, number)
        return domain.some(torch.randperm(len(domain), generator=rng)[:length].sort().values)
