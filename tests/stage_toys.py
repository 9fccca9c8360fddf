"""A logistic model with its Fisher information, and a run of it in any number of processes."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import torch
from lightning.pytorch.loggers.logger import Logger
from torch import nn
from toys import SPEC, make_data, make_trainer

from lit_gen.core.frozen import FrozenCopy
from lit_gen.core.module import LitModel
from lit_gen.core.processes import gathered, summed
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import Phase


class Logistic(LitModel):
    """Is it one of the first two classes? Then squared gradients of each image's log-likelihood, summed."""

    def __init__(self):
        super().__init__(spec=SPEC, optimizer=functools.partial(torch.optim.SGD, lr=1e-2))
        torch.manual_seed(3)
        self.net = nn.Linear(64, 1)
        self.frozen = FrozenCopy(self.net)
        self.register_buffer("fisher", torch.zeros(64))
        self.noted = []

    def phases(self, task):
        return (
            Phase.single("fisher", self.count, (), with_grad=True),
            Phase.single("train", self.step, (self.net,), 2),
        )

    def step(self, batch, progress):
        loss = _loss(self.net, batch)
        self.noted.append((loss.item(), batch.size))
        return {"loss": loss}

    def evaluate(self, batch):
        return {"loss": _loss(self.frozen, batch)}

    def count(self, batch, progress):
        squares = torch.zeros_like(self.fisher)
        for number in range(batch.size):
            one = batch.map(lambda part, n=number: part[n : n + 1])
            (gradient,) = torch.autograd.grad(_loss(self.net, one), [self.net.weight])
            squares += gradient.squeeze(0) ** 2
        self.fisher += summed(squares)  # once per batch: processes have equally many, but of different sizes
        return {}


def _loss(net, batch):
    return nn.functional.softplus(-_sign(batch) * net(batch.image.flatten(1)).squeeze(1)).mean()


def _sign(batch):
    return torch.where(batch.label < 2, 1.0, -1.0)


@torch.no_grad()
def fisher_by_hand(model, data):
    """The sum over images of (y - p)^2 x^2 under the weights that the model began with."""
    batch = data.dataset("train", [0]).__getitems__(list(range(data.tasks[0].num_images))).ready()
    x = batch.image.flatten(1)
    p = torch.sigmoid(model.frozen(x))
    return ((_sign(batch)[:, None] / 2 + 0.5 - p) ** 2 * x**2).sum(0)


class Curves(Logger):
    """Keeps the curve of the loss, and writes nothing."""

    name, version = "curves", ""

    def __init__(self):
        super().__init__()
        self.seen = []

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        if "train/loss" in metrics:
            self.seen.append(metrics["train/loss"])


EVERY = 3  # batches between two points of a curve


def main(out: str) -> None:
    """Trains and tests, and writes down what was found and what it should be."""
    data = make_data(num_tasks=1, num_test_images=7)
    curves, model = Curves(), Logistic()
    world = int(os.environ.get("WORLD_SIZE", 1))
    strategy = "ddp" if world > 1 else "auto"
    trainer = make_trainer(logger=curves, log_every_n_steps=EVERY, devices=world, strategy=strategy)
    fit_stages(trainer, model, data)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    metrics |= trainer.test(model, datamodule=data, verbose=False)[0]
    noted = torch.tensor(model.noted, dtype=torch.float64)
    every = gathered(noted[None])
    value, images = every.unbind(-1)  # [processes, batches]
    last = range(value.shape[1] // 2, value.shape[1])
    ends = [0, *(n for n in range(1, value.shape[1] + 1) if n % EVERY == 0 or n in (last.start, last.stop))]

    def mean(batches):
        part = slice(batches.start, batches.stop)
        return float((value * images)[:, part].sum() / images[:, part].sum())

    if trainer.is_global_zero:
        noted = [mean(range(*ends[n : n + 2])) for n in range(len(ends) - 1)]
        found = {"world": world, "curves": curves.seen, "noted": noted, "last_noted": mean(last)}
        Path(out).write_text(json.dumps(found | metrics | {"fisher": model.fisher.tolist()}))
    if world > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
