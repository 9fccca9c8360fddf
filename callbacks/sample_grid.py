"""Grids of samples and reconstructions, on disk and in whichever logger keeps images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning import Callback, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image
from torch import Tensor, nn

from lit_gen.core.images import grid, to_float, to_uint8
from lit_gen.core.module import LitGenerator, LitModel
from lit_gen.core.random import forked_rng
from lit_gen.core.types import Batch, InputError, Reconstructs, StreamData
from lit_gen.tracking.pictures import batches_seen, log_picture

_LEAST_SIDE = 24  # pixels; smaller images are shown enlarged by a whole number
_PURPOSE = 0x6121D  # keeps these draws apart from all others that use the same seed


class SampleGrid(Callback):
    """Draws `samples/<task>-<epoch>.png` every few epochs and after each task, always from the same noise.

    A model that takes the task or the label as a condition gets one row per task seen so far, labels those of
    the task's test images; any other one square. Models with codes also show test images, each above its
    reconstruction.

    Only rank 0 draws. The training's random numbers, and the modes of its modules, stay as they are.

    Args:
        folder: the run folder.
        num_images: in a full grid, when all tasks have been seen.
        every_n_epochs: epochs of the run between two grids in training; 0 draws after tasks only.
    """

    def __init__(
        self, folder: str | Path, num_images: int = 64, every_n_epochs: int = 10, seed: int = 0
    ) -> None:
        if num_images < 1:
            raise InputError(f"callbacks.grid.num_images={num_images}: it must be at least 1")
        if every_n_epochs < 0:
            raise InputError(f"callbacks.grid.every_n_epochs={every_n_epochs}: it must be 0 (never) or more")
        self.folder = Path(folder) / "samples"
        self.num_images, self.every_n_epochs, self.seed = num_images, every_n_epochs, seed
        self._drawn_epoch: int | None = None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        # Here rather than at the end of the epoch, since averaged weights are in place.
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._draw_if_due(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        self._draw_if_due(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LitModel) -> None:
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
        data: StreamData = trainer.datamodule
        device = module.device
        name = f"task{data.current_task}-epoch{epochs:04d}"
        with (
            forked_rng(self.seed, _PURPOSE, device=device),
            evaluation_mode(module),
            torch.no_grad(),
            trainer.precision_plugin.forward_context(),
        ):
            if isinstance(module, LitGenerator):
                self._keep(trainer, name, "samples", *self._samples(module, data))
            able = module.abilities()
            if isinstance(able, Reconstructs):
                self._keep(
                    trainer,
                    f"{name}-reconstructions",
                    "reconstructions",
                    *self._reconstructions(able, data, device),
                )

    def _samples(self, module: LitGenerator, data: StreamData) -> tuple[Tensor, int | None]:
        """Images and the columns to lay them out in."""
        if not module.conditions:
            return to_uint8(module.sample(self.num_images)), None
        seen = data.current_task + 1
        per_task = math.ceil(self.num_images / len(data.tasks))
        batches = [_test_images(data, task, per_task, module.device) for task in range(seen)]
        asked = {
            "label": torch.cat([batch.label for batch in batches]),
            "task": torch.cat([batch.task for batch in batches]),
        }
        given = {name: value for name, value in asked.items() if name in module.conditions}
        image = module.sample(len(asked["task"]), **given)
        columns = len(batches[0].task) if len(data.tasks) > 1 else None
        return to_uint8(image), columns

    def _reconstructions(
        self, module: Reconstructs, data: StreamData, device: torch.device
    ) -> tuple[Tensor, int | None]:
        """A row of test images above the row of their reconstructions, for each task seen so far."""
        per_task = max(4, math.ceil(self.num_images / len(data.tasks) / 2))
        columns = min(per_task, 16)
        rows = []
        for task in range(data.current_task + 1):
            batch = _test_images(data, task, columns, device)
            rows += [batch.image, module.reconstruct(batch)]
        return torch.cat([to_uint8(row) for row in rows]), len(rows[0])

    def _keep(self, trainer: Trainer, name: str, key: str, image: Tensor, columns: int | None) -> None:
        times = max(1, _LEAST_SIDE // image.shape[-1])
        image = image.repeat_interleave(times, dim=-1).repeat_interleave(times, dim=-2)
        picture = grid(image, columns)
        self.folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.squeeze(-1).numpy()).save(self.folder / f"{name}.png")
        log_picture(trainer, key, picture, batches_seen(trainer))


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Inside, every part of the module is in evaluation mode; afterwards each is in its own again."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _test_images(data: StreamData, task: int, count: int, device: torch.device) -> Batch:
    """`count` test images of a task, spread over it, on the device; repeated where there are fewer."""
    images = data.dataset("test", [task])
    places = [place * len(images) // count for place in range(count)]
    batch = images.__getitems__(places)
    batch = Batch(*(part.to(device) for part in batch))
    return batch._replace(image=to_float(batch.image))
