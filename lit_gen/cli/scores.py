"""The scores of checkpoints: of one; or of a run's tasks, into its files and MLflow, also while it trains."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, NamedTuple

from lightning import Trainer, seed_everything

from callbacks.task_switch import TaskSwitch
from lit_gen.cli.allowed import locate
from lit_gen.cli.assembly import scoring_of
from lit_gen.cli.building import build
from lit_gen.cli.config import Composed
from lit_gen.cli.launchers import patience, settle
from lit_gen.cli.lock import RunLock
from lit_gen.cli.log import log_to, run_logger
from lit_gen.cli.open_run import open_run, rebuild, refuse_unused
from lit_gen.cli.run_folder import CONFIG, SUMMARY, RunFolder, rank
from lit_gen.cli.stop import told_to_stop
from lit_gen.cli.words import key_of
from lit_gen.core.checkpoint import read, task_checkpoints
from lit_gen.core.files import write_json
from lit_gen.core.module import LitModel
from lit_gen.core.progress import take_over
from lit_gen.core.types import InputError
from lit_gen.evaluation.board import Row
from lit_gen.evaluation.scores_file import read_board
from lit_gen.tracking.metrics_file import LateMetrics, read_metrics
from lit_gen.tracking.mlflow import STOP_PATIENCE, TrackingLogger
from lit_gen.tracking.replay import clock_of

TOP = ("seed", "mode_collapse")
"""Keys of the configuration that scores go by, beside its groups."""
_USED = ("data", "extractor", "judges", "sampler", "trainer", "callbacks.ema.use", *TOP)
_ONLY_IN_TRAINING = (
    *("judges.*.every_n_epochs", "judges.quality.num_val_samples", "mode_collapse.recall"),
    *("mode_collapse.precision", "trainer.m[ai][xn]_*", "trainer.*val_*", "trainer.limit_train_batches"),
    *("trainer.gradient_clip_*", "trainer.accumulate_grad_batches", "trainer.log_every_n_steps"),
    *("trainer.overfit_batches", "trainer.detect_anomaly", "data.flip"),
)
_LOCK = ".scores.lock"
"""Held by whoever scores a run; `follow` leaves the run's own lock to its training."""
_LOOK_SECONDS = 2.0


class Tasks(NamedTuple):
    """Which checkpoints of a run are scored."""

    run: Path
    which: str  # "all", "last", "task-2", "task-0,task-2"
    follow: bool


def at_tasks(ckpt: str, follow: bool) -> Tasks | None:
    """What RUN@all and the like say; None for the path of a folder or a checkpoint, RUN@best among them.

    Raises:
        InputError: it says something else, of no folder, or `follow` goes with another one than @all.
    """
    run, sign, which = ckpt.rpartition("@")
    tasks = None
    if sign and not Path(ckpt).exists():
        if not Path(run).is_dir() and not (follow and run and not Path(run).exists()):
            what = "is a file" if Path(run).exists() else "does not exist"
            raise InputError(f"ckpt={ckpt}: {run or 'what stands before @'} {what}; @ goes with a run folder")
        if not re.fullmatch(r"all|last|best|task-\d+(,task-\d+)*", which):
            raise InputError(
                f"ckpt={ckpt}: @{which} is none of @all, @last, @best, @task-2 and @task-0,task-2"
            )
        tasks = Tasks(Path(run).absolute(), which, follow) if which != "best" else None
    if follow and (tasks is None or which != "all"):
        raise InputError("follow=true waits for all checkpoints of a run: ckpt=RUN@all follow=true")
    return tasks


def evaluate_checkpoint(path: str, overrides: Sequence[str]) -> list[Row]:
    """The scores that training would have given after the task that the checkpoint is at.

    Raises:
        InputError: the checkpoint or an override cannot be used, or its configuration has no judges.
    """
    tester = _Tester(path, overrides, writes=False)
    return tester.rows(tester.opened.context.model)


