"""A stream of image tasks as a LightningDataModule; a data set subclasses it and says only how it is read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.binarize import Binarization, binary, draw_pixels
from datamodules.dataset import DealtImages, LabelledImages, StreamDataset
from datamodules.noise import batch_noise
from datamodules.samplers import EvenBatches, ShuffledBatches
from datamodules.tasks import TaskSplit, checked_shares, deal, seeded, task_names
from lit_gen.core.images import flip_some, to_float
from lit_gen.core.types import Batch, ImageSpec, InputError, Split, Task

log = logging.getLogger(__name__)

# Uses of the seed that must not share their random numbers; 4 is the order of training batches.
_SHARES, _DEAL, _HOLD_OUT, _HIDE_LABELS = 0, 1, 2, 3


class ImageDataModule(LightningDataModule):
    """Deals a data set into tasks and loads the current one.

    Args:
        spec: what the files must hold; checked in `setup`.
        num_tasks: how many tasks `split` makes; models size their buffers by the same key.
        joint: the tasks stay, but one stage trains on their union.
        batch_size: per process.
        validation: "official" takes the official test split for validation and test; "fraction" takes a
            random part of the official training split for both and never reads the test split (Deja et al.
            2022); "train" scores the images that were trained on (Deja et al. 2023 on Omniglot).
        validation_fraction: the chance of a training image to be held out under "fraction".
        num_workers: processes that load; data in memory needs none.
        flip: training images are mirrored with probability 1/2, on the device.
        binarize: "threshold" makes pixels from 128 on white and the others black; "dynamic" draws them, white
            with the chance level / 255: anew for every training batch, on the device, once and for all for
            every other use (see `dataset`).
        labelled_share: the part of each class that keeps its label in training; the other labels are -1.
        without_classes: neither trained on nor validated with, while the test images keep them: what a
            detector of anomalies has never seen. The other images are dealt as if nothing were left out.
    """

    tasks: tuple[Task, ...]

    def __init__(
        self,
        spec: ImageSpec,
        split: TaskSplit,
        num_tasks: int = 1,
        joint: bool = False,
        batch_size: int = 64,
        validation: Literal["official", "fraction", "train"] = "official",
        validation_fraction: float = 0.3,
        seed: int = 0,
        num_workers: int = 0,
        flip: bool = False,
        labelled_share: float = 1.0,
        binarize: Binarization = "none",
        without_classes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        _check("data.spec.channels", spec.channels, spec.channels >= 1, "at least 1")
        _check("data.spec.size", spec.size, spec.size >= 1, "at least 1")
        _check("data.spec.num_classes", spec.num_classes, spec.num_classes >= 0, "0 or more")
        _check("data.batch_size", batch_size, batch_size >= 1, "at least 1")
        _check("data.num_workers", num_workers, num_workers >= 0, "0 or more")
        is_part = 0 < validation_fraction < 1
        _check("data.validation_fraction", validation_fraction, is_part, "between 0 and 1")
        _check("data.labelled_share", labelled_share, 0 <= labelled_share <= 1, "from 0 to 1")
        is_known = validation in ("official", "fraction", "train")
        _check("data.validation", validation, is_known, "official, fraction or train")
        is_known = binarize in ("none", "threshold", "dynamic")
        _check("data.binarize", binarize, is_known, "none, threshold or dynamic")
        are_classes = all(0 <= kind < spec.num_classes for kind in without_classes)
        classes = f"classes from 0 to {spec.num_classes - 1}" if spec.num_classes else "[] without labels"
        _check("data.without_classes", list(without_classes), are_classes, classes)
        _check("stream.num_tasks", num_tasks, num_tasks >= 1, "at least 1")
        _check("seed", seed, seed >= 0, "0 or more")
        self.spec, self.split, self.num_tasks, self.joint = spec, split, num_tasks, joint
        self.batch_size, self.num_workers, self.flip, self.seed = batch_size, num_workers, flip, seed
        self.validation, self.validation_fraction = validation, validation_fraction
        self.labelled_share, self.without_classes = labelled_share, tuple(without_classes)
        self.binarize, self.current_task = binarize, 0
        self._train: DealtImages | None = None
        self._validated: DealtImages | None = None
        self._tested: DealtImages | None = None

    # What a data set says.

    def read(self, split: Literal["train", "test"]) -> LabelledImages:
        """The official split. Raises InputError that names the file where something is missing or wrong."""
        raise NotImplementedError

    def group_names(self) -> tuple[str, ...]:
        """What the groups are called in the names of tasks; as many as there are groups."""
        return tuple(str(group) for group in range(self.spec.num_classes))

    # What the house does with it.

    def setup(self, stage: str | None = None) -> None:
        if self._train is not None:  # called at every fit
            return
        train = self._checked(self.read("train"), "train")
        names = self.group_names()
        shares = checked_shares(self.split, len(names), self.num_tasks, seeded(self.seed, _SHARES))
        train_rows = torch.arange(len(train.group))
        if self.validation == "fraction":
            chance = torch.rand(len(train_rows), generator=seeded(self.seed, _HOLD_OUT))
            chance = chance if train.source is None else chance[train.source]
            is_held_out = chance < self.validation_fraction
            other, other_rows, train_rows = train, train_rows[is_held_out], train_rows[~is_held_out]
        elif self.validation == "train":
            other, other_rows = train, train_rows
        else:
            other = self._checked(self.read("test"), "test")
            other_rows = torch.arange(len(other.group))
        self._tested = self._validated = self._dealt(other, other_rows, shares, "test")
        if self.without_classes:
            self._validated = self._dealt(other, other_rows, shares, "test", self._is_kept(other.label))
        visible = train._replace(label=self._hide_labels(train.label, train_rows))
        self._train = self._dealt(visible, train_rows, shares, "train", self._is_kept(train.label))
        self.tasks = self._train.describe(task_names(shares, names), self.spec.num_classes)
        log.info("%s: %s", type(self).__name__, ", ".join(f"{t.name} ({t.num_images})" for t in self.tasks))

    @property
    def stages(self) -> tuple[Task, ...]:
        """What a run walks over: the tasks, or with `joint` their union in the place of the last one."""
        if not self.joint or len(self.tasks) == 1:
            return self.tasks
        counts = tuple(map(sum, zip(*(task.label_counts for task in self.tasks), strict=True)))
        return (Task(len(self.tasks) - 1, "all", counts, 0, sum(task.num_images for task in self.tasks)),)

    def dataset(self, split: Split, tasks: Sequence[int]) -> StreamDataset:
        """Images of these tasks, uint8. "val" and "test" are the same images (see `validation`), but for
        those of `without_classes`. Under `binarize` they are black and white, the same at every call: what is
        evaluated, and what samples are compared with.
        """
        images = self._part(split).dataset(tasks)
        return images if self.binarize == "none" else binary(images, self.binarize)

    def save_split(self, folder: Path) -> None:
        """Writes `<train|test>_task<k>.npy`: rows of the official splits, or under validation="fraction" of
        the official training split for both.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._part("train").save(folder, "train")
        self._part("test").save(folder, "test")

    def train_dataloader(self) -> DataLoader[Batch]:
        tasks = self._trained_tasks()
        # Grey images, whose pixels are drawn when they are on the device.
        is_drawn = self.binarize == "dynamic"
        data = self._part("train").dataset(tasks) if is_drawn else self.dataset("train", tasks)
        world, rank = _processes()
        if self.trainer is not None and self.trainer.overfit_batches:
            # The same batches in every epoch; Lightning would put its own sampler in place of a shuffled one.
            return self._loader(data, EvenBatches(len(data), self.batch_size, world, rank))
        batches = ShuffledBatches(len(data), self.batch_size, self.seed, world, rank)
        if self.trainer is not None:
            # Workers begin before Lightning tells the epoch, which is not 0 after a resume.
            batches.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)
        return self._loader(data, batches)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation_loader("val", range(self.current_task + 1))

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation_loader("test", range(self.current_task + 1))

    def predict_dataloader(self) -> DataLoader[Batch]:
        """The current stage's training images, each exactly once."""
        return self._evaluation_loader("train", self._trained_tasks())

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        # The default walks through the batch as through any collection, which costs more than the copy.
        return Batch(*(part.to(device, non_blocking=True) for part in batch))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Images become float32 in [-1, 1] here; in training some are mirrored, or their pixels drawn."""
        image = to_float(batch.image)
        if (self.flip or self.binarize == "dynamic") and self.trainer is not None and self.trainer.training:
            noise = batch_noise(self.trainer, self.seed, image.device)
            image = flip_some(image, noise) if self.flip else image
            image = draw_pixels(image, noise) if self.binarize == "dynamic" else image
        return batch._replace(image=image)

    def _part(self, split: Split) -> DealtImages:
        part = {"train": self._train, "val": self._validated, "test": self._tested}[split]
        if part is None:
            raise RuntimeError("the data is known after setup()")
        return part

    def _trained_tasks(self) -> Sequence[int]:
        return range(self.num_tasks) if self.joint else (self.current_task,)

    def _evaluation_loader(self, split: Split, tasks: Sequence[int]) -> DataLoader[Batch]:
        data = self.dataset(split, tasks)
        return self._loader(data, EvenBatches(len(data), self.batch_size, *_processes()))

    def _loader(self, data: StreamDataset, batches: ShuffledBatches | EvenBatches) -> DataLoader[Batch]:
        return DataLoader(
            data,
            # A sampler of index arrays without DataLoader's own batching: no list of indices is ever made.
            batch_size=None,
            sampler=batches,
            collate_fn=_as_it_is,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            # A copy from ordinary memory would wait for all that the GPU has still to do.
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            # Its own, since every iterator draws once from the global generator otherwise.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def _checked(self, images: LabelledImages, split: str) -> LabelledImages:
        found = tuple(images.image.shape[1:])
        channels, size, num_classes = self.spec
        if found != (channels, size, size):
            raise InputError(
                f"data.spec says {channels} channel(s) of {size} x {size} pixels, but the {split} images "
                f"have {found[0]} of {found[1]} x {found[2]}; correct data.spec.channels or data.spec.size."
            )
        width = int(images.label.max()) + 1 if images.label.ndim == 1 else images.label.shape[1]
        if len(images.label) == 0 or width > num_classes > 0:
            raise InputError(
                f"data.spec.num_classes={num_classes}, but the {len(images.label)} {split} labels need "
                f"{width}."
            )
        return images

    def _is_kept(self, label: Tensor) -> Tensor:
        """bool [N]: whether each image is trained on and validated with."""
        if not self.without_classes:
            return torch.ones(len(label), dtype=torch.bool)
        if label.ndim > 1:
            raise InputError(
                "data.without_classes: attribute data has no classes to leave out; set it to []."
            )
        return ~torch.isin(label, torch.tensor(self.without_classes))

    def _dealt(
        self,
        images: LabelledImages,
        rows: Tensor,
        shares: Tensor,
        split: Literal["train", "test"],
        is_kept: Tensor | None = None,
    ) -> DealtImages:
        """The images at `rows` in tasks; those that are not kept, bool [N], leave gaps in the deal."""
        # Under "train" both deals must be the same one.
        which = split == "test" and self.validation != "train"
        parts = [rows[places] for places in deal(images.group[rows], shares, seeded(self.seed, _DEAL, which))]
        if is_kept is not None:
            parts = [part[is_kept[part]] for part in parts]
        empty = [task for task, part in enumerate(parts) if len(part) == 0]
        if empty:
            raise InputError(
                f"the {split} images leave none for task(s) {', '.join(map(str, empty))} of stream.num_tasks="
                f"{self.num_tasks}; use fewer tasks, another seed or more data, or leave out fewer classes "
                "(data.without_classes)."
            )
        return DealtImages(images, parts)

    def _hide_labels(self, label: Tensor, rows: Tensor) -> Tensor:
        """A copy in which only a share of every class among `rows` is left, at least one image of each."""
        if self.labelled_share == 1:
            return label
        if label.ndim > 1:
            raise InputError("data.labelled_share: attribute data cannot be partly labelled; set it to 1.")
        hidden, rng = label.clone(), seeded(self.seed, _HIDE_LABELS)
        for kind in label[rows].unique().tolist():
            members = rows[label[rows] == kind]
            kept = max(1, round(self.labelled_share * len(members))) if self.labelled_share else 0
            hidden[members[torch.randperm(len(members), generator=rng)[kept:]]] = -1
        return hidden


def _processes() -> tuple[int, int]:
    """Number of processes, and the number of this one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size(), torch.distributed.get_rank()
    return 1, 0


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _check(key: str, value: object, allowed: bool, what: str) -> None:
    if not allowed:
        raise InputError(f"{key}={value}: it must be {what}.")
