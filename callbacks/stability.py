"""Watches the course of training: the size of gradients, and losses that leave the numbers."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from annotated_types import Gt
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from callbacks.checkpoints import RunCheckpoints
from callbacks.progress import place
from lit_gen.core.checkpoint import LAST
from lit_gen.core.module import LitModel
from lit_gen.core.progress import batches_seen
from lit_gen.core.types import Diverged


class Stability(Callback):
    """Logs `gradient_norm/<turn>` and stops a run that diverges, before a checkpoint of it is written.

    A gradient's norm is that of the first optimizer step of each turn after every log, before clipping.
    Losses are looked at together every `trainer.log_every_n_steps` batches and at the end of every epoch,
    weights at the end of every epoch: a GPU is not waited for in between. The first bad batch is named.

    Args:
        limit: a loss of this absolute value or more has diverged.
    """

    def __init__(self, limit: Annotated[float, Gt(0)] = 1e8) -> None:
        if not limit > 0:
            raise ValueError(f"limit={limit}: must be more than 0")
        self.limit = limit
        self._losses: list[tuple[int, str, Tensor]] = []  # batch, name, value
        self._norms: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LitModel) -> None:
        self._losses, self._norms = [], {}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LitModel, optimizer: Optimizer) -> None:
        turns = pl_module.phase.turns
        name = f"/{turns[trainer.optimizers.index(optimizer)].name}" if len(turns) > 1 else ""
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        gradients = [p.grad for p in parameters if p.grad is not None] if name not in self._norms else ()
        if gradients:
            # Only a fused optimizer gets 16-bit gradients that are still multiplied.
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            is_scaled = scaler is not None and optimizer.defaults.get("fused")
            self._norms[name] = get_total_norm(gradients) / (scaler.get_scale() if is_scaled else 1.0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LitModel, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done, terms = batches_seen(trainer), pl_module.latest_terms
        self._losses += [(done, name, value) for name, value in terms.items() if name.endswith("loss")]
        if done % trainer.log_every_n_steps == 0:
            self._look(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        self._look(trainer, pl_module)
        weights = {name: weight.detach() for name, weight in pl_module.named_parameters()}
        is_fine = get_total_norm(list(weights.values())).isfinite()
        bad = None if is_fine else next((n for n, w in weights.items() if not w.isfinite().all()), None)
        if _anywhere(trainer, bad is not None):
            what = f"{bad or 'a weight of another process'} is not finite"
            self._stop(trainer, pl_module, what, batches_seen(trainer))

    def _look(self, trainer: Trainer, module: LitModel) -> None:
        """Raises Diverged on every process if a loss of any of them has left the limits."""
        losses, self._losses = self._losses, []
        values = torch.stack([value for *_, value in losses]).tolist() if losses else []
        bad = next((n for n, value in enumerate(values) if not abs(value) < self.limit), None)
        if _anywhere(trainer, bad is not None):
            if bad is None:
                self._stop(trainer, module, "a loss of another process left the numbers", None)
            batch, name, _ = losses[bad]
            beyond = f", beyond {self.limit:g}" if math.isfinite(values[bad]) else ""
            self._stop(trainer, module, f"{name} is {values[bad]:g}{beyond}", batch)
        if trainer.is_global_zero and self._norms:
            numbers = {f"train/gradient_norm{name}": float(norm) for name, norm in self._norms.items()}
            for logger in trainer.loggers:
                logger.log_metrics(numbers, step=batches_seen(trainer) - 1)
        self._norms = {}

    def _stop(self, trainer: Trainer, module: LitModel, what: str, batch: int | None) -> None:
        where = f"{place(trainer, module)}, epoch {trainer.current_epoch + 1}"
        if batch is not None:
            where += f", batch {batch:,} of the run"
        raise Diverged(f"diverged: {what} ({where}). {_way_out(trainer)}")


def _way_out(trainer: Trainer) -> str:
    advice = "a lower model.optimizer.lr, trainer.gradient_clip_val=1, trainer.precision=32-true"
    savers = [callback for callback in trainer.callbacks if isinstance(callback, RunCheckpoints)]
    last = savers[0].folder(trainer) / LAST if savers else None
    if last is None or not last.exists():
        return f"No checkpoint had been written yet. Begin again with one of: {advice}."
    return (
        f"The last good checkpoint is {last}. Go on from there with other settings: lit-gen train "
        f"resume={last.parent.parent} trainer.gradient_clip_val=1, or begin again with one of: {advice}."
    )


def _anywhere(trainer: Trainer, found: bool) -> bool:
    """Whether any process found it; all of them must ask."""
    return not trainer.strategy.reduce_boolean_decision(not found, all=True)