def evaluate_run(run: Path, which: str, follow: bool, overrides: Sequence[str], out: Path | None) -> int:
    """Scores checkpoints of a run as its training would have; its files and its run in MLflow get the rows.

    Args:
        out: a JSON file for the rows.

    Returns:
        1 where a run that is followed did not reach its end, else 0.

    Raises:
        InputError: see `evaluate_checkpoint`; or there is no such checkpoint, or another process works on the
            run or scores it.
    """
    folder, lock = RunFolder(run), RunLock(run, _LOCK)
    files = _awaited(folder) if follow else _named(run, which)
    scored, rows = None, []
    with told_to_stop() as stop, ExitStack() as at_the_end:
        at_the_end.callback(folder.lock.release), at_the_end.callback(lock.release)
        if rank() == 0 and not follow:
            folder.lock.take()
        try:
            for file in files:
                if scored is None:
                    if rank() == 0:
                        lock.take()
                    scored = at_the_end.enter_context(_ScoredRun(folder, overrides))
                rows += scored.score(file)
        except (KeyboardInterrupt, SystemExit):  # Lightning turns Ctrl-C into SystemExit
            done = dict.fromkeys(row["checkpoint"] for row in rows)
            _say(f"stopped; scored so far: {', '.join(done) or 'nothing'}")
            raise SystemExit(stop.exit_code) from None
    if out is not None and rank() == 0:
        write_json(out, rows)
    if scored is not None:
        _say(f"\n{scored.scoring.board.table()}\n\nRun folder: {run}")
        if scored.tracker is not None and not scored.tracker.is_behind:
            _say(f"Look at it: {scored.tracker.view_command()}")
    if follow and not folder.is_finished:
        status = folder.read_summary().get("status", "KILLED").lower()
        _say(f"{run}: the run was {status} before its end; go on with it: lit-gen train resume={run}")
        return 1
    return 0


class _Tester:
    """A Trainer with the judges of a run, for the models of its checkpoints.

    Args:
        path: of one of them, or of their run.
        settings: of `Scoring`.
    """

    def __init__(self, path: str | Path, words: Sequence[str], **settings: Any) -> None:
        log_to(None, logging.WARNING if rank() == 0 else None)
        refuse_unused(words, _USED, "lit-gen evaluate ckpt=...", _ONLY_IN_TRAINING)
        self.words, self.opened = words, open_run(str(path), words)
        config, self.data = self.opened.composed.config, self.opened.context.data
        seed_everything(config["seed"], workers=True, verbose=False)
        self.scoring, self.seed = scoring_of(self.opened.composed, **settings), config["seed"]
        if not self.scoring.judges:
            raise InputError(
                f"ckpt={path}: it was trained without judges; add judges=quality, or judges=terms"
            )
        self.scoring.check(self.opened.context.model, self.data)
        _refuse_unasked(words, config["judges"])
        settle(config["trainer"])
        self.trainer: Trainer = build(
            config["trainer"] | {"max_time": None, "enable_progress_bar": False},
            "trainer",
            callbacks=[TaskSwitch(self.seed), self.scoring],
            logger=False,
            enable_checkpointing=False,
            default_root_dir=str(self.opened.folder),
        )

    def rows(self, module: LitModel) -> list[Row]:
        """What the model says of itself and what judges say, at the task that the data are at."""
        with patience(self.trainer.strategy):
            logged = self.trainer.test(module, datamodule=self.data, verbose=False)
        if not logged:
            raise InputError("trainer.limit_test_batches=0: nothing is tested; leave it out")
        judged = {row.metric for row in self.scoring.rows}
        terms = {
            name.removeprefix("test/"): value for name, value in logged[0].items() if name.count("/") == 1
        }
        count = module.images_evaluated
        own = [Row(None, name, v, "", "", "test", count, 0, self.seed) for name, v in terms.items()]
        return [*(row for row in own if row.metric not in judged), *self.scoring.rows]


