"""What every model is: a step that names its terms, phases that say what trains, and images on request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, Self

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lit_gen.core.answers import images_from, terms_from
from lit_gen.core.frozen import trainable
from lit_gen.core.means import Means
from lit_gen.core.memory import kept_by
from lit_gen.core.progress import Course, batches_seen, dealt, epochs_done, images_of_epoch
from lit_gen.core.types import (
    Batch,
    Dealt,
    ImageSpec,
    OptimizerFactory,
    Phase,
    ScheduleFactor,
    Task,
    Terms,
    Turn,
)


class LitModel(LightningModule):
    """A family writes `step` (or `phases`); this class turns them into Lightning's hooks.

    `step`, `sample` and the phases' losses never touch the Trainer or `self.log`, so that a model can own
    another one and call them.

    Args:
        spec: the images that the model works on.
        optimizer: makes the optimizer of the given parameters, for every turn that brings none of its own.
        schedule: over a phase's progress; None keeps the rate.

    Attributes:
        made_with: what its constructor was given.
        phase: what is trained now; None in a model that no phase was entered with.
        course: how far it is.
        step_listeners: called with the model and the turn's name after every step of an optimizer.
        latest_terms: of the latest batch, on the device.
        clipping: (value, algorithm) for phases whose turns run by hand, where Lightning refuses to clip.
    """

    needs_every_task = False  # whether the union of the tasks (stream.joint=true) is of no use to it
    compares_images = False  # whether its loss tells nothing about a batch of one image
    needs_pairs = False  # whether it learns from two domains, by batches of images of each

    made_with: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **options: Any) -> Self:
        made = super().__new__(cls)
        made.__dict__["made_with"] = (args, options)
        return made

    def __init__(
        self, spec: ImageSpec, optimizer: OptimizerFactory, schedule: ScheduleFactor | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.make_optimizer = optimizer
        self.schedule = schedule
        self.clipping: tuple[float, str] | None = None
        self.phase: Phase | None = None
        self.course = Course()
        self.step_listeners: list[Callable[[LitModel, str], None]] = []
        self.latest_terms: Terms = {}
        self._turn: Turn | None = None
        self._progress = 0.0
        self._dealt = Dealt(0, 0)
        self._curves, self._evaluated = Means(), Means()

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

    def use_batches_of(self, size: int) -> None:
        """Before the training: batches of one process have so many images. For who replays in proportion."""

    def counted(self, batch: Batch) -> int | Tensor:
        """How many images of the batch its terms are means over."""
        return batch.size

    def abilities(self) -> nn.Module:
        """The module whose protocols (HasCodes, Classifies, ...) count: itself, or the one it wraps."""
        return self

    def memory_bytes(self) -> dict[str, int]:
        """What it keeps now of past tasks, beside the networks that learn: see `kept_by`."""
        return kept_by(self.children())

    # --- what the house does

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning and this class set plain attributes many times per batch. A Module looks through its
        # parameters, buffers and modules each time, which took 4 to 8 % of a small network's step.
        if name in self.__dict__ and not isinstance(value, Tensor | nn.Module):
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def enter(self, phase: Phase, course: Course) -> None:
        """Freezes everything but what the phase trains and sets train / evaluation mode of every module."""
        self.phase = phase
        for model in (part for part in self.modules() if isinstance(part, LitModel)):
            model.course = course  # also of the models inside
        self._curves = Means()
        self.automatic_optimization = not phase.is_manual
        self.zero_grad(set_to_none=True)
        self.requires_grad_(False).eval()
        for module in (*phase.trains, *phase.keeps_statistics):
            module.train()
        for parameter in trainable(self) if phase.with_grad else trainable(*phase.trains):
            parameter.requires_grad_(True)

    def configure_optimizers(self) -> tuple[list[Optimizer], list[dict[str, Any]]]:
        phase = self._entered()
        optimizers = [self._optimizer_of(turn) for turn in phase.turns]
        schedule = phase.schedule or self.schedule

        def factor(step: int) -> float:
            # The loaders, and so the length of the phase, are not known yet when step is 0.
            return schedule(self.course.part if step else 0.0)

        schedulers = [LambdaLR(optimizer, factor) for optimizer in optimizers if schedule is not None]
        return optimizers, [{"scheduler": s, "interval": "step"} for s in schedulers]

    def on_train_start(self) -> None:
        self.course.begin(images_of_epoch(self.trainer), epochs_done(self.trainer))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        phase = self._entered()
        start, stop = phase.span
        self._progress = start + (stop - start) * self.course.part
        number, every = batch_idx + 1, self.trainer.accumulate_grad_batches
        steps = number % every == 0 or number == self.trainer.num_training_batches
        self._dealt = dealt(self.trainer, batch.size, batch_idx)
        self.course.count(self._dealt.images, steps)
        if phase.prepare is not None:  # what it makes of the batch has a size of its own
            self._dealt = Dealt(batch.size, self._dealt.images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        phase, own = self._entered(), self._dealt.own
        if 1 < own < batch.size:  # a single image may as well stand there twice
            batch = batch.each(lambda part: part.map(lambda field: field[:own]))
        images = self.counted(batch)
        if phase.prepare is not None:
            with torch.no_grad():
                batch = phase.prepare(batch)
        if phase.is_manual:
            loss = None
            for part in _cut(batch, phase.chunk):
                self._note(self._take_turns(part), len(part[0]) if phase.chunk else images)
            for scheduler in _as_list(self.lr_schedulers()):
                scheduler.step()
        else:
            self._turn = phase.turns[0]
            terms = terms_from(self._turn.loss, self._turn.loss(batch, self._progress))
            self._note(terms, images)
            loss = self._weighted(terms["loss"])
        if batches_seen(self.trainer) % self.trainer.log_every_n_steps == 0:
            self._log_curves()
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self._turn.after_backward is not None:
            with torch.enable_grad():
                self._turn.after_backward()
        if self.clipping is not None:
            self.clip_gradients(optimizer, *self.clipping)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Lightning's, of phases that are not run by hand."""
        super().optimizer_step(*args, **kwargs)
        self._note_step()

    def on_train_epoch_end(self) -> None:
        self._log_curves()
        # For monitors (early stopping, best checkpoint) only: the loggers already have every window.
        self.log_shared(_named("train", self._curves.all()), logger=False)
        self._curves = Means()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if batch.size:  # a process without images of its own gets an empty batch
            terms = terms_from(self.evaluate, self.evaluate(batch), trains=False)
            self._evaluated.note(terms, self.counted(batch))

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    test_step = validation_step

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        """A phase that trains nothing: one pass over the task's images, for what it sums up in buffers."""
        phase = self._entered()
        if phase.prepare is not None:
            batch = phase.prepare(batch)
        with torch.set_grad_enabled(phase.with_grad):
            for turn in phase.turns:
                turn.loss(batch, 1.0)

    def log_shared(self, values: dict[str, float], **options: Any) -> None:
        """Logs what every process knows alike. Their largest is the same to the bit, where a mean would not
        be; without any reduction Lightning warns."""
        self.log_dict(values, sync_dist=True, reduce_fx="max", **options)

    @property
    def images_evaluated(self) -> int:
        """That the latest means over validation or test images are over."""
        return self._evaluated.images

    # --- turns

    def _take_turns(self, batch: Batch) -> Terms:
        phase, terms = self._entered(), {}
        for turn, optimizer in zip(phase.turns, _as_list(self.optimizers()), strict=True):
            if (self.course.batches_done - 1) % turn.every:
                continue
            with self.toggled_optimizer(optimizer):
                self._turn, found = turn, terms_from(turn.loss, turn.loss(batch, self._progress))
                optimizer.zero_grad()
                self.manual_backward(self._weighted(found["loss"]))
                optimizer.step()
                self._note_step()
            if len(phase.turns) > 1:
                found = _named(turn.name, found)
            terms |= found
        return terms

    def _note_step(self) -> None:
        if self._turn.after_step is not None:
            with torch.no_grad():
                self._turn.after_step()
        for listener in self.step_listeners:
            listener(self, self._turn.name)

    def _optimizer_of(self, turn: Turn) -> Optimizer:
        parameters, make = trainable(*turn.trains), turn.optimizer or self.make_optimizer
        optimizer = make(parameters)
        reads_gradients = self.clipping or self.trainer.gradient_clip_val or turn.after_backward
        scales = self.trainer.precision in ("16-mixed", "bf16-mixed")
        if reads_gradients and scales and optimizer.defaults.get("fused"):
            # A fused optimizer unscales by itself, after gradients were clipped or projected.
            return make(parameters, fused=False)
        return optimizer

    # --- progress and terms

    def _entered(self) -> Phase:
        if self.phase is None:
            raise RuntimeError(
                "no phase was entered; train with lit_gen.core.stages.fit_stages, not Trainer.fit"
            )
        return self.phase

    def _weighted(self, loss: Tensor) -> Tensor:
        """The loss as it counts in the mean over the processes and batches of a step."""
        return loss if self._dealt.weight == 1 else loss * self._dealt.weight

    def _note(self, terms: Terms, images: int | Tensor) -> None:
        """Keeps the terms as tensors; they are averaged and logged every `log_every_n_steps` batches."""
        self.latest_terms = {name: value.detach() for name, value in terms.items()}
        self._curves.note(self.latest_terms, images)

    def _log_curves(self) -> None:
        """Means since the last time go to the loggers at the number of batches seen so far."""
        means = _named("train", self._curves.latest(self.device))
        if means and self.trainer.is_global_zero:
            for logger in self.trainer.loggers:
                logger.log_metrics(means, step=batches_seen(self.trainer) - 1)

    def _log_evaluation(self, split: str) -> None:
        self.log_shared(_named(split, self._evaluated.latest(self.device)))


