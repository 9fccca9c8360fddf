"""Small things that many tests need: toy data, toy models, a quiet Trainer."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import nn

from callbacks.checkpoints import RunCheckpoints
from callbacks.task_switch import TaskSwitch
from datamodules.synthetic import SyntheticData
from datamodules.tasks import ClassSplit
from lit_gen.core.checkpoint import CHECKPOINT_KEY, FORMAT
from lit_gen.core.module import LitGenerator
from lit_gen.core.schedules import Cosine
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import ImageSpec, Phase

SPEC = ImageSpec(channels=1, size=8, num_classes=4)


def make_data(
    num_tasks: int = 2, batch_size: int = 16, joint: bool = False, seed: int = 0, **options
) -> SyntheticData:
    """A stream of class-incremental tasks over 160 images, if nothing else is said."""
    data = SyntheticData(
        spec=SPEC,
        split=ClassSplit(num_tasks=num_tasks),
        num_tasks=num_tasks,
        batch_size=batch_size,
        joint=joint,
        seed=seed,
        **{"num_images": 160} | options,
    )
    data.prepare_data()
    data.setup()
    return data


class ToyGenerator(LitGenerator):
    """Two phases per task: the first trains one layer, the second both; with noise and batch norm."""

    def __init__(self, epochs: int = 2) -> None:
        optimizer = functools.partial(torch.optim.Adam, lr=1e-2)
        super().__init__(spec=SPEC, optimizer=optimizer, schedule=Cosine())
        torch.manual_seed(7)
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8))
        self.second = nn.Linear(8, 64)
        self.epochs = epochs
        self.calls: list[str] = []
        self.register_buffer("tasks_closed", torch.zeros((), dtype=torch.long))
        self.register_buffer("noise_at_end", torch.zeros(4))

    def step(self, batch, progress):
        code = self.first(batch.image)
        code = code + 0.1 * torch.randn_like(code)
        error = (self.second(code) - batch.image.flatten(1)).square().sum(1).mean()
        return {"loss": error, "progress": torch.tensor(progress)}

    def phases(self, task):
        def note(what):
            return lambda t: self.calls.append(f"{what} {t.index}")

        def close(t):
            self.calls.append(f"close {t.index}")
            self.tasks_closed += 1
            self.noise_at_end.copy_(torch.randn(4))

        return (
            Phase.single("warmup", self.step, (self.first,), self.epochs, begin=note("begin warmup")),
            Phase.single("main", self.step, (self.first, self.second), self.epochs, end=close),
        )

    @torch.no_grad()
    def sample(self, n, *, label=None, task=None):
        self.refuse(label=label, task=task)
        return self.second(torch.randn(n, 8, device=self.device)).tanh().view(n, 1, 8, 8)


def make_trainer(*callbacks, **settings) -> Trainer:
    """A Trainer for the CPU that says nothing."""
    settings = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "inference_mode": False,
        "use_distributed_sampler": False,
    } | settings
    return Trainer(callbacks=[TaskSwitch(seed=0), *callbacks], **settings)


class CopyingCheckpoints(RunCheckpoints):
    """Keeps every checkpoint it writes in a folder of its own, readable without a run record."""

    def __init__(self, folder: Path, every_seconds: float = 10.0) -> None:
        super().__init__(every_seconds)
        self.place = Path(folder)

    def folder(self, trainer):
        return self.place

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        checkpoint[CHECKPOINT_KEY] = {"format": FORMAT, "config": {}}

    def save(self, trainer, task=None, *name):
        super().save(trainer, task, *name)
        if trainer.is_global_zero:
            number = len(list(self.place.glob("copy-*.ckpt")))
            shutil.copy(self.place / "last.ckpt", self.place / f"copy-{number:02d}.ckpt")


def walk(folder, ckpt_path=None, model=None, callbacks=(), **settings):
    """A run over two tasks, or the rest of one: model, trainer, tasks tested; every checkpoint is kept."""
    model, saver = model or ToyGenerator(), CopyingCheckpoints(folder, every_seconds=0.0)
    trainer, data, tested = make_trainer(*callbacks, saver, **settings), make_data(), []

    def after_task(task):
        trainer.test(model, datamodule=data, verbose=False)
        tested.append(task.index)
        saver.save(trainer, task)

    fit_stages(trainer, model, data, ckpt_path, after_task)
    return model, trainer, tested


def assert_same_state(a, b) -> None:
    """To the bit."""
    for (name, value), (other, found) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert name == other and torch.equal(value, found), name


class RanksAgree(Callback):
    """Writes down, phase by phase, whether all processes have the same weights and different noise."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        self.noises: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        with torch.random.fork_rng():  # looking must not change what comes next
            noise = pl_module.all_gather(torch.rand(1))
        if batch_idx == 0:
            self.noises.append(float(noise.unique().numel()))
        index = pl_module.all_gather(batch.index.float().mean())
        if batch_idx == 0:
            self.noises.append(float(index.unique().numel()))

    def on_train_end(self, trainer, pl_module):
        flat = torch.cat([value.detach().double().flatten() for value in pl_module.state_dict().values()])
        every = pl_module.all_gather(flat)
        if trainer.is_global_zero:
            same = bool((every == every[0]).all())
            with self.file.open("a") as file:
                file.write(f"{pl_module.phase.name} {same} {set(self.noises)} {len(every)}\n")


class SamplesAgree(Callback):
    """Writes down, in validation and before tests, whether processes draw the same images from one noise."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 0:
            self._compare(trainer, pl_module, "validation")

    def on_test_start(self, trainer, pl_module):
        self._compare(trainer, pl_module, "test")

    def _compare(self, trainer, module, when):
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(5)
            module.eval()
            every = module.all_gather(module.sample(4))
        if trainer.is_global_zero:
            moved = bool(module.generator.state_dict()["layers.0.running_mean"].any())
            with self.file.open("a") as file:
                file.write(f"{when} {bool((every == every[0]).all())} {moved} {len(every)}\n")
