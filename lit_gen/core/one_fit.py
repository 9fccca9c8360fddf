"""Lightning's callbacks that are made for one fit, in a run of many: begun anew at each stage, or refused."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch import callbacks as given
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_gen.core.progress import epochs_done
from lit_gen.core.types import InputError, Phase

_MONITOR = re.compile(r"conditioned on metric `([^`]+)`|ModelCheckpoint\(monitor='([^']+)'\)")
_ANEW = (given.EarlyStopping, given.ModelCheckpoint)
_FINDS = "trains and goes back in the middle of the run; set"
_AVERAGES = "has no average that phases, tests and resumes share; use callbacks=[default,ema]"
_REFUSED: dict[type[Callback], str] = {
    given.BaseFinetuning: "freezes what the phases of the model train; write phases that do so",
    given.BasePredictionWriter: "waits for predictions, which no run makes; use lit-gen sample",
    given.BatchSizeFinder: f"{_FINDS} data.batch_size",
    given.LearningRateFinder: f"{_FINDS} model.optimizer.lr",
    given.ModelPruning: "gives weights other names than phases, averages and checkpoints know; leave it out",
    given.OnExceptionCheckpoint: "writes what Lightning loads unasked into the next fit; use the run's own "
    "last.ckpt",
    given.SpikeDetection: "takes the loss of a new phase for a spike; use callbacks=[default,watch]",
    given.StochasticWeightAveraging: _AVERAGES,
    given.WeightAveraging: _AVERAGES,
    given.Timer: "stops inside an epoch and counts one stage; use trainer.max_time",
}
# In neither table, since they keep nothing from fit to fit or set it back themselves: DeviceStatsMonitor,
# LambdaCallback, LearningRateMonitor, ThroughputMonitor, summaries and progress bars.


class RunTimer(given.Timer):
    """The time of one start of a run, as a cluster counts it: over all stages, and anew after a resume.

    It is looked at after every epoch, since no run is resumed from inside of one.
    """

    def __init__(self, duration: Any) -> None:
        super().__init__(duration, interval="epoch")

    def on_train_start(self, *args: Any) -> None:
        if self.start_time() is None:
            super().on_train_start(*args)

    def on_train_end(self, *args: Any) -> None:
        """The clock goes on."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


@contextmanager
def known_monitors() -> Iterator[None]:
    """Turns what Lightning raises for a `monitor` that is no logged value into InputError."""
    try:
        yield
    except (RuntimeError, MisconfigurationException) as error:
        found = _MONITOR.search(str(error))
        if found is None:
            raise
        kind, name = ("EarlyStopping", found[1]) if found[1] else ("ModelCheckpoint", found[2])
        logged = re.findall(r"[\w/]+/[\w/]+", str(error)[found.end() :])
        known = ", ".join(each for each in logged if each != name) or "nothing yet"
        raise InputError(f"{kind}: monitor={name} is not logged when it looks; there is {known}") from error


class Anew:
    """Callbacks of Lightning that keep what they have seen, a best score or so, as they were made."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self._made = [(each, copy.deepcopy(vars(each))) for each in callbacks if isinstance(each, _ANEW)]

    def begin(self) -> None:
        """Before a stage that is not resumed: the score of another task or loss is none to compare with."""
        for callback, made in self._made:
            vars(callback).clear()
            vars(callback).update(copy.deepcopy(made))


def check_callbacks(callbacks: Iterable[Callback], phases: Sequence[Phase]) -> None:
    """Raises InputError that names a callback which cannot mean anything in a run of these phases."""
    for callback in callbacks:
        reasons = [why for kind, why in _REFUSED.items() if isinstance(callback, kind)]
        if isinstance(callback, given.GradientAccumulationScheduler) and (
            len(phases) > 1 or phases[0].is_manual
        ):
            reasons = ["counts the epochs of the run, not of a stage; use trainer.accumulate_grad_batches"]
        if reasons and not isinstance(callback, RunTimer):
            raise InputError(f"callbacks: {type(callback).__name__} {reasons[0]}.")


def is_out_of_time(trainer: Trainer) -> bool:
    """Whether the run's timer (`max_time`) has run out."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, RunTimer)]
    return any(timer.time_remaining() <= 0 for timer in timers)


def is_ended_early(trainer: Trainer) -> bool:
    """Whether a callback has ended the stage for good before its length is reached; the clock does not."""
    if epochs_done(trainer) < (trainer.min_epochs or 0) or trainer.global_step < (trainer.min_steps or 0):
        return False
    stoppers = [callback for callback in trainer.callbacks if isinstance(callback, given.EarlyStopping)]
    has_stopped = any(each.stopping_reason != EarlyStoppingReason.NOT_STOPPED for each in stoppers)
    return has_stopped or (trainer.should_stop and not is_out_of_time(trainer))
