"""Images per second of Multiband VAE's phases on MNIST, against a bare loop over the same networks.

The bare loop is what a plain script does: torch's own cross-entropy, Adam as it comes, no Trainer; it has one
process on the CPU. Images are those trained on, replayed ones too.
Usage:
    OMP_NUM_THREADS=1 python benchmarks/multiband.py [root=data] [tasks=[1]] [num_tasks=5] [epochs=3]
        [rounds=1] [devices=1] [accelerator=cpu]
`devices=2` keeps the product of batch size and processes at 64. Several tasks, as in `tasks=[3,9]
num_tasks=10 rounds=5`, take turns, so that their costs can be compared.
"""

from __future__ import annotations

import functools
import logging
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from lightning import Callback, Trainer
from timing import options
from torch import Tensor, nn

from callbacks.task_switch import TaskSwitch
from datamodules.mnist import MNIST
from datamodules.tasks import ClassSplit
from lit_gen.continual.multiband import Epochs, MultibandVAE
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import ImageSpec, Task
from lit_gen.losses.reconstruction import bernoulli_nll
from lit_gen.nets.binary import BinaryEncoder, gaussian_code, relaxed_bits, thresholded
from lit_gen.nets.multiband import DenseFeatures, DenseImages
from lit_gen.nets.translator import Band, Translator

SPEC, BATCH = ImageSpec(1, 28, 10), 64


def main() -> None:
    given = options(root="data", tasks=[1], num_tasks=5, epochs=3, rounds=1, devices=1, accelerator="cpu")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    clocks = {task: Clock() for task in given["tasks"]}
    for _ in range(given["rounds"]):
        for task, clock in clocks.items():
            time_task(given, task, clock)


def time_task(given: dict[str, Any], task: int, clock: Clock) -> None:
    """Trains one task with a new model; the clock goes on from where it stood, and reports."""
    devices, num_tasks = given["devices"], given["num_tasks"]
    data = OneTask(
        given["root"],
        only=task,
        download=False,
        spec=SPEC,
        split=ClassSplit(num_tasks),
        num_tasks=num_tasks,
        batch_size=BATCH // devices,
        validation="fraction",
    )
    data.setup()
    model = make_model(num_tasks, BATCH // devices, given["epochs"])
    trainer = Trainer(
        accelerator=given["accelerator"],
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
    if devices == 1 and given["accelerator"] == "cpu":
        for _ in range(given["epochs"]):
            images = [batch.ready().image for batch in data.train_dataloader()]
            for name, loop in (("local", bare_local), ("band", bare_band)):
                start = time.perf_counter()
                count = sum(loop(model, model.num_replayed(task), images))
                clock.rates[f"{name}, bare loop"].append((count, time.perf_counter() - start))
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
    """Images and seconds of every epoch, by phase."""

    def __init__(self) -> None:
        self.rates: dict[str, list[tuple[int, float]]] = defaultdict(list)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: MultibandVAE) -> None:
        self.images, self.start = 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: MultibandVAE, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self.images += batch.size
        if pl_module.phase.name == "band":
            self.images += pl_module.num_replayed(trainer.datamodule.only)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: MultibandVAE) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self.rates[pl_module.phase.name].append((self.images, time.perf_counter() - self.start))

    def report(self, devices: int) -> None:
        for name, epochs in self.rates.items():
            seconds = statistics.median(seconds for _, seconds in epochs)
            rate = statistics.median(devices * images / seconds for images, seconds in epochs)
            print(f"{name:18} {rate:10,.0f} images/s {seconds:8.2f} s per epoch")


def bare_local(model: MultibandVAE, num_replayed: int, batches: list[Tensor]) -> Iterator[int]:
    """An epoch of the local VAE; yields the images of every step."""
    encoder, band = model.local.encoder, model.local.band
    step = _stepper(encoder, band, weight_decay=1e-5)
    for image in batches:
        posterior = encoder(image)
        code = torch.cat([gaussian_code(posterior), relaxed_bits(posterior.logits, 0.5)], 1)
        number = torch.ones(len(image), dtype=torch.long)
        kl = -0.5 * (1 + posterior.log_var - posterior.mean.square() - posterior.log_var.exp()).sum()
        step((_cross_entropy(band(code, number), image) + kl) / len(image))
        yield len(image)


def bare_band(model: MultibandVAE, num_replayed: int, batches: list[Tensor]) -> Iterator[int]:
    """An epoch of consolidation; yields the images of every pool."""
    encoder, band, previous = model.local.encoder, model.band, model.previous_band
    step = _stepper(band)
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
            step(_cross_entropy(band(code[rows], number[rows]), target[rows]) / len(rows))
        yield len(code)


def _stepper(*modules: nn.Module, weight_decay: float = 0.0) -> Callable[[Tensor], None]:
    """What takes a step of these modules by a loss."""
    parameters = [p for module in modules for p in module.train().requires_grad_(True).parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, weight_decay=weight_decay)

    def step(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(parameters, 4.0)
        optimizer.step()

    return step


def _cross_entropy(image: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy((image + 1) / 2, (target + 1) / 2, reduction="sum")


if __name__ == "__main__":
    main()
