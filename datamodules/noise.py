"""Random numbers of a training batch that its images are changed with."""

from __future__ import annotations

import torch
from lightning import Trainer

from datamodules.tasks import seeded

_PURPOSE = 6  # keeps these draws apart from the other uses of the seed


def batch_noise(trainer: Trainer, seed: int, device: torch.device) -> torch.Generator:
    """A function of the batch's place in the run (epoch, batch, process), for the batch that comes next.

    Not the global generator: Lightning moves a batch to the device before any callback can seed that for it,
    and the first batch after a resume would draw something else.
    """
    batch = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    place = seeded(seed, _PURPOSE, trainer.current_epoch, batch, trainer.global_rank)
    return torch.Generator(device).manual_seed(place.initial_seed())
