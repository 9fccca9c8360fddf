"""A progress bar that says which task and phase is trained, and costs next to nothing per batch."""

from __future__ import annotations

import logging
import time
from typing import Annotated, Any

import rich
from annotated_types import Ge
from lightning import Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lit_gen.core.module import LitModel

log = logging.getLogger(__name__)


class StageProgress(ProgressBar):
    """One line per phase: task, phase, epoch, batches, images per second, the latest terms.

    On a terminal the line is refreshed a few times a second; elsewhere a log line is written now and then and
    when a phase ends.

    Args:
        refresh_seconds: time between two refreshes on a terminal.
        log_seconds: time between two log lines elsewhere.
        console: None is Rich's global one.
    """

    def __init__(
        self,
        refresh_seconds: Annotated[float, Ge(0)] = 0.25,
        log_seconds: Annotated[float, Ge(0)] = 30.0,
        console: Console | None = None,
    ) -> None:
        super().__init__()
        self.refresh_seconds, self.log_seconds = refresh_seconds, log_seconds
        self._console = console
        self._is_enabled = True
        self._bar: Progress | None = None  # None: log lines
        self._next = 0.0  # when something is said again
        self._images, self._seconds, self._since = 0, 0.0, 0.0
        self._width = 0  # of the longest place so far

    def enable(self) -> None:
        self._is_enabled = True

    def disable(self) -> None:
        self._is_enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LitModel) -> None:
        self._images, self._seconds, self._since = 0, 0.0, time.monotonic()
        self._width = max(self._width, len(place(trainer, pl_module)))
        self._open(trainer.num_training_batches)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LitModel, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._images += batch.size
        if time.monotonic() >= self._next:
            self._say_training(trainer, pl_module, batch_idx + 1)

    def on_validation_start(self, trainer: Trainer, pl_module: LitModel) -> None:
        if trainer.state.fn == "fit":
            self._seconds += time.monotonic() - self._since
            if self._bar is not None:
                self._say(f"{place(trainer, pl_module)}  validating")

    def on_validation_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        self._since = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        if self._bar is not None:
            self._say_training(trainer, pl_module, trainer.num_training_batches)

    def on_train_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        if self._bar is None:
            self._say_training(trainer, pl_module)
        self._close()

    def on_test_start(self, trainer: Trainer, pl_module: LitModel) -> None:
        self._since = time.monotonic()
        self._open(sum(trainer.num_test_batches))
        if self._bar is not None:
            self._say(f"{place(trainer)}  scoring")

    def on_test_batch_end(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0])
            if time.monotonic() >= self._next:
                self._say()

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        if self._bar is not None:
            self._say(f"{place(trainer)}  scoring: drawing and comparing images")

    def on_test_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        self._say(f"{place(trainer)}  tested in {time.monotonic() - self._since:.1f} s")
        self._close()

    def on_predict_start(self, trainer: Trainer, pl_module: LitModel) -> None:
        self._say(f"{place(trainer, pl_module)}  one pass over the task's images")

    def on_exception(self, trainer: Trainer, pl_module: LitModel, exception: BaseException) -> None:
        self._close()

    def _open(self, total: float) -> None:
        self._close()
        console = self._console or rich.get_console()
        self._next = time.monotonic() + (0 if console.is_terminal else self.log_seconds)
        if self._is_enabled and console.is_terminal:
            # Refreshed by hand: Rich's own thread would redraw ten times a second while the model trains.
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[terms]}"),
                console=console,
                auto_refresh=False,
            )
            self._bar.add_task("", total=None if total == float("inf") else total, terms="")
            self._bar.start()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _say_training(self, trainer: Trainer, module: LitModel, done: float | None = None) -> None:
        """`done`: batches of the epoch."""
        seconds = self._seconds + time.monotonic() - self._since
        rate = self._images * trainer.world_size / seconds if seconds > 0 else 0.0
        terms = (f"{name} {float(value):<8.4g}" for name, value in module.latest_terms.items())
        text = f"{place(trainer, module):<{self._width}}  {reached(trainer, module)}"
        self._say(text, done, "  ".join((f"{rate:>7,.0f} images/s", *terms)))

    def _say(self, text: str | None = None, done: float | None = None, terms: str = "") -> None:
        """On the bar, where None leaves the text or the number as it is, or else as a log line."""
        if self._bar is not None:
            self._next = time.monotonic() + self.refresh_seconds
            line = self._bar.task_ids[0]
            self._bar.update(line, description=text, completed=done, terms=terms, refresh=True)
        elif self._is_enabled:
            self._next = time.monotonic() + self.log_seconds
            log.info("%s", f"{text}  {terms}".rstrip())


class SessionProgress(TQDMProgressBar):
    """Lightning's own bar, which notebooks draw well, with task, phase and terms beside it."""

    def get_metrics(self, trainer: Trainer, pl_module: LitModel) -> dict[str, int | str | float]:
        return {"at": place(trainer, pl_module)} | {
            name: f"{float(value):.4g}" for name, value in pl_module.latest_terms.items()
        }


def place(trainer: Trainer, module: LitModel | None = None) -> str:
    """ "task 1 of 5 main": the current task and, given the module, its phase."""
    data = trainer.datamodule
    tasks = getattr(data, "tasks", ())
    words = [module.phase.name] if module is not None and module.phase is not None else []
    if len(tasks) > 1:
        joint = len(data.stages) == 1
        words.insert(0, "all tasks" if joint else f"task {data.current_task} of {len(tasks)}")
    return " ".join(words) or ("training" if module is not None else "model")


def reached(trainer: Trainer, module: LitModel) -> str:
    """ "epoch 3/10", of those of the run when this phase ends, or "step 700/1,000" of a phase in steps."""
    course = module.course
    if course.steps:
        return f"step {course.steps_done:,}/{course.steps:,}"
    if course.images:
        return f"image {course.images_done:,}/{course.images:,}"
    now, most = trainer.current_epoch + 1, trainer.max_epochs
    return f"epoch {now}" if most in (None, -1) else f"epoch {min(now, most):>{len(str(most))}}/{most}"
