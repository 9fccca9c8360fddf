"""Loaders of any stream: who sees which items in which order, and how a batch gets to the model."""

# Without `from __future__ import annotations`: a constructor's hints are read where only a subclass is known.

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, get_origin, get_type_hints

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from lightning import LightningDataModule, Trainer
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from datamodules.dataset import Indexed, StreamDataset
from datamodules.samplers import Blocks, EvenBatches, ShuffledBatches
from lit_gen.core.files import replaced
from lit_gen.core.progress import batches_of_epoch, epochs_done
from lit_gen.core.random import DataUse, generator, processes
from lit_gen.core.types import Batch, InputError, NonNegative, PairBatch, Positive, Spec, Split, Task

_DIGESTS = "digests.npz"
_PATIENCE = 120.0  # seconds for a batch from a worker; one that finds no shared memory never brings it


def workers_failure(error: RuntimeError) -> str | None:
    """What to say where processes that load brought no batch; None for everything else."""
    text = str(error)
    if not text.startswith("DataLoader "):
        return None
    shared = Path("/dev/shm")
    room = f" ({shutil.disk_usage(shared).free / 1e6:,.1f} MB are free there)" if shared.is_dir() else ""
    return (
        f"data.num_workers: no batch came from the processes that load ({text.splitlines()[0].rstrip('.')}). "
        f"Mostly they find no shared memory, {shared}{room}, to hand it over in: use data.num_workers=0, "
        "which is as fast for data in memory, or make room, as by docker run --shm-size=1g. Go on with "
        "lit-gen train resume=<its folder> data.num_workers=0"
    )


