"""A progress bar that says which task and phase is trained, and costs next to nothing per batch."""

from __future__ import annotations

import logging
import time
from typing import Any

import rich
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from lit_gen.tracking.pictures import num_images

log = logging.getLogger(__name__)


class StageProgress(ProgressBar):
    """One line per phase: task, phase, epoch, batches, the latest terms, images per second.

    On a terminal the line is refreshed a few times a second; elsewhere a log line is written now and then and
    when a phase ends.

    Args:
        refresh_seconds: time between two refreshes on a terminal.
        log_seconds: time between two log lines elsewhere.
        console: None is Rich's global one.
    """

    def __init__(
        self, refresh_seconds: float = 0.25, log_seconds: float = 30.0, console: Console | None = None
    ) -> None:
        super().__init__()
        self.refresh_seconds, self.log_seconds = refresh_seconds, log_seconds
        self._console = console
        self._is_enabled = True
        self._bar: Progress | None = None
        self._line: TaskID | None = None
        self._next = 0.0
        self._images, self._seconds, self._since = 0, 0.0, 0.0
        self._scored = 0

    def enable(self) -> None:
        self._is_enabled = True

    def disable(self) -> None:
        self._is_enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._images, self._seconds, self._since = 0, 0.0, time.monotonic()
        self._open(trainer.num_training_batches)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._images += num_images(batch)
        now = time.monotonic()
        if now >= self._next and self._is_enabled:
            self._show_training(trainer, pl_module, batch_idx + 1, now)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._seconds += time.monotonic() - self._since
            self._show(f"{place(trainer, pl_module)}  validating")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._show_training(trainer, pl_module, trainer.num_training_batches, time.monotonic())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_enabled and self._bar is None:
            log.info(self._training_line(trainer, pl_module, time.monotonic()))
        self._close()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._scored, self._since = 0, time.monotonic()
        batches = trainer.num_test_batches
        self._open(sum(batches) if isinstance(batches, list) else batches)
        self._show(f"{place(trainer)}  scoring", now=True)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._scored += 1
        self._show(f"{place(trainer)}  scoring", self._scored)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(f"{place(trainer)}  scoring: drawing and comparing images", self._scored, now=True)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        text = f"{place(trainer)}  scored in {time.monotonic() - self._since:.1f} s"
        if self._is_enabled and self._bar is None:
            log.info(text)
        self._show(text, self._scored, now=True)
        self._close()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_enabled:
            log.info("%s  one pass over the task's images", place(trainer, pl_module))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    def _open(self, total: float) -> None:
        self._close()
        self._next = time.monotonic()
        console = self._console or rich.get_console()
        if not self._is_enabled:
            return
        if not console.is_terminal:
            self._next += self.log_seconds
            return
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
        self._line = self._bar.add_task("", total=None if total == float("inf") else total, terms="")
        self._bar.start()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._line = None

    def _show(self, text: str, done: int | None = None, terms: str = "", now: bool = False) -> None:
        if self._bar is None or not (now or time.monotonic() >= self._next):
            return
        self._next = time.monotonic() + self.refresh_seconds
        self._bar.update(self._line, description=text, completed=done, terms=terms, refresh=True)

    def _show_training(self, trainer: Trainer, module: LightningModule, done: float, now: float) -> None:
        if self._bar is None:
            self._next = now + self.log_seconds
            log.info(self._training_line(trainer, module, now))
            return
        text = f"{place(trainer, module)}  epoch {epoch_of(trainer)}"
        self._show(text, int(done), f"{self._speed(trainer, now)}  {terms_of(module)}", now=True)

    def _training_line(self, trainer: Trainer, module: LightningModule, now: float) -> str:
        return (
            f"{place(trainer, module)}  epoch {epoch_of(trainer)}  {self._speed(trainer, now)}  "
            f"{terms_of(module)}"
        )

    def _speed(self, trainer: Trainer, now: float) -> str:
        seconds = self._seconds + now - self._since
        rate = self._images * trainer.world_size / seconds if seconds > 0 else 0.0
        return f"{rate:,.0f} images/s"


def place(trainer: Trainer, module: LightningModule | None = None) -> str:
    """ "task 2/5 main": the current task and, given the module, its phase."""
    data = trainer.datamodule
    tasks = getattr(data, "tasks", None)
    words = []
    if tasks and len(tasks) > 1:
        joint = len(data.stages) == 1
        words.append("all tasks" if joint else f"task {data.current_task + 1}/{len(tasks)}")
    phase = getattr(module, "phase", None)
    if phase is not None:
        words.append(phase.name)
    return " ".join(words) or ("training" if module is not None else "model")


def epoch_of(trainer: Trainer) -> str:
    """Epochs of the whole run, the current one included, out of those at the end of this phase."""
    done = min(trainer.current_epoch + 1, trainer.max_epochs) if trainer.max_epochs else trainer.current_epoch
    return str(done) if trainer.max_epochs in (None, -1) else f"{done}/{trainer.max_epochs}"


def terms_of(module: LightningModule) -> str:
    """The latest terms, such as "loss 12.3  kl 4.5"."""
    terms = getattr(module, "latest_terms", {})
    return "  ".join(f"{name} {float(value):.4g}" for name, value in terms.items())
