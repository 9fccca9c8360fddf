"""A data set dealt into tasks; one of images subclasses `ImageDataModule` and says only how it is read."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from datamodules.binarize import BINARIZED, Binarization, draw_pixels
from datamodules.dataset import LabelledItems, StreamDataset
from datamodules.loading import LoadedStream
from datamodules.tasks import NoSplit, TaskSplit, deal, task_names
from lit_gen.core.images import flip_some
from lit_gen.core.random import DataUse, generator
from lit_gen.core.types import Fraction, ImageSpec, InputError, NonNegative, Split, Task

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False, repr=False)
class StreamDataModule(LoadedStream):
    """Deals a data set into tasks and loads the current one; a data set says how it is read.

    Attributes:
        spec: what the files must hold; checked in `setup`.
        split: how the items are dealt into `num_tasks` tasks.
        joint: the tasks stay, but one stage trains on their union.
        validation: "official" takes the official test split for validation and test; "fraction" takes a
            random part of the official training split for both and never reads the test split (Deja et al.
            2022); "train" scores the items that were trained on (Deja et al. 2023 on Omniglot).
        validation_fraction: the chance of a training item to be held out under "fraction".
        labelled_share: the part of each class that keeps its label in training; the other labels are -1.
        without_classes: neither trained on nor validated with, while the test items keep them: what a
            detector of anomalies has never seen. The other items are dealt as if nothing were left out.
    """

    split: TaskSplit = field(default_factory=NoSplit)
    joint: bool = False
    validation: Literal["official", "fraction", "train"] = "official"
    validation_fraction: Annotated[float, Gt(0), Lt(1)] = 0.3
    labelled_share: Fraction = 1.0
    without_classes: Sequence[NonNegative] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.without_classes = tuple(self.without_classes)
        if max(self.without_classes, default=-1) >= self.spec.num_classes:
            known = (
                f"classes from 0 to {self.spec.num_classes - 1}" if self.spec.num_classes else "no classes"
            )
            raise InputError(f"without_classes={list(self.without_classes)}: there are {known}.")
        self._parts: dict[Split, StreamDataset] = {}

    # What a data set says.

    def read(self, split: Literal["train", "test"]) -> LabelledItems:
        """The official split. Raises InputError that names the file where something is missing or wrong."""
        raise NotImplementedError

    def group_names(self) -> tuple[str, ...]:
        """What the groups are called in the names of tasks; as many as there are groups."""
        return tuple(str(group) for group in range(max(1, self.spec.num_classes)))

    # What the house does with it.

    def setup(self, stage: str | None = None) -> None:
        if self._parts:  # called at every fit
            return
        train = self._checked(self.read("train"), "train")
        names = self.group_names()
        shares = self.split.shares(len(names), generator(self.seed, DataUse.SHARES))
        if shares.shape[1] != self.num_tasks:
            raise InputError(
                f"stream.num_tasks={self.num_tasks}, but {type(self.split).__name__} makes {shares.shape[1]} "
                "tasks; set both to the same number, or choose another stream (stream=split_classes)."
            )
        other = self._checked(self.read("test"), "test") if self.validation == "official" else train
        train_rows, other_rows = torch.arange(len(train.group)), torch.arange(len(other.group))
        if self.validation == "fraction":
            chance = torch.rand(len(train_rows), generator=generator(self.seed, DataUse.HOLD_OUT))
            is_held_out = (
                chance[train_rows if train.source is None else train.source] < self.validation_fraction
            )
            other_rows, train_rows = train_rows[is_held_out], train_rows[~is_held_out]
        trained = self._dealt(train, train_rows, shares, "train", self.without_classes)
        trained.label = self._hide_labels(train.label, train_rows)
        validated = self._dealt(other, other_rows, shares, "test", self.without_classes)
        tested = self._dealt(other, other_rows, shares, "test")
        self._parts = {"train": trained, "val": validated, "test": tested}
        parts = [trained.of([task]) for task in range(self.num_tasks)]
        counts = [part.counts(self.spec.num_classes) for part in parts]
        firsts, sizes = [int(part.index[0]) for part in parts], map(len, parts)
        self._tasks = tuple(
            map(Task, range(self.num_tasks), task_names(shares, names), counts, firsts, sizes)
        )
        log.info("%s: %s", type(self).__name__, ", ".join(f"{t.name} ({t.num_images})" for t in self.tasks))

    @property
    def stages(self) -> tuple[Task, ...]:
        """What a run walks over: the tasks, or with `joint` their union in the place of the last one."""
        if not self.joint or len(self.tasks) == 1:
            return self.tasks
        counts = tuple(map(sum, zip(*(task.label_counts for task in self.tasks), strict=True)))
        return (Task(len(self.tasks) - 1, "all", counts, 0, sum(task.num_images for task in self.tasks)),)

    def dataset(self, split: Split, tasks: Sequence[int] | None = None) -> StreamDataset:
        """As of any stream; "val" and "test" are the same items, but for those of `without_classes`."""
        self.read_once()
        return self._parts[split].of(range(self.num_tasks) if tasks is None else tasks)

    def parts(self, split: Split) -> dict[str, StreamDataset]:
        """The tasks; under validation="fraction" their rows are those of the official training split."""
        return {f"task{task}": self._parts[split].of([task]) for task in range(self.num_tasks)}

    def _trained_tasks(self) -> Sequence[int]:
        return range(self.num_tasks) if self.joint else (self.current_task,)

    def _checked(self, items: LabelledItems, split: str) -> LabelledItems:
        if wrong := self.spec.mismatch(items.image):
            raise InputError(f"{type(self).__name__} ({split}): {wrong}; correct the data or the key.")
        if len(items.label) == 0:
            raise InputError(f"{type(self).__name__} ({split}): there are no images in the files.")
        width = int(items.label.max()) + 1 if items.label.ndim == 1 else items.label.shape[1]
        if width > self.spec.num_classes > 0:
            raise InputError(
                f"data.spec.num_classes={self.spec.num_classes}, but the {len(items.label)} {split} labels "
                f"need {width}."
            )
        if items.label.ndim > 1 and (self.without_classes or self.labelled_share < 1):
            raise InputError("attribute data has no classes for data.without_classes or data.labelled_share.")
        return items

    def _dealt(
        self,
        items: LabelledItems,
        rows: Tensor,
        shares: Tensor,
        split: Literal["train", "test"],
        left_out: Sequence[int] = (),
    ) -> StreamDataset:
        """The items at `rows` in tasks; those of the classes that are left out leave gaps in the deal."""
        # Under "train" both deals must be the same one.
        which = split == "test" and self.validation != "train"
        rng = generator(self.seed, DataUse.DEAL, which)
        parts = [rows[places] for places in deal(items.group[rows], shares, rng)]
        if left_out:
            is_kept = ~torch.isin(items.label, torch.tensor(left_out))
            parts = [part[is_kept[part]] for part in parts]
        empty = [task for task, part in enumerate(parts) if len(part) == 0]
        if empty:
            raise InputError(
                f"the {split} items leave none for task(s) {', '.join(map(str, empty))} of stream.num_tasks="
                f"{self.num_tasks}; use fewer tasks, another seed, more data or fewer data.without_classes."
            )
        task = torch.cat([torch.full_like(part, number) for number, part in enumerate(parts)])
        return StreamDataset(items.image, items.label, torch.cat(parts), task, torch.arange(len(task)))

    def _hide_labels(self, label: Tensor, rows: Tensor) -> Tensor:
        """A copy in which only a share of every class among `rows` is left, at least one item of each."""
        if self.labelled_share == 1:
            return label
        hidden, rng = label.clone(), generator(self.seed, DataUse.HIDE_LABELS)
        for kind in label[rows].unique().tolist():
            members = rows[label[rows] == kind]
            kept = max(1, round(self.labelled_share * len(members))) if self.labelled_share else 0
            hidden[members[torch.randperm(len(members), generator=rng)[kept:]]] = -1
        return hidden


@dataclass(kw_only=True, eq=False, repr=False)
class ImageDataModule(StreamDataModule):
    """Images, uint8 until a batch is on the device, where they become float32 in [-1, 1].

    Attributes:
        flip: training images are mirrored with probability 1/2, on the device.
        binarize: "threshold" makes pixels from 128 on white and the others black; "dynamic" draws them, white
            with the chance level / 255: anew for every training batch, on the device, once and for all for
            every other use (see `dataset`).
    """

    spec: ImageSpec
    flip: bool = False
    binarize: Binarization = "none"

    def dataset(self, split: Split, tasks: Sequence[int] | None = None) -> StreamDataset:
        """Images of these tasks, uint8; under `binarize` black and white, the same at every call: what is
        evaluated, and what samples are compared with.
        """
        return replace(super().dataset(split, tasks), looks=BINARIZED[self.binarize])

    def changes(self) -> list[Callable[[Tensor, torch.Generator], Tensor]]:
        return [flip_some] * self.flip + [draw_pixels] * (self.binarize == "dynamic")

    def _training_items(self) -> StreamDataset:
        # Grey where pixels are drawn anew, which happens on the device.
        read = super().dataset if self.binarize == "dynamic" else self.dataset
        return read("train", self._trained_tasks())