@dataclass(kw_only=True, eq=False, repr=False)
class LoadedStream(LightningDataModule):
    """A stream of tasks in batches; a subclass says what there is in `prepare_data`, `setup` and `dataset`.

    Attributes:
        spec: what the items look like.
        num_tasks: how many tasks there are; models size their buffers by the same key.
        batch_size: per process, in training.
        global_batch_size: images of one optimizer step, over all processes and accumulated batches, from
            which `batch_size` follows when a training begins; None: `batch_size` says it.
        eval_batch_size: images in a block of validation and tests; another size gives other noise.
        num_workers: processes that load; data in memory needs none.
        current_task: the one that is trained.
    """

    spec: Spec
    num_tasks: Annotated[int, Gt(0), Le(10_000)] = 1
    batch_size: Positive = 64
    global_batch_size: Positive | None = None
    eval_batch_size: Positive = 250
    seed: NonNegative = 0
    num_workers: Annotated[int, Ge(0), Le(1024)] = 0

    def __post_init__(self) -> None:
        super().__init__()
        _refuse_what_hints_do_not_allow(self)
        self.current_task = 0
        self._tasks: tuple[Task, ...] = ()

    # What a subclass says.

    def dataset(self, split: Split, tasks: Sequence[int] | None = None) -> Indexed:
        """Items of these tasks, as they are kept; None is all tasks."""
        raise NotImplementedError

    def parts(self, split: Split) -> dict[str, StreamDataset]:
        """The parts of the data by name; their `rows` are those of an official split."""
        raise NotImplementedError

    def changes(self) -> list[Callable[[Tensor, torch.Generator], Tensor]]:
        """What the items of training batches go through on the device, one after the other."""
        return []

    def shuffled(self, data: Indexed, num_replicas: int, rank: int, accumulated: int = 1) -> ShuffledBatches:
        """The order of training batches."""
        return ShuffledBatches(len(data), self.batch_size, self.seed, num_replicas, rank, accumulated)

    # What the house does with it.

    def read_once(self) -> None:
        """Reads the data if that has not been done, as Lightning does at the beginning of a run."""
        if not self._tasks:
            self.prepare_data()
            self.setup()

    def share_batches(self, num_processes: int, accumulated: int) -> None:
        """Settles `batch_size` by the global one, if there is one.

        Raises:
            InputError: it does not divide.
        """
        whole, parts = self.global_batch_size, num_processes * accumulated
        if whole is None:
            return
        if whole % parts:
            near = [size for size in (whole // parts * parts, (whole // parts + 1) * parts) if size]
            raise InputError(
                f"data.global_batch_size={whole}: cannot be shared equally by {num_processes} process(es) "
                f"that accumulate {accumulated} batch(es) each (trainer.devices times trainer.num_nodes, "
                f"trainer.accumulate_grad_batches); {' or '.join(map(str, near))} can, or another number of "
                "devices."
            )
        self.batch_size = whole // parts

    def save_split(self, folder: Path) -> None:
        """Writes `<train|test>_<part>.npy` with the rows of each part, and one file of the items' digests."""
        self.read_once()
        folder.mkdir(parents=True, exist_ok=True)
        digests = {}
        for split in ("train", "test"):
            for name, part in self.parts(split).items():
                np.save(folder / f"{split}_{name}.npy", part.rows.numpy())
                digests[f"{split}_{name}"] = part.digests()
        with replaced(folder / _DIGESTS) as aside:
            np.savez(aside, **digests)

    def is_saved(self, folder: Path) -> bool:
        """Whether a split was saved there, so that changes can be told."""
        return (folder / _DIGESTS).is_file()

    def changes_since(self, folder: Path) -> list[str]:
        """What differs from the split that was saved there, a line for each part of both; [] where none was
        saved. A longer stream has parts that the other has not."""
        if not self.is_saved(folder):
            return []
        self.read_once()
        file = folder / _DIGESTS
        try:
            with np.load(file, allow_pickle=False) as archive:
                before = dict(archive)
        except Exception as error:  # zipfile and numpy raise a dozen kinds, by where the file is damaged
            raise InputError(
                f"{file}: is damaged ({error}), and the data cannot be compared with those of the run. "
                "Put it back, or remove it to go on without"
            ) from error
        now = {f"{s}_{n}": part.digests() for s in ("train", "test") for n, part in self.parts(s).items()}
        lines = []
        for name in filter(now.__contains__, before):
            old, new = before[name], now[name]
            if not np.array_equal(old, new):
                came, went = (int((~np.isin(a, b)).sum()) for a, b in ((new, old), (old, new)))
                counts = f"{len(old)} before, {len(new)} now"
                what = f"{came} of them new, {went} gone" if came or went else "in another order or number"
                lines.append(f"{name.replace('_', ' of ')}: {counts}, {what}")
        return lines

    @property
    def tasks(self) -> tuple[Task, ...]:
        self.read_once()
        return self._tasks

    @property
    def stages(self) -> tuple[Task, ...]:
        """What a run walks over."""
        return self.tasks

    def train_dataloader(self) -> DataLoader[Batch]:
        data = self._training_items()
        if self.trainer is not None and self.trainer.overfit_batches:
            # The same batches in every epoch; Lightning would put its own sampler in place of a shuffled one.
            return self._in_order(data)
        accumulated = 1 if self.trainer is None else self.trainer.accumulate_grad_batches
        self.share_batches(processes()[0], accumulated)
        batches = self.shuffled(data, *processes(), accumulated)
        if self.trainer is not None:
            # Workers begin before Lightning tells the epoch, which is not 0 after a resume.
            batches.set_epoch(epochs_done(self.trainer))
        return self._loader(data, batches)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._in_blocks("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._in_blocks("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """The current stage's training items, each exactly once."""
        return self._in_order(self.dataset("train", self._trained_tasks()))

    def transfer_batch_to_device(
        self, batch: Batch | PairBatch, device: torch.device, dataloader_idx: int
    ) -> Batch | PairBatch:
        # The default walks through the batch as through any collection, which costs more than the copy.
        return batch.to(device, non_blocking=True)

    def on_after_batch_transfer(self, batch: Batch | PairBatch, dataloader_idx: int) -> Batch | PairBatch:
        """Items become what models get; those of training batches are changed."""
        batch, changes = batch.ready(), self.changes()
        if changes and self.trainer is not None and self.trainer.training:
            noise = batch_noise(self.trainer, self.seed, batch.target.device)
            for change in changes:
                batch = batch.each(lambda part, change=change: part._replace(image=change(part.image, noise)))
        return batch

    def _trained_tasks(self) -> Sequence[int]:
        return (self.current_task,)

    def _training_items(self) -> Indexed:
        return self.dataset("train", self._trained_tasks())

    def _in_blocks(self, split: Split) -> DataLoader[Batch]:
        """Of the tasks seen so far."""
        tasks = range(self.current_task + 1)
        sizes = [len(self.dataset(split, [task])) for task in tasks]
        blocks = Blocks(sizes, self.eval_batch_size, *processes())
        return self._loader(self.dataset(split, tasks), blocks)

    def _in_order(self, data: Indexed) -> DataLoader[Batch]:
        return self._loader(data, EvenBatches(len(data), self.batch_size, *processes()))

    def _loader(self, data: Indexed, batches: Sampler) -> DataLoader[Batch]:
        return DataLoader(
            data,
            # A sampler of index arrays without DataLoader's own batching: no list of indices is ever made.
            batch_size=None,
            sampler=batches,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            timeout=_PATIENCE if self.num_workers else 0,
            # A copy from ordinary memory would wait for all that the GPU has still to do.
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            # Its own, since every iterator draws once from the global generator otherwise.
            generator=torch.Generator().manual_seed(self.seed),
        )


def batch_noise(trainer: Trainer, seed: int, device: torch.device) -> torch.Generator:
    """A function of the batch's place in the run (epoch, batch, process), for the batch that comes next.

    Not the global generator: Lightning moves a batch to the device before any callback can seed that for it,
    and the first batch after a resume would draw something else.
    """
    place = epochs_done(trainer), batches_of_epoch(trainer), trainer.global_rank
    return torch.Generator(device).manual_seed(generator(seed, DataUse.NOISE, *place).initial_seed())


def _refuse_what_hints_do_not_allow(values: Any, prefix: str = "") -> None:
    """InputError for an attribute that is out of its bounds, or none of its words; the spec's too."""
    for name, hint in get_type_hints(type(values), include_extras=True).items():
        value = getattr(values, name, None)
        if name == "spec":
            _refuse_what_hints_do_not_allow(value, "spec.")
        elif get_origin(hint) in (Annotated, Literal, Sequence, UnionType):
            try:
                TypeAdapter(hint).validate_python(value)
            except ValidationError as error:
                raise InputError(f"{prefix}{name}={value}: {error.errors()[0]['msg'].lower()}.") from None
