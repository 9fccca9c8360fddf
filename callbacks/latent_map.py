"""A picture of where the tasks lie in a model's common latent space."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge
from lightning import Callback, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from lit_gen.core.module import LitModel
from lit_gen.core.progress import batches_seen
from lit_gen.core.random import Use, forked_rng
from lit_gen.core.types import NonNegative, StreamData
from lit_gen.evaluation.plots import scatter, write_picture
from lit_gen.tracking.pictures import log_picture

log = logging.getLogger(__name__)


class LatentMap(Callback):
    """Draws `latent_map/task<k>.png` after every task: points of all tasks so far on two principal axes.

    The axes are those of the points in the picture. A model without a common latent space, which is one whose
    `translated` gives a draw of each of these tasks, int64 [B], as a point in it, [B, D], gets no picture.

    Args:
        num_points: of each task.
    """

    def __init__(self, num_points: Annotated[int, Ge(2)] = 500, seed: NonNegative = 0) -> None:
        self.num_points, self.seed = num_points, seed

    def check(self, module: LitModel, data: StreamData) -> None:
        """Says that there will be no picture, where there will be none."""
        if not hasattr(able := module.abilities(), "translated"):
            log.info("callbacks.latent_map: %s has no common latent space: no map", type(able).__name__)

    @rank_zero_only
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        able, data = pl_module.abilities(), trainer.datamodule
        if not hasattr(able, "translated"):
            return
        task = torch.arange(data.current_task + 1).repeat_interleave(self.num_points)
        with forked_rng(self.seed, Use.LATENT_MAP, device=pl_module.device):
            places = principal_axes(able.translated(task.to(pl_module.device)).double().cpu())
        names = [each.name for each in data.tasks]
        axes = ("first principal axis", "second principal axis")
        picture = scatter(places, task, axes, names, title="task")
        write_picture(Path(trainer.default_root_dir) / "latent_map" / f"task{data.current_task}.png", picture)
        log_picture(trainer.loggers, "latent_map", picture, batches_seen(trainer))


def principal_axes(points: Tensor) -> Tensor:
    """Places of points on the two axes along which they differ most: [N, D] -> [N, 2].

    Each axis points to where its largest component is positive, so that a picture does not flip.
    """
    centred = points - points.mean(0)
    _, axes = torch.linalg.eigh(centred.T @ centred)  # ascending
    axes = axes[:, -2:].flip(1)
    largest = axes.abs().argmax(0)
    axes = axes * axes[largest, torch.arange(axes.shape[1])].sign()
    return centred @ axes