class _ScoredRun(_Tester):
    """A run whose checkpoints are scored into its folder and MLflow. What it holds until the end is whole and
    written when it is left, however that comes.
    """

    def __init__(self, folder: RunFolder, words: Sequence[str]) -> None:
        # By its newest checkpoint: its stream may have become longer than that of the first task's.
        super().__init__(folder.path, words)
        self.folder, self.metrics = folder, LateMetrics(folder.path)
        read_metrics(self.metrics.path)  # a damaged one is refused now, and not when all is scored
        self.metrics.epoch = lambda: self.trainer.current_epoch
        self.tracker = _tracker(self.opened.composed, folder.path) if rank() == 0 else None
        self.scoring.loggers = [self.metrics, *([self.tracker] if self.tracker else [])]
        self.scoring.board = read_board(folder.path)
        self.scoring.board.num_tasks = len(self.data.tasks)

    def __enter__(self) -> _ScoredRun:
        return self

    def score(self, file: Path) -> list[dict[str, Any]]:
        """The rows of a checkpoint, with the task and the file that they are of."""
        began, stored = perf_counter(), read(file)
        self.folder.refuse_foreign(stored)
        rebuilt = rebuild(stored, self.words)
        self.data.current_task = rebuilt.current_task
        take_over(self.trainer, stored.state)  # scores are logged at the step that the training was at
        rows = self.rows(rebuilt.module)
        if rank() == 0 and not self.trainer.fast_dev_run:
            self._summarise()
            if self.tracker is not None:
                self.tracker.log_file(self.folder.path / "scores.csv")
        _say(f"{file.name}: {len(self.scoring.rows)} scores, {perf_counter() - began:.1f} s")
        return [
            {"checkpoint": file.name, "after_task": self.data.current_task} | row._asdict() for row in rows
        ]

    def __exit__(self, *_: object) -> None:
        if rank() > 0:
            return
        run = self.folder.lock
        if not run.is_ours and not run.is_alive():  # the run that was followed is over
            with suppress(InputError):  # or has just been resumed
                run.take()
        if run.is_ours:
            self.metrics.add()
            self._summarise()
        if self.tracker is not None:
            self._end_tracking(is_over=run.is_ours)

    def _end_tracking(self, is_over: bool) -> None:
        """Leaves the run in MLflow as it was found: with its own end, or going on."""
        if is_over:
            summary = self.folder.path / SUMMARY
            if summary.is_file():
                self.tracker.log_file(summary)
            status = self.folder.read_summary().get("status", "KILLED")
            self.tracker.finish(status, ended=clock_of(self.folder.path).ended)
        else:
            self.tracker.finalize("")
            self.tracker.courier.wait(STOP_PATIENCE)

    def _summarise(self) -> None:
        """Brings the scores into summary.json, where nobody else writes it. Its time stays as it was: that is
        when the run ended.
        """
        file, summary = self.folder.path / SUMMARY, self.folder.read_summary()
        if summary.get("status") == "FINISHED" or (summary and self.folder.lock.is_ours):
            ended = file.stat().st_mtime_ns
            scores = {name: numbers._asdict() for name, numbers in self.scoring.board.summary().items()}
            write_json(file, summary | {"scores": scores})
            os.utime(file, ns=(ended, ended))


def _named(run: Path, which: str) -> list[Path]:
    there = task_checkpoints(run)
    names = {f"task-{task}": file for task, file in there.items()}
    if not names:
        raise InputError(
            f"ckpt={run}@{which}: {run / 'checkpoints'} holds no task-<k>.ckpt, as a run keeps after every "
            "task; @all follow=true waits for them"
        )
    asked = {"all": [*names], "last": [*names][-1:]}.get(which, which.split(","))
    if missing := [name for name in asked if name not in names]:
        there_are = ", ".join(f"@{name}" for name in names)
        raise InputError(f"ckpt={run}@{which}: there is no {missing[0]}.ckpt; there are {there_are}")
    return [file for name, file in names.items() if name in asked]


def _awaited(folder: RunFolder) -> Iterator[Path]:
    """The checkpoints of tasks as they come, until the run is over. One that is written anew comes again.

    Every process looks by itself, so that none waits in a collective call for hours.
    """
    seen: dict[Path, tuple[int, int]] = {}
    said, is_known = "", False
    while True:
        has_begun = (folder.path / CONFIG).is_file()
        is_over = has_begun and not folder.lock.is_alive()  # asked first: what it wrote before is there
        if has_begun and not is_over and not is_known:
            is_known = folder.read_config().get("scores") == "later"
            if not is_known:
                raise InputError(
                    f"{folder.path}: this run scores itself as it trains; wait for its end, or train it with "
                    "scores=later"
                )
        known = {file: _version(file) for file in task_checkpoints(folder.path).values()}
        due = next((file for file in known if seen.get(file) != known[file]), None)
        if due is not None:
            seen[due] = known[due]
            yield due
        elif is_over:
            return
        else:
            next_one = "the next task" if has_begun else "a run to begin"
            what = f"{len(seen)} scored, waiting for {next_one}"
            if what != said:
                _say(f"{folder.path}: {what}")
            said = what
            sleep(_LOOK_SECONDS)


def _version(file: Path) -> tuple[int, int]:
    return file.stat().st_ino, file.stat().st_mtime_ns


def _tracker(composed: Composed, folder: Path) -> TrackingLogger | None:
    """That of a run which MLflow was told of along its training."""
    node = composed.config["logger"]
    if not node or locate(node["_target_"]) is not TrackingLogger:
        return None
    config = composed.config | {"logger": node | {"system_metrics": False}}
    return run_logger(composed._replace(config=config), folder)


def _refuse_unasked(overrides: Sequence[str], judges: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuses an extractor that no judge uses, and images drawn otherwise that none looks at."""
    judged = [judge for judge in judges.values() if judge]
    for word in overrides:
        top = key_of(word).partition(".")[0]
        if top in ("extractor", "sampler") and not any("extractor" in judge for judge in judged):
            raise InputError(f"{word}: would change nothing; of the judges {', '.join(judges)} none uses it")


def _say(text: str) -> None:
    if rank() == 0:
        print(text, flush=True)
