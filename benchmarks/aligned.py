"""Adapt & Align's classifier against a plain one, on the same images drawn by the same trained generators.

A run's generators, as its checkpoints have them after each task, teach one LeNet after the other: its weights
begin alike (rate 1e-3, of a head alone 1e-2), and it sees the same pool. The plain one has as many epochs as
both phases of the other together.
Usage:
    OMP_NUM_THREADS=1 python benchmarks/aligned.py runs=[FOLDER,...] [epochs=40] [pool_size=500] [real=true]
The runs are of experiment=classes_digits/multiband or multiband_gan with seed=0,1,2 (model.epochs=1 will do:
their own classifier is not looked at); a run of another seed is another column.
"""

from __future__ import annotations

import functools
import logging
import statistics
import time
from collections.abc import Callable

import torch
from lightning import Trainer, seed_everything
from timing import options
from torch import Tensor

from callbacks.task_switch import TaskSwitch
from lit_gen.cli.open_run import open_run
from lit_gen.continual.aligned import AlignedSolver
from lit_gen.continual.solver import Solver
from lit_gen.core.module import LitGenerator
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import Batch, Phase, StreamData, Task, Terms
from lit_gen.families.classifier import Classifier


class Recalled(LitGenerator):
    """In place of a generator that learns, what it was after each task; see `TranslatesCodes`."""

    def __init__(self, run: str, num_tasks: int) -> None:
        files = [f"{run}/checkpoints/task-{number}.ckpt" for number in range(num_tasks)]
        known = [open_run(file).context.model.generator for file in files]
        super().__init__(known[0].spec, known[0].make_optimizer)
        self.net = known[0]
        self.states = [{k: v.clone() for k, v in each.state_dict().items()} for each in known]
        self.conditions = self.net.conditions

    def phases(self, task: Task) -> tuple[Phase, ...]:
        return (Phase.single("recall", self.look, (), begin=self.recall),)

    def recall(self, task: Task) -> None:
        self.net.load_state_dict(self.states[task.index])

    def look(self, batch: Batch, progress: float) -> Terms:
        return {}

    def sample(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        return self.net.sample(n, label=label, task=task)

    def translated(self, task: Tensor) -> Tensor:
        return self.net.translated(task)

    def decode_translated(self, code: Tensor) -> Tensor:
        return self.net.decode_translated(code)


def main() -> None:
    given = options(runs=[], epochs=40, pool_size=500, real=True)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    epochs, common = given["epochs"], {"pool_size": given["pool_size"], "real": given["real"]}
    both = functools.partial(AlignedSolver, distil_epochs=epochs, epochs=epochs, **common)
    large = functools.partial(torch.optim.Adam, lr=1e-2, fused=True)
    ways = {
        "plain": functools.partial(Solver, epochs=2 * epochs, **common),
        "distilled, head alone": functools.partial(both, head_optimizer=large),
        "distilled, all learn": functools.partial(both, frozen=False),
    }
    for name, way in ways.items():
        start = time.perf_counter()
        found = [accuracy(run, seed, way) for seed, run in enumerate(given["runs"])]
        each = " ".join(f"{value:.3f}" for value in found)
        spread = statistics.stdev(found) if len(found) > 1 else float("nan")
        seconds = (time.perf_counter() - start) / len(found)
        print(
            f"{name:22} {statistics.mean(found):.3f} +- {spread:.3f}  ({each})  {seconds:.0f} s a run",
            flush=True,
        )


def accuracy(run: str, seed: int, way: Callable[..., Solver]) -> float:
    """After the last task, the mean over tasks."""
    data: StreamData = open_run(run).context.data
    num_tasks = len(data.tasks)
    generator = Recalled(run, num_tasks)
    seed_everything(seed, verbose=False)
    classifier = Classifier(data.spec, optimizer=functools.partial(torch.optim.Adam, lr=1e-3, fused=True))
    model = way(generator, classifier, num_tasks)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        inference_mode=False,
        use_distributed_sampler=False,
        callbacks=[TaskSwitch(seed)],
    )
    fit_stages(trainer, model, data)
    model.eval()
    right = []
    for task in range(num_tasks):
        images = data.dataset("test", [task])
        batch = images.__getitems__(list(range(len(images)))).ready()
        right.append(float((model.classify(batch.image).argmax(1) == batch.label).float().mean()))
    return statistics.mean(right)


if __name__ == "__main__":
    main()
