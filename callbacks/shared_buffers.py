"""One set of buffers on all processes, wherever they are looked at or kept."""

from __future__ import annotations

import torch
from lightning import Callback, LightningModule, Trainer
from torch import nn


class SharedBuffers(Callback):
    """Gives every process rank 0's buffers before validation and after every epoch.

    Batch norm and pools of images follow each process's own batches, and DDP evens them out before a
    process's next batch at best (where turns run by hand, not even then). Without this, generated images
    would depend on which process draws them, and a resumed run would not be the one that was stopped.
    """

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        share_buffers(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        share_buffers(pl_module)


@torch.no_grad()
def share_buffers(module: nn.Module) -> None:
    """Collective; does nothing in one process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)
