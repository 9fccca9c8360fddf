"""What every model is: a step that names its terms, phases that say what trains, and images on request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lit_gen.core.frozen import trainable
from lit_gen.core.types import Batch, ImageSpec, Params, Phase, Task, Terms, Turn

OptimizerFactory = Callable[[Params], Optimizer]
ScheduleFactor = Callable[[float], float]


class LitModel(LightningModule):
    """A family writes `step` (or `phases`); this class turns them into Lightning's hooks.

    `step`, `sample` and the phases' losses never touch the Trainer or `self.log`, so that a model can own
    another one and call them.

    Args:
        spec: the images that the model works on.
        optimizer: makes the optimizer of the given parameters, for every turn that brings none of its own.
        schedule: learning-rate factor over a phase's progress in [0, 1]; None keeps the rate.
    """

    needs_every_task = (
        False  # whether it learns nothing of use from the union of the tasks, stream.joint=true
    )

    def __init__(
        self, spec: ImageSpec, optimizer: OptimizerFactory, schedule: ScheduleFactor | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.make_optimizer = optimizer
        self.schedule = schedule
        self.clipping: tuple[float, str] | None = None  # set by fit_stages for phases whose turns run by hand
        self.phase: Phase | None = None
        self.latest_terms: Terms = {}
        self._span_of_epochs: tuple[int, int | None] = (0, None)
        self._window: list[Terms] = []
        self._epoch_sums: dict[str, Tensor] = {}
        self._epoch_counts: dict[str, int] = {}

    # --- what a family writes or may change

    def step(self, batch: Batch, progress: float) -> Terms:
        """Terms of one batch; `progress` in [0, 1] is the part of the phase that is done."""
        raise NotImplementedError(f"{type(self).__name__} has neither step nor phases of its own")

    def phases(self, task: Task) -> tuple[Phase, ...]:
        """The table of phases for one task. Pure and cheap: it is called more than once."""
        return (Phase.single("train", self.step, (self,)),)

    def evaluate(self, batch: Batch) -> Terms:
        """Terms on held-out images; called on loaded checkpoints too, where no phase was entered."""
        return {} if type(self).step is LitModel.step else self.step(batch, 1.0)

    def abilities(self) -> nn.Module:
        """The module whose protocols (Reconstructs, Classifies, ...) count: itself, or the one it wraps."""
        return self

    # --- what the house does

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":
            # Lightning sets it thirty times per batch, and a Module's way of setting takes 2 us.
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def enter(self, phase: Phase, first_epoch: int, end_epoch: int | None) -> None:
        """Freezes everything but what the phase trains and sets train / evaluation mode of every module.

        Args:
            end_epoch: the first epoch after the phase; None when the Trainer counts steps instead.
        """
        self.phase = phase
        self._span_of_epochs = (first_epoch, end_epoch)
        self._forget_terms()
        self.automatic_optimization = not phase.is_manual
        self.zero_grad(set_to_none=True)
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        self.eval()
        for turn in phase.turns:
            for module in turn.trains:
                module.train()
                for parameter in trainable(module):
                    parameter.requires_grad_(True)

    def configure_optimizers(self) -> tuple[list[Optimizer], list[dict[str, Any]]]:
        phase = self._entered()
        optimizers = [self._optimizer_of(turn) for turn in phase.turns]
        schedule = phase.schedule or self.schedule
        if schedule is None:
            return optimizers, []

        def factor(step: int) -> float:
            # The loaders, and so the length of the phase, are not known yet when step is 0.
            return schedule(min(step / self._scheduled_steps(), 1.0) if step else 0.0)

        schedulers = [LambdaLR(optimizer, factor) for optimizer in optimizers]
        return optimizers, [{"scheduler": s, "interval": "step"} for s in schedulers]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        phase = self._entered()
        done = self._batches_done(batch_idx)
        progress = self._progress(done)
        if phase.prepare is not None:
            with torch.no_grad():
                batch = phase.prepare(batch)
        if not phase.is_manual:
            terms = phase.turns[0].loss(batch, progress)
            self._note(terms)
            return terms["loss"]
        self._run_turns(batch, done, progress)
        return None

    def on_train_epoch_end(self) -> None:
        self._log_window()
        means = {f"train/{k}": v / self._epoch_counts[k] for k, v in self._epoch_sums.items()}
        # For monitors (early stopping, best checkpoint) only: the loggers already have every window.
        self.log_dict(means, logger=False, sync_dist=True)
        self._forget_terms()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._log_evaluation("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._log_evaluation("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        """A phase that trains nothing: one pass over the task's images, for what it sums up in buffers."""
        phase = self._entered()
        if phase.prepare is not None:
            batch = phase.prepare(batch)
        for turn in phase.turns:
            turn.loss(batch, 1.0)

    # --- turns by hand

    def _run_turns(self, batch: Batch, done: int, progress: float) -> None:
        phase = self._entered()
        optimizers = self.optimizers(use_pl_optimizer=True)
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        for part in _cut(batch, phase.chunk):
            terms: Terms = {}
            for turn, optimizer in zip(phase.turns, optimizers, strict=True):
                if done % turn.every == 0:
                    terms |= self._take_turn(turn, optimizer, part, progress, alone=len(phase.turns) == 1)
            self._note(terms)
        schedulers = self.lr_schedulers()
        for scheduler in schedulers if isinstance(schedulers, list) else [schedulers] if schedulers else []:
            scheduler.step()

    def _take_turn(self, turn: Turn, optimizer: Any, batch: Batch, progress: float, alone: bool) -> Terms:
        others = [] if alone else self._others(turn)
        for parameter in others:
            parameter.requires_grad_(False)
        terms = turn.loss(batch, progress)
        optimizer.zero_grad()
        self.manual_backward(terms["loss"])
        if self.clipping is not None:
            value, algorithm = self.clipping
            self.clip_gradients(optimizer, gradient_clip_val=value, gradient_clip_algorithm=algorithm)
        optimizer.step()
        for parameter in others:
            parameter.requires_grad_(True)
        return terms if alone else {f"{turn.name}/{name}": value for name, value in terms.items()}

    def _others(self, turn: Turn) -> list[nn.Parameter]:
        """What the phase trains, but not this turn."""
        mine = {id(p) for module in turn.trains for p in trainable(module)}
        every = [p for t in self._entered().turns for module in t.trains for p in trainable(module)]
        return [p for p in {id(p): p for p in every}.values() if id(p) not in mine]

    def _optimizer_of(self, turn: Turn) -> Optimizer:
        parameters = list({id(p): p for module in turn.trains for p in trainable(module)}.values())
        make = turn.optimizer or self.make_optimizer
        optimizer = make(parameters)
        clips = self.clipping is not None or bool(self.trainer.gradient_clip_val)
        if clips and optimizer.defaults.get("fused") and self.trainer.precision in ("16-mixed", "bf16-mixed"):
            # A fused optimizer unscales by itself and refuses clipped gradients under mixed precision.
            return make(parameters, fused=False)
        return optimizer

    # --- progress and terms

    def _entered(self) -> Phase:
        if self.phase is None:
            raise RuntimeError(
                "no phase was entered; train with callbacks.task_switch.fit_stages, not Trainer.fit"
            )
        return self.phase

    def _batches_done(self, batch_idx: int) -> int:
        """Batches of this phase before the current one."""
        return (
            self.trainer.current_epoch - self._span_of_epochs[0]
        ) * self.trainer.num_training_batches + batch_idx

    def _progress(self, done: int) -> float:
        start, stop = self._entered().span
        return start + (stop - start) * min(done / self._batches_in_phase(), 1.0)

    def _batches_in_phase(self) -> int:
        first, end = self._span_of_epochs
        if end is None:
            return self.trainer.max_steps * self.trainer.accumulate_grad_batches
        return max(1, (end - first) * self.trainer.num_training_batches)

    def _scheduled_steps(self) -> int:
        """How often a scheduler steps in this phase: once per batch by hand, else per optimizer step."""
        first, end = self._span_of_epochs
        if end is None:
            return self.trainer.max_steps
        accumulated = 1 if self._entered().is_manual else self.trainer.accumulate_grad_batches
        return max(1, (end - first) * -(-self.trainer.num_training_batches // accumulated))

    def _note(self, terms: Terms) -> None:
        """Keeps the terms as tensors; they are averaged and logged every `log_every_n_steps` batches."""
        self.latest_terms = {name: value.detach() for name, value in terms.items()}
        self._window.append(self.latest_terms)
        if (self.trainer.fit_loop.total_batch_idx + 1) % self.trainer.log_every_n_steps == 0:
            self._log_window()

    def _log_window(self) -> None:
        """Means since the last time go to the loggers at the number of batches seen so far."""
        if not self._window:
            return
        values: dict[str, list[Tensor]] = {}
        for terms in self._window:
            for name, value in terms.items():
                values.setdefault(name, []).append(value)
        self._window = []
        sums = {name: torch.stack(many).sum() for name, many in values.items()}
        for name, total in sums.items():
            self._epoch_sums[name] = self._epoch_sums[name] + total if name in self._epoch_sums else total
            self._epoch_counts[name] = self._epoch_counts.get(name, 0) + len(values[name])
        if self.trainer.loggers and self.trainer.is_global_zero:
            metrics = {f"train/{name}": float(total) / len(values[name]) for name, total in sums.items()}
            for logger in self.trainer.loggers:
                logger.log_metrics(metrics, step=self.trainer.fit_loop.total_batch_idx)

    def _log_evaluation(self, split: str, batch: Batch) -> None:
        terms = {f"{split}/{name}": value for name, value in self.evaluate(batch).items()}
        if terms:
            size = len(batch[0].image if isinstance(batch[0], tuple) else batch[0])
            self.log_dict(terms, on_epoch=True, sync_dist=True, batch_size=size)

    def _forget_terms(self) -> None:
        self._window, self._epoch_sums, self._epoch_counts = [], {}, {}


class LitGenerator(LitModel):
    """A model that draws images.

    `conditions`, a subset of {"label", "task"}, says which conditions `sample` takes: an option of a
    family, set in its `__init__`.
    """

    conditions: frozenset[str] = frozenset()

    def sample(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        """n images, float32 [n, C, S, S] in [-1, 1], drawn from the global generator, without gradient.

        Args:
            label: int64 [n], for models with the condition "label".
            task: int64 [n], for models with the condition "task".

        Raises:
            ValueError: a condition was given that the model does not take, or one is missing.
        """
        raise NotImplementedError(f"{type(self).__name__} does not sample")

    def refuse(self, **conditions: Tensor | None) -> None:
        """Raises ValueError for a condition that this model does not take, or does not get."""
        for name, value in conditions.items():
            if value is not None and name not in self.conditions:
                takes = ", ".join(sorted(self.conditions)) or "no condition"
                raise ValueError(f"{type(self).__name__}.sample: got {name}=, but this model takes {takes}")
            if value is None and name in self.conditions:
                raise ValueError(
                    f"{type(self).__name__}.sample: {name}= is missing; this model depends on it"
                )


def _cut(batch: Batch, chunk: int | None) -> list[Batch]:
    """The batch in minibatches of `chunk` images; whole when there is no chunk."""
    if chunk is None:
        return [batch]
    return [type(batch)(*parts) for parts in zip(*(field.split(chunk) for field in batch), strict=True)]
