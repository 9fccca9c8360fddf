"""Watches the course of training: the size of gradients, and losses that leave the numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from callbacks.checkpoints import RunCheckpoints
from callbacks.progress import place
from lit_gen.core.checkpoint import LAST
from lit_gen.core.types import Diverged, InputError


class Stability(Callback):
    """Logs `gradient_norm/<turn>` and stops a run that diverges, before a checkpoint of it is written.

    A gradient's norm is that of the first optimizer step of each turn after every log: before clipping, or
    after it in phases whose turns run by hand. Losses are looked at together every
    `trainer.log_every_n_steps` batches and at the end of every epoch, weights at the end of every epoch, so
    that a GPU is not waited for in between; the batch that is named is the first bad one all the same.

    Args:
        limit: a loss of this absolute value or more has diverged.
    """

    def __init__(self, limit: float = 1e8) -> None:
        if not limit > 0:
            raise InputError(f"callbacks.stability.limit={limit}: must be more than 0")
        self.limit = limit
        self._losses: list[tuple[int, dict[str, Tensor]]] = []
        self._norms: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._losses, self._norms = [], {}

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        name = _name(trainer, pl_module, optimizer)
        if name in self._norms:
            return
        gradients = [
            p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        if gradients:
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
            self._norms[name] = norm / _scale(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        terms = getattr(pl_module, "latest_terms", {})
        losses = {name: value for name, value in terms.items() if name.endswith("loss")}
        done = trainer.fit_loop.total_batch_idx + 1
        self._losses.append((done, losses))
        if done % trainer.log_every_n_steps == 0:
            self._look(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer, pl_module)
        norms = torch.stack(torch._foreach_norm([p.detach() for p in pl_module.parameters()]))
        bad = ~norms.isfinite()
        if _anywhere(trainer, bool(bad.any())):
            names = [name for name, _ in pl_module.named_parameters()]
            name = names[int(bad.int().argmax())] if bad.any() else "a weight of another process"
            self._stop(trainer, pl_module, f"{name} is not finite", trainer.fit_loop.total_batch_idx + 1)

    def _look(self, trainer: Trainer, module: LightningModule) -> None:
        """Raises Diverged on every process if a loss of any of them has left the limits."""
        bad = None
        losses = [(batch, name, value) for batch, terms in self._losses for name, value in terms.items()]
        if losses:
            values = torch.stack([value for *_, value in losses]).tolist()
            bad = next((n for n, v in enumerate(values) if not abs(v) < self.limit), None)
        self._losses = []
        if _anywhere(trainer, bad is not None):
            if bad is None:
                self._stop(trainer, module, "a loss of another process left the numbers", None)
            batch, name, _ = losses[bad]
            value = values[bad]
            beyond = f", beyond {self.limit:g}" if math.isfinite(value) else ""
            what = f"{name} is {value:g}{beyond}"
            self._stop(trainer, module, what, batch)
        if trainer.is_global_zero and self._norms:
            numbers = {f"train/gradient_norm{name}": float(norm) for name, norm in self._norms.items()}
            for logger in trainer.loggers:
                logger.log_metrics(numbers, step=trainer.fit_loop.total_batch_idx)
        self._norms = {}

    def _stop(self, trainer: Trainer, module: LightningModule, what: str, batch: int | None) -> None:
        where = f"{place(trainer, module)}, epoch {trainer.current_epoch + 1}"
        if batch is not None:
            where += f", batch {batch:,} of the run"
        raise Diverged(f"diverged: {what} ({where}). {_way_out(trainer)}")


def _way_out(trainer: Trainer) -> str:
    advice = "a lower model.optimizer.lr, trainer.gradient_clip_val=1, trainer.precision=32-true"
    for callback in trainer.callbacks:
        if isinstance(callback, RunCheckpoints) and (callback.folder / LAST).exists():
            last = callback.folder / LAST
            return (
                f"The last good checkpoint is {last}. Go on from there with other settings: lit-gen train "
                f"resume={last.parent.parent} trainer.gradient_clip_val=1, or begin again with one of: "
                f"{advice}."
            )
    return f"No checkpoint had been written yet. Begin again with one of: {advice}."


def _anywhere(trainer: Trainer, found: bool) -> bool:
    """Whether any process found it; all of them must ask."""
    if trainer.world_size == 1:
        return found
    return not trainer.strategy.reduce_boolean_decision(not found, all=True)


def _name(trainer: Trainer, module: LightningModule, optimizer: Optimizer) -> str:
    """ "/critic" in a phase of several turns, else nothing."""
    turns = getattr(getattr(module, "phase", None), "turns", ())
    if len(turns) < 2:
        return ""
    number = next(n for n, each in enumerate(trainer.optimizers) if each is optimizer)
    return f"/{turns[number].name}"


def _scale(trainer: Trainer, module: LightningModule) -> float:
    """What 16-bit gradients are still multiplied by when the steps are run by hand."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return 1.0 if scaler is None or module.automatic_optimization else scaler.get_scale()
