"""A picture of where the tasks lie in a model's common latent space."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from lightning import Callback, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from lit_gen.core.module import LitModel
from lit_gen.core.random import forked_rng
from lit_gen.core.types import InputError
from lit_gen.tracking.pictures import batches_seen, log_picture

_PURPOSE = 301  # keeps these draws apart from all others that use the same seed


@runtime_checkable
class PlacesTasks(Protocol):
    """Has one latent space for all tasks."""

    def translated(self, task: Tensor) -> Tensor:
        """A draw of each of these tasks, int64 [B], as a point in it: [B, D], without gradient."""


class LatentMap(Callback):
    """Draws `latent_map/task<k>.png` after every task: points of all tasks so far on two principal axes.

    The axes are those of the points in the picture. A model without a common latent space gets no picture.

    Args:
        folder: the run folder.
        num_points: of each task.
    """

    def __init__(self, folder: str | Path, num_points: int = 500, seed: int = 0) -> None:
        if num_points < 2:
            raise InputError(f"callbacks.latent_map.num_points={num_points}: it must be at least 2")
        self.folder = Path(folder) / "latent_map"
        self.num_points, self.seed = num_points, seed

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        able = pl_module.abilities()
        if not isinstance(able, PlacesTasks):
            return
        names = [task.name for task in trainer.datamodule.tasks[: trainer.datamodule.current_task + 1]]
        task = torch.arange(len(names), device=pl_module.device).repeat_interleave(self.num_points)
        with forked_rng(self.seed, _PURPOSE, device=pl_module.device):
            places = principal_axes(able.translated(task).double().cpu())
        self.folder.mkdir(parents=True, exist_ok=True)
        picture = _draw(
            places.view(len(names), -1, 2), names, self.folder / f"task{trainer.datamodule.current_task}.png"
        )
        log_picture(trainer, "latent_map", picture, batches_seen(trainer))


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


def _draw(places: Tensor, names: list[str], path: Path) -> Tensor:
    """Writes a scatter of [T, N, 2] to `path` in one move and returns it, uint8 [H, W, 3]."""
    # Not pyplot: it picks a window system when it is imported.
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 4.5), layout="constrained", dpi=110)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = colormaps["tab10" if len(names) <= 10 else "tab20"]
    for number, name in enumerate(names):
        x, y = places[number].T.numpy()
        axes.scatter(x, y, s=4, alpha=0.5, linewidths=0, color=colours(number % colours.N), label=name)
    axes.set_xlabel("first principal axis")
    axes.set_ylabel("second principal axis")
    axes.legend(title="task", fontsize=7, markerscale=3, ncols=1 + (len(names) - 1) // 15)
    canvas.draw()
    fresh = path.with_name(path.stem + ".tmp.png")
    figure.savefig(fresh)
    os.replace(fresh, path)
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy())
