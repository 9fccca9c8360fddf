"""A run in small, to tell what the whole one takes.

Every phase of every task is begun, timed for a moment and ended. Of the images that are scored only some are
drawn; what is computed from them is computed in full.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers.logger import Logger
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from callbacks.scoring import Scoring
from callbacks.task_switch import TaskSwitch
from lit_gen.core.module import LitModel
from lit_gen.core.progress import Course
from lit_gen.core.types import Task
from lit_gen.evaluation.board import FLOOR, LOCAL, Row
from lit_gen.tracking.names import shown_name

_FEWEST = 2  # batches of a phase that are trained, where it has as many
_SLOW = ("sample", "sample_local", "log_likelihood")  # what judges ask of a model, image by image
_PASS = 20  # batches of a phase that trains nothing


class Epoch(NamedTuple):
    """Of an epoch, or the beginning of one: batches, and seconds without validation."""

    batches: int
    head: float  # until the first batch is done
    inside: float  # from there until the last one is
    tail: float  # from there until everything is done that belongs to an epoch


@dataclass
class TriedPhase:
    """What was seen of one phase of one task.

    Attributes:
        course: the limits of the whole phase.
        before: seconds from the end of what was before until its first epoch, or the whole of a short pass.
        epochs: the last one was probably cut.
        marks: batches of the first epoch, and seconds since it began.
        batches: of a whole epoch; of the pass, for a phase that trains nothing.
        images: in these batches, of all processes together, one number each.
        steps: batches after which the optimizers step, of a whole epoch.
        validated: seconds of each validation.
        per_window, per_validation: values that are logged each time.
        may_end_early: a callback may end it before its length is reached.
    """

    stage: int
    task: str
    name: str
    course: Course
    before: float = 0.0
    epochs: list[Epoch] = field(default_factory=list)
    marks: list[tuple[int, float]] = field(default_factory=list)
    batches: int = 0
    images: list[int] = field(default_factory=list)
    steps: int = 0
    validated: list[float] = field(default_factory=list)
    validation_every: int = 0  # batches; 0: never
    per_window: int = 0
    per_validation: int = 0
    trains: bool = True
    may_end_early: bool = False


@dataclass
class TriedScores:
    """What was seen of the scores after one stage: seconds, values logged, bytes of pictures."""

    seconds: float
    points: int
    num_bytes: int
    checkpoint_seconds: float = 0.0
    parts: dict[str, tuple[float, int]] = field(default_factory=dict)  # seconds, values; by judge


class Points(Logger):
    """Counts the values that a tracker would be sent, and keeps none of them."""

    name, version = "points", ""

    def __init__(self) -> None:
        super().__init__()
        self.by_name: dict[str, int] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        for name in metrics:
            if shown_name(name, None) is not None:
                self.by_name[name] = self.by_name.get(name, 0) + 1

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """No values."""

    def taken(self) -> dict[str, int]:
        """What has come since the last time."""
        taken, self.by_name = self.by_name, {}
        return taken


class StandIn:
    """Does the work until some seconds are spent, then gives again what it has given; `owed` seconds remain.

    Args:
        work: of n images, of a tensor of images or of a batch.
    """

    def __init__(self, work: Callable[..., Any], seconds: float, wait: Callable[[], None]) -> None:
        self.work, self.seconds, self.wait = work, seconds, wait
        self.spent = self.owed = 0.0
        self._images, self._given, self._size = 0, None, 0

    def __call__(self, asked: Any, *args: Any, **options: Any) -> Any:
        count = asked if isinstance(asked, int) else getattr(asked, "size", None)
        count = count if isinstance(count, int) else len(asked)
        if self._images == 0 or count == 0 or self.spent < self.seconds:
            start = time.perf_counter()
            given = self.work(asked, *args, **options)
            self.wait()
            self.spent, self._images = self.spent + time.perf_counter() - start, self._images + count
            if count > self._size:
                self._given, self._size = given, count
            return given
        self.owed += count * self.spent / self._images
        places = torch.arange(count) % self._size
        return apply_to_collection(self._given, Tensor, lambda part: part[places.to(part.device)])


class Trial(Callback):
    """Ends every phase after a share of the seconds for its kind, and keeps what was seen.

    Stands before the checkpoints among the Trainer's callbacks, so that an epoch's time is without them.

    Args:
        shares: seconds for a phase, by its name.
        points: a logger of the Trainer.
        scores_share: seconds for each thing that is slow in scoring.
    """

    def __init__(self, shares: dict[str, float], scores_share: float, points: Points) -> None:
        self.shares, self.scores_share, self.points = shares, scores_share, points
        self.phases: list[TriedPhase] = []
        self.scores: dict[int, TriedScores] = {}
        self.looks: dict[str, int] = {}  # what is done in training too, and every how many epochs
        self.most: dict[str, dict[str, int]] = {}  # images of each task that judges look at, by split
        self._watched: list[tuple[str, Any, str]] = []
        self._validation = self._since = 0.0
        self.validates_every: int | None = None  # epochs
        self._mark = time.perf_counter()  # what is before belongs to something else
        self._begun, self._batches = 0.0, 0  # of the phase
        self._epoch: list[float] = []  # its beginning, the end of its first batch, of its latest
        self._in_epoch = 0
        self._wait: Callable[[], None] = lambda: None

    def begin(self, trainer: Trainer) -> None:
        """Takes over what in training comes every few epochs: a trial sees too few of them."""
        if trainer.strategy.root_device.type == "cuda":
            self._wait = torch.cuda.synchronize
        for callback in trainer.callbacks:
            if isinstance(callback, Scoring):
                self._watched += [(f"judges.{n}", judge, "rows") for n, judge in callback.judges.items()]
            elif hasattr(callback, "every_n_epochs") and hasattr(callback, "draw"):
                self._watched.append((type(callback).__name__, callback, "draw"))
        for name, thing, _ in self._watched:
            self.looks[name], thing.every_n_epochs = thing.every_n_epochs, 0
            self.most[name] = getattr(thing, "num_samples", {})
        trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = None
        trainer.limit_predict_batches = _PASS
        self.validates_every = trainer.check_val_every_n_epoch
        if self.validates_every is not None:
            trainer.check_val_every_n_epoch = 1
        self._mark = time.perf_counter()

    # --- phases

    def setup(self, trainer: Trainer, pl_module: LitModel, stage: str) -> None:
        if stage in ("fit", "predict"):
            switch = next(each for each in trainer.callbacks if isinstance(each, TaskSwitch))
            task, phase = switch.current
            self.phases.append(TriedPhase(switch.stage, task.name, phase.name, switch.course))
            self._batches = 0
            self.points.taken()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LitModel) -> None:
        phase = self.phases[-1]
        if not phase.batches:
            phase.before = self._now() - self._mark
            phase.batches = int(trainer.num_training_batches)
            places = islice(iter(trainer.train_dataloader.sampler), phase.batches)
            phase.images = [len(each) * trainer.world_size for each in places]
            phase.steps = -(-phase.batches // trainer.accumulate_grad_batches)
            phase.validation_every = int(trainer.val_check_batch) if trainer.enable_validation else 0
            phase.may_end_early = any(isinstance(each, EarlyStopping) for each in trainer.callbacks)
            self._mark = self._begun = self._now()
        self._epoch, self._in_epoch = [self._mark] * 3, 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LitModel, *_: Any) -> None:
        self._batches += 1
        self._in_epoch += 1
        number, phase = self._batches, self.phases[-1]
        if number & (number - 1) == 0:
            # At powers of two, so that processes seldom ask each other, and a GPU is seldom waited for.
            self._wait()
            seconds = self._now() - self._begun
            if not phase.epochs:
                phase.marks.append((number, seconds))
            is_enough = number >= _FEWEST and seconds >= self.shares[phase.name] / 2
            if trainer.strategy.broadcast(is_enough, src=0):
                trainer.should_stop = True
        self._epoch[2] = self._now()
        if self._in_epoch == 1:
            self._epoch[1] = self._epoch[2]

    def on_validation_start(self, trainer: Trainer, pl_module: LitModel) -> None:
        self._since = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        self._wait()
        seconds = time.perf_counter() - self._since
        self._validation += seconds
        self.phases[-1].validated.append(seconds)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        self._wait()
        (begun, first, last), self._mark = self._epoch, self._now()
        epoch = Epoch(self._in_epoch, first - begun, last - first, self._mark - last)
        self.phases[-1].epochs.append(epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        phase, logged = self.phases[-1], self.points.taken()
        phase.per_window = sum(not name.startswith("val/") for name in logged)
        phase.per_validation = sum(name.startswith("val/") for name in logged)

    def on_predict_start(self, trainer: Trainer, pl_module: LitModel) -> None:
        phase, loader = self.phases[-1], trainer.datamodule.predict_dataloader()
        phase.trains, phase.batches = False, len(loader)
        phase.images = [len(each) * trainer.world_size for each in loader.sampler]
        phase.before = self._now() - self._mark
        self._epoch = [self._now()] * 3

    def on_predict_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._batches += 1
        self._epoch[2] = self._now()
        if self._batches == 1:
            self._epoch[1] = self._epoch[2]

    def on_predict_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        self._wait()
        begun, first, last = *self._epoch[:2], self._now()
        self.phases[-1].epochs.append(Epoch(self._batches, first - begun, last - first, 0.0))
        self._mark = self._now()

    def _now(self) -> float:
        """A clock that stands still while the model is validated."""
        return time.perf_counter() - self._validation

    # --- scores

    def score(self, trainer: Trainer, module: LitModel, task: Task, save: Callable[[], None]) -> None:
        """Scores after a task as a run does, with images that stand for others once its time is over.

        Args:
            save: writes the checkpoint of the task.
        """
        data, start = trainer.datamodule, self._mark + self._validation  # with the end of the last phase
        stage, folder = data.stages.index(task), Path(trainer.default_root_dir)
        before = _bytes_of_pictures(folder)
        with self._stand_ins(module) as stand_ins, self._timed(stand_ins) as parts:
            trainer.test(module, datamodule=data, verbose=False)
        self._wait()
        found = TriedScores(
            time.perf_counter() - start + sum(each.owed for each in stand_ins),
            sum(self.points.taken().values()),
            _bytes_of_pictures(folder) - before,
            parts=parts,
        )
        start = time.perf_counter()
        save()
        found.checkpoint_seconds = time.perf_counter() - start
        self.scores[stage] = found
        self._mark = self._now()

    @contextmanager
    def _stand_ins(self, module: LitModel) -> Iterator[list[StandIn]]:
        """Inside, what is drawn, and what extractors see in it, is that of a few images.

        Not outside of scores: a phase may keep a copy of the module.
        """
        places = [(owner, name) for owner in dict.fromkeys((module, module.abilities())) for name in _SLOW]
        judges = [thing for name, thing, _ in self._watched if name.startswith("judges.")]
        places += [(e, "forward") for e in dict.fromkeys(getattr(j, "extractor", None) for j in judges) if e]
        stand_ins = []
        for owner, name in places:
            if callable(work := getattr(owner, name, None)):
                stand_ins.append(StandIn(work, self.scores_share, self._wait))
                object.__setattr__(owner, name, stand_ins[-1])
        try:
            yield stand_ins
        finally:
            for owner, name in places:
                vars(owner).pop(name, None)

    @contextmanager
    def _timed(self, stand_ins: list[StandIn]) -> Iterator[dict[str, tuple[float, int]]]:
        """Inside, seconds and values of each judge, and of what draws, are put into what is handed out."""
        parts: dict[str, tuple[float, int]] = {}

        def watch(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
            def timed(*args: Any, **options: Any) -> Any:
                owed, start = sum(each.owed for each in stand_ins), time.perf_counter()
                answer = work(*args, **options)
                self._wait()
                owed = sum(each.owed for each in stand_ins) - owed
                parts[name] = (time.perf_counter() - start + owed, sum(map(_is_sent, answer or ())))
                return answer

            return timed

        for name, thing, method in self._watched:
            setattr(thing, method, watch(name, getattr(thing, method)))
        try:
            yield parts
        finally:
            for _, thing, method in self._watched:
                vars(thing).pop(method, None)


def _is_sent(row: Any) -> bool:
    """Whether a tracker is told of it in validation, if it is a score."""
    return isinstance(row, Row) and row.on_task is None and not row.metric.startswith((FLOOR, LOCAL))


def _bytes_of_pictures(folder: Path) -> int:
    """Of everything that scores leave in a run's folder."""
    left_out = ("checkpoints", "split")
    found = (file for file in folder.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in found if not set(left_out) & set(file.parts))