class Sampler(Protocol):
    """Draws in another way than the family's own, by settings that no weights depend on."""

    def check(self, model: LitGenerator) -> None:
        """Raises ValueError for a model from which it cannot draw."""

    def __call__(
        self, model: LitGenerator, n: int, *, label: Tensor | None = None, task: Tensor | None = None
    ) -> Tensor:
        """Images as `LitGenerator.sample` promises them; it has checked the conditions."""


class LitGenerator(LitModel):
    """A model that draws images.

    `conditions`, a subset of {"label", "task"}, says which conditions `sample` takes: an option of a
    family, set in its `__init__`.
    """

    conditions: frozenset[str] = frozenset()
    _sampler: Sampler | None = None

    @property
    def sampler(self) -> Sampler | None:
        """Draws in place of `generate`; None is the family's own way. Generators inside have it too.

        Setting raises ValueError where nothing draws by `generate`, or not as the sampler needs it.
        """
        return self._sampler

    @sampler.setter
    def sampler(self, sampler: Sampler | None) -> None:
        inside = [part for part in self.modules() if isinstance(part, LitGenerator)]
        takers = [part for part in inside if type(part).sample is LitGenerator.sample]
        if sampler is not None and not takers:
            raise ValueError(
                f"{type(self).__name__} draws images in a way of its own only; use sampler=default"
            )
        for part in takers:
            if sampler is not None:
                sampler.check(part)
        for part in inside:
            part._sampler = sampler

    @torch.no_grad()
    def sample(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        """n images, float32 [n, C, S, S] in [-1, 1], drawn from the global generator, without gradient.

        Args:
            label: int64 [n], for models with the condition "label".
            task: int64 [n], for models with the condition "task".

        Raises:
            ValueError: a condition was given that the model does not take, or one is missing.
        """
        self.refuse(label=label, task=task)
        if self.sampler is not None:
            return self.sampler(self, n, label=label, task=task)
        image = self.generate(n, label=label, task=task)
        return images_from(self.generate, image, (n, self.spec.channels, self.spec.size, self.spec.size))

    def generate(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        """What `sample` promises, in the family's own way."""
        raise NotImplementedError(f"{type(self).__name__} does not sample")

    def refuse(self, **conditions: Tensor | None) -> None:
        """Raises ValueError for a condition that this model does not take, or does not get."""
        for name, value in conditions.items():
            if (value is None) == (name in self.conditions):
                takes = ", ".join(sorted(self.conditions)) or "no condition"
                came = "got no" if value is None else "got"
                raise ValueError(
                    f"{type(self).__name__}.sample: {came} {name}=, but this model takes {takes}"
                )


def _cut(batch: Batch, chunk: int | None) -> list[Batch]:
    """The batch in minibatches of `chunk` images; whole when there is no chunk."""
    if chunk is None:
        return [batch]
    return [type(batch)(*parts) for parts in zip(*(field.split(chunk) for field in batch), strict=True)]


def _named(place: str, values: dict[str, Any]) -> dict[str, Any]:
    return {f"{place}/{name}": value for name, value in values.items()}


def _as_list(one_or_many: Any) -> list[Any]:
    """What Lightning hands out as None, one or a list."""
    return one_or_many if isinstance(one_or_many, list) else [one_or_many] if one_or_many else []
