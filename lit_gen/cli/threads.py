"""How many CPU threads a run uses: small networks can be 20 times slower with two threads than with one."""

from __future__ import annotations

import copy
import logging
import os
import time

import torch
from lightning import Trainer

from lit_gen.cli.run_folder import rank
from lit_gen.core.frozen import trainable
from lit_gen.core.module import LitModel
from lit_gen.core.progress import Course
from lit_gen.core.random import forked_rng
from lit_gen.core.types import StreamData

log = logging.getLogger(__name__)

_HANDED_ON = "LIT_GEN_CPU_THREADS"
_SECONDS = 0.4  # for each number of threads


def use_threads(
    setting: int | str, stored: int | None, trainer: Trainer, module: LitModel, datamodule: StreamData
) -> int:
    """Sets the number of threads of this process and returns it.

    In order of weight: what the run was begun with (another number gives other weights), what rank 0 chose,
    an integer in the config, OMP_NUM_THREADS, and else the faster of one thread and all, timed on a copy of
    the model.

    Args:
        setting: `cpu_threads`, an integer or "auto".
        stored: what the checkpoint of a resumed run says; None for a new run.
    """
    count, why = _chosen(setting, stored, trainer, module, datamodule)
    torch.set_num_threads(count)
    os.environ[_HANDED_ON] = str(count)
    if trainer.is_global_zero:
        log.info("CPU threads: %d (%s)", count, why)
    return count


def _chosen(
    setting: int | str, stored: int | None, trainer: Trainer, module: LitModel, datamodule: StreamData
) -> tuple[int, str]:
    if stored is not None:
        return stored, "as the run began"
    if rank() > 0 and (handed_on := os.environ.get(_HANDED_ON)):
        return int(handed_on), "as rank 0 chose"
    if setting != "auto":
        return int(setting), "cpu_threads"
    if (given := os.environ.get("OMP_NUM_THREADS", "")).isdigit() and int(given) > 0:
        return int(given), "OMP_NUM_THREADS"
    if trainer.strategy.root_device.type != "cpu":
        return torch.get_num_threads(), "the default beside a GPU"
    # macOS and Windows do not tell which cores are this process's.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    every = max(1, cores // max(1, trainer.num_devices))
    if every == 1:
        return 1, "one core for each process"
    rates = {count: _steps_per_second(count, module, datamodule) for count in (1, every)}
    best = max(rates, key=rates.get)
    timed = ", ".join(f"{count}: {rate:.0f} steps/s" for count, rate in rates.items())
    return best, f"timed, {timed}"


def _steps_per_second(count: int, module: LitModel, datamodule: StreamData) -> float:
    """Speed of the first phase's first turn, on a copy that is thrown away; draws no noise of the run's."""
    with forked_rng(0, device=torch.device("cpu")):
        module, task = copy.deepcopy(module), datamodule.stages[0]
        datamodule.current_task = task.index
        phase = module.phases(task)[0]
        turn = phase.turns[0]
        module.enter(phase, Course())
        parameters = trainable(*turn.trains)
        if not parameters:
            return 0.0
        optimizer = (turn.optimizer or module.make_optimizer)(parameters)
        images = datamodule.dataset("train", [task.index])
        size = min(len(images), getattr(datamodule, "batch_size", 64))
        batch = images.__getitems__(list(range(size))).ready()

        def seconds(steps: int) -> float:
            start = time.perf_counter()
            for _ in range(steps):
                optimizer.zero_grad()
                turn.loss(batch, 0.5)["loss"].backward()
                optimizer.step()
            return time.perf_counter() - start

        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            seconds(3)
            steps = max(3, int(_SECONDS / seconds(1)))
            return steps / seconds(steps)
        finally:
            torch.set_num_threads(before)
