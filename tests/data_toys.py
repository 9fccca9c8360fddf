"""A small stream of images, and a module that remembers what a Trainer gives it."""

from __future__ import annotations

import torch
from lightning import LightningModule, Trainer

from datamodules.synthetic import SyntheticData
from datamodules.tasks import ClassSplit
from lit_gen.core.types import ImageSpec

SPEC = ImageSpec(1, 8, 4)


def stream(num_tasks=2, **settings):
    settings = {"spec": SPEC, "num_images": 90, "num_test_images": 31, "batch_size": 7} | settings
    data = SyntheticData(split=ClassSplit(num_tasks), num_tasks=num_tasks, **settings)
    data.setup()
    return data


def joined(batches):
    """All of a loader, or of a list, as one batch."""
    return type(next(iter(batches)))(*map(torch.cat, zip(*batches, strict=True)))


class Recorder(LightningModule):
    """Trains a number and draws from the global generator."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained, self.validated, self.predicted = [], [], []

    def training_step(self, batch):
        self.trained.append(batch)
        return self.weight * batch.target.mean() + 0 * torch.rand(())

    def validation_step(self, batch):
        self.validated.append(batch)

    def predict_step(self, batch):
        self.predicted.append(batch)
        return batch.index

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def trainer(*callbacks, **settings):
    return Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **({"max_epochs": 1, "num_sanity_val_steps": 0} | settings),
    )
