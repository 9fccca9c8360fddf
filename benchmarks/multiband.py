"""Images per second of Multiband VAE's phases on MNIST, against a bare loop over the same networks.

The bare loop is what a plain script does: torch's own cross-entropy, Adam as it comes, no Trainer. Both take
an epoch in turn, so that a busy machine hurts both alike. Images are those trained on, replayed ones too.
Usage:
    OMP_NUM_THREADS=1 python benchmarks/multiband.py data.root=DIR [task=1] [num_tasks=5] [epochs=3]
        [rounds=1] [devices=1] [accelerator=cpu] [bare=true]
`devices=2` keeps the product of batch size and processes at 64; `bare=false` leaves the bare loop out.
Several tasks, as in `task=3,9 num_tasks=10 rounds=5`, take turns, so that their costs can be compared.
"""

from __future__ import annotations

import copy
import functools
import logging
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from lightning import Callback, Trainer
from torch import Tensor, nn

from callbacks.task_switch import TaskSwitch
from datamodules.mnist import MNIST
from datamodules.tasks import ClassSplit
from lit_gen.continual.multiband import Epochs, MultibandVAE
from lit_gen.continual.multiband_local import CodePrior, LocalVAE
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import ImageSpec, Task
from lit_gen.losses.reconstruction import bernoulli_nll
from lit_gen.nets.binary import BinaryEncoder, gaussian_code, relaxed_bits, thresholded
from lit_gen.nets.multiband import DenseFeatures, DenseImages
from lit_gen.nets.translator import Band, Translator

SPEC, BATCH = ImageSpec(1, 28, 10), 64
OPTIONS = {
    "data.root": "data",
    "task": "1",
    "num_tasks": "5",
    "epochs": "3",
    "rounds": "1",
    "devices": "1",
    "accelerator": "cpu",
    "bare": "true",
}


def main(arguments: list[str]) -> None:
    options = dict(OPTIONS)
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in options:
            sys.exit(f"unknown option {key!r}; there are {', '.join(options)}")
        options[key] = value
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    clocks: dict[int, Clock] = {}
    for _ in range(int(options["rounds"])):
        for task in map(int, options["task"].split(",")):
            bare = options["bare"] == "true" and options["devices"] == "1" and options["accelerator"] == "cpu"
            time_task(options, task, clocks.setdefault(task, Clock(bare)))


def time_task(options: dict[str, str], task: int, clock: Clock) -> None:
    """Trains one task with a new model; the clock goes on from where it stood, and reports."""
    devices, num_tasks = int(options["devices"]), int(options["num_tasks"])
    data = OneTask(
        options["data.root"],
        only=task,
        download=False,
        spec=SPEC,
        split=ClassSplit(num_tasks),
        num_tasks=num_tasks,
        batch_size=BATCH // devices,
        validation="fraction",
    )
    data.setup()
    model = make_model(num_tasks, BATCH // devices, int(options["epochs"]))
    trainer = Trainer(
        accelerator=options["accelerator"],
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        gradient_clip_val=4.0,
        gradient_clip_algorithm="value",
        inference_mode=False,
        use_distributed_sampler=False,
        callbacks=[TaskSwitch(0), clock],
    )
    fit_stages(trainer, model, data)
    if trainer.is_global_zero:
        print(f"task {task} of {num_tasks}, {data.tasks[task].num_images} images, {devices} process(es)")
        clock.report(devices)


@dataclass(eq=False, repr=False)
class OneTask(MNIST):
    """MNIST with one task of its stream as the only stage."""

    only: int = field(default=0, kw_only=True)

    @property
    def stages(self) -> tuple[Task, ...]:
        return self.tasks[self.only : self.only + 1]


def make_model(num_tasks: int, batch_size: int, epochs: int) -> MultibandVAE:
    adam = functools.partial(torch.optim.Adam, lr=1e-3, fused=True)
    return MultibandVAE(
        encoder=BinaryEncoder(DenseFeatures(1, 28), latent_size=8, num_bits=4),
        band=Band(Translator(8, 4, num_tasks, 256), DenseImages(1, 28, 256)),
        num_tasks=num_tasks,
        batch_size=batch_size,
        epochs=Epochs(epochs, 0, epochs, 0, epochs),
        reconstruction=bernoulli_nll,
        spec=SPEC,
        optimizer=functools.partial(adam, weight_decay=1e-5),
        band_optimizer=adam,
    )


class Clock(Callback):
    """Images and seconds of every epoch, by phase; each is followed by one of the bare loop."""

    def __init__(self, bare: bool) -> None:
        self.bare = bare
        self.rates: dict[str, list[tuple[int, float]]] = defaultdict(list)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: MultibandVAE) -> None:
        self.images = 0
        self.start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: MultibandVAE, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self.images += len(batch.image)
        if pl_module.phase.name == "band":
            self.images += pl_module.num_replayed(trainer.datamodule.only)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: MultibandVAE) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        name = pl_module.phase.name
        self.rates[name].append((self.images, time.perf_counter() - self.start))
        if self.bare:
            images = [b.image for b in map(self._on_device, trainer.datamodule.train_dataloader())]
            loop = bare_local if name == "local" else bare_band
            # Not the module itself: it would bring a copy of the Trainer along.
            parts = Parts(*copy.deepcopy([getattr(pl_module, name) for name in Parts._fields]))
            start = time.perf_counter()
            count = sum(loop(parts, pl_module.num_replayed(trainer.datamodule.only), images))
            self.rates[f"{name}, bare loop"].append((count, time.perf_counter() - start))

    def _on_device(self, batch: object) -> object:
        return batch._replace(image=batch.image.float().mul_(2 / 255).sub_(1))

    def report(self, devices: int) -> None:
        for name, epochs in self.rates.items():
            seconds = statistics.median(seconds for _, seconds in epochs)
            rate = statistics.median(devices * images / seconds for images, seconds in epochs)
            print(f"{name:18} {rate:10,.0f} images/s {seconds:8.2f} s per epoch")


