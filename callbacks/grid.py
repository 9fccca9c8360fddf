"""Grids of what a model can show, on disk and in whichever logger keeps images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from lightning import Callback, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from lit_gen.core.module import LitGenerator, LitModel
from lit_gen.core.progress import batches_seen
from lit_gen.core.random import Use, forked_rng
from lit_gen.core.types import Batch, InputError, NonNegative, PairBatch, Positive, Restores, Translates
from lit_gen.evaluation.context import Context, undisturbed
from lit_gen.evaluation.plots import cells, named_rows, write_picture
from lit_gen.tracking.pictures import log_picture

_MOST_COLUMNS, _MOST_ROWS = 16, 20

Shown = tuple[str, Tensor, int | None, Sequence[str]]
"""What it is called, images [B, C, S, S] in [-1, 1], the columns to lay them out in, names of the rows."""


class Grid(Callback):
    """Draws `samples/<task>-<epoch>.png` every few epochs and after each task, always from the same noise.

    A model that takes the task or the label as a condition gets one row per task seen so far, labels those of
    the task's test images, as far as they were trained on, or of a single task one row per class, where the
    classes are few; any other one square. Models that reconstruct
    also show test images, each above its reconstruction. Those that translate show test images of a, below
    them their translations to b and those translated back, and below that the same from b to a.

    Only rank 0 draws. The training's random numbers, and the modes of its modules, stay as they are.

    Args:
        num_images: in a full grid, when all tasks have been seen.
        every_n_epochs: epochs of the run between two grids in training; 0 draws after tasks only.
    """

    def __init__(
        self, num_images: Positive = 64, every_n_epochs: NonNegative = 10, seed: NonNegative = 0
    ) -> None:
        self.num_images, self.every_n_epochs, self.seed = num_images, every_n_epochs, seed
        self._drawn_epoch: int | None = None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        # Here rather than at the end of the epoch, since averaged weights are in place.
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._draw_if_due(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        self._draw_if_due(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        # The epoch is one further than in training.
        self.draw(trainer, pl_module, trainer.current_epoch)

    def _draw_if_due(self, trainer: Trainer, module: LitModel) -> None:
        epoch = trainer.current_epoch
        if self.every_n_epochs and (epoch + 1) % self.every_n_epochs == 0 and epoch != self._drawn_epoch:
            self._drawn_epoch = epoch
            self.draw(trainer, module, epoch + 1)

    @rank_zero_only
    def draw(self, trainer: Trainer, module: LitModel, epochs: int) -> None:
        """Draws and keeps the grids now; `epochs` of the run are done."""
        context = Context.of_trainer(trainer, module)
        name = f"task{context.num_seen - 1}-epoch{epochs:04d}"
        noise = forked_rng(self.seed, Use.SAMPLE_GRID, device=module.device)
        with noise, undisturbed(module), context.precision():
            for key, image, columns, names in self._shown(context):
                picture, ending = cells(image, columns), "" if key == "samples" else f"-{key}"
                if names:
                    picture = named_rows(picture, names)
                write_picture(Path(trainer.default_root_dir) / "samples" / f"{name}{ending}.png", picture)
                log_picture(trainer.loggers, key, picture, batches_seen(trainer))

    def _shown(self, context: Context) -> Iterator[Shown]:
        if isinstance(context.model, LitGenerator):
            yield self._samples(context, context.model)
        able = context.model.abilities()
        if isinstance(able, Restores):
            yield self._reconstructions(context, able)
        if isinstance(able, Translates):
            yield self._translations(context, able)

    def _samples(self, context: Context, model: LitGenerator) -> Shown:
        if not model.conditions:
            return "samples", model.sample(self.num_images), None, ()
        num_tasks, counts = len(context.data.tasks), context.data.tasks[0].label_counts
        classes = [kind for kind, count in enumerate(counts) if count]
        if model.conditions == {"label"} and num_tasks == 1 and len(classes) <= _MOST_ROWS:
            columns = math.ceil(self.num_images / len(classes))
            label = torch.tensor(classes, device=model.device).repeat_interleave(columns)
            names = [f"class {kind}" for kind in classes]
            return "samples", model.sample(len(label), label=label), columns, names
        per_task = math.ceil(self.num_images / num_tasks)
        batches = [_test_images(context, task, per_task) for task in range(context.num_seen)]
        told = [context.conditions(batch, model.conditions) for batch in batches]
        given = {name: torch.cat([part[name] for part in told]) for name in sorted(model.conditions)}
        image = model.sample(per_task * len(batches), **given)
        return "samples", image, *((per_task, _names(context)) if num_tasks > 1 else (None, ()))

    def _reconstructions(self, context: Context, able: Restores) -> Shown:
        """A row of test images above the row of their reconstructions, for each task seen so far."""
        per_task = max(4, math.ceil(self.num_images / len(context.data.tasks) / 2))
        columns = min(per_task, _MOST_COLUMNS)
        rows = []
        for task in range(context.num_seen):
            batch = _test_images(context, task, columns)
            rows += [batch.image, able.reconstruct(batch)]
        names = [each for name in _names(context) for each in (name, "reconstructed")]
        return "reconstructions", torch.cat(rows), columns, names

    def _translations(self, context: Context, able: Translates) -> Shown:
        columns = min(self.num_images, _MOST_COLUMNS)
        batch = _test_images(context, context.num_seen - 1, columns)
        if not isinstance(batch, PairBatch):
            raise InputError("callbacks.grid: the data has one domain only; use data=unpaired_mnist or so")
        rows, names = [], []
        for image, there, back in ((batch.a.image, "b", "a"), (batch.b.image, "a", "b")):
            translated = able.translate(image, to=there)
            rows += [image, translated, able.translate(translated, to=back)]
            names += [back, f"{back} to {there}", "and back"]
        return "translations", torch.cat(rows), columns, names


def _names(context: Context) -> list[str]:
    """Of the tasks seen so far."""
    tasks = context.data.tasks[: context.num_seen]
    return [f"task {task.index}: {task.name}" for task in tasks] if len(context.data.tasks) > 1 else ["test"]


def _test_images(context: Context, task: int, count: int) -> Batch | PairBatch:
    """`count` test images of a task, spread over it; repeated where there are fewer."""
    images = context.data.dataset("test", [task])
    return context.load(images, torch.tensor([place * len(images) // count for place in range(count)]))