class Parts(NamedTuple):
    """The parts of a MultibandVAE."""

    local: LocalVAE
    band: Band
    previous_band: nn.Module
    prior: CodePrior


def bare_local(model: Parts, num_replayed: int, batches: list[Tensor]) -> Iterator[int]:
    """An epoch of the local VAE; yields the images of every step."""
    encoder, band = model.local.encoder, model.local.band
    parameters = _trained(encoder, band)
    optimizer = torch.optim.Adam(parameters, lr=1e-3, weight_decay=1e-5)
    for image in batches:
        posterior = encoder(image)
        code = torch.cat([gaussian_code(posterior), relaxed_bits(posterior.logits, 0.5)], 1)
        number = torch.ones(len(image), dtype=torch.long)
        kl = -0.5 * (1 + posterior.log_var - posterior.mean.square() - posterior.log_var.exp()).sum()
        loss = (_cross_entropy(band(code, number), image) + kl) / len(image)
        _step(loss, optimizer, parameters)
        yield len(image)


def bare_band(model: Parts, num_replayed: int, batches: list[Tensor]) -> Iterator[int]:
    """An epoch of consolidation; yields the images of every pool."""
    encoder, band, previous = model.local.encoder, model.band, model.previous_band
    parameters = _trained(band)
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    for image in batches:
        with torch.no_grad():
            past_code, past_task = model.prior.draw_shared(num_replayed, 1)
            posterior = encoder(image)
            chance = torch.sigmoid(posterior.logits)
            code = torch.cat([gaussian_code(posterior), thresholded(torch.rand_like(chance), chance)], 1)
            order = torch.randperm(len(image) + len(past_code))
            target = torch.cat([previous(past_code, past_task), image])[order]
            code = torch.cat([past_code, code])[order]
            number = torch.cat([past_task, torch.ones(len(image), dtype=torch.long)])[order]
        for rows in torch.arange(len(code)).split(BATCH):
            loss = _cross_entropy(band(code[rows], number[rows]), target[rows]) / len(rows)
            _step(loss, optimizer, parameters)
        yield len(code)


def _trained(*modules: nn.Module) -> list[nn.Parameter]:
    parameters = [p for module in modules for p in module.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
        parameter.grad = None
    return parameters


def _cross_entropy(image: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy((image + 1) / 2, (target + 1) / 2, reduction="sum")


def _step(loss: Tensor, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_value_(parameters, 4.0)
    optimizer.step()


if __name__ == "__main__":
    main(sys.argv[1:])
