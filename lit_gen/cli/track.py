"""lit-gen track: brings runs into MLflow that it was told too little of, or nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_gen.cli.log import log_to
from lit_gen.cli.run_folder import CONFIG, RunFolder
from lit_gen.cli.words import own_words
from lit_gen.core.checkpoint import LAST
from lit_gen.core.types import InputError
from lit_gen.evaluation.note import in_tags
from lit_gen.evaluation.scores_file import read_board
from lit_gen.tracking.connection import with_secrets
from lit_gen.tracking.mlflow import TrackingLogger
from lit_gen.tracking.mlflow_run import Status
from lit_gen.tracking.replay import clock_of, replay

HELP = """lit-gen track RUN [RUN ...] [tracking_uri=ADDRESS] [experiment_name=NAME] [KEY=VALUE ...]

Brings run folders into MLflow, whole and once: what is there already is not sent again.

  RUN              a run folder: of logger=csv too, killed, or of a run during which MLflow was out of reach
  tracking_uri     default: that of the run, or else MLFLOW_TRACKING_URI, or else sqlite:///mlflow.db beside
                   runs/
  experiment_name  default: that of the run, or else lit-gen
  KEY              run_name, log_checkpoint, register_as, alias: as logger.KEY of lit-gen train

Parameters, tags, metrics, a description with the scores, pictures, data sets, and how the run ended. A run
without a summary.json was killed. metrics.csv has no times; they are laid evenly between begin and end. A run
that an older version began in MLflow keeps the names of metrics that it has there.

Examples
  lit-gen track runs/my-run
  lit-gen track runs/a runs/b tracking_uri=http://localhost:5000 experiment_name=digits
"""

_OWN = {
    "tracking_uri": str,
    "experiment_name": str,
    "run_name": str,
    "log_checkpoint": bool,
    "register_as": str,
    "alias": str,
}
_TARGET = f"{TrackingLogger.__module__}.{TrackingLogger.__name__}"


def run(words: list[str]) -> int:
    log_to(None, logging.WARNING)
    names = [word for word in words if "=" not in word or Path(word).is_dir()]
    own, _ = own_words([word for word in words if word not in names], _OWN, others=())
    if not names:
        raise InputError("give at least one run folder: lit-gen track runs/my-run")
    folders = list(dict.fromkeys(Path(name).absolute() for name in names))
    for folder in folders:
        if not (folder / CONFIG).is_file():
            raise InputError(f"{folder}: is no folder of a run ({CONFIG} is missing); give one under runs/")
    lacking = [folder for folder in folders if not _whole(RunFolder(folder), own)]
    return 1 if lacking else 0


def _whole(folder: RunFolder, own: Mapping[str, Any]) -> bool:
    folder.lock.take()  # a run that goes on tells MLflow itself
    try:
        return _track(folder, own)
    finally:
        folder.lock.release()


def _track(run: RunFolder, own: Mapping[str, Any]) -> bool:
    """Whether MLflow has all of a run."""
    folder, config, start, summary = run.path, run.read_config(), run.read_start(), run.read_summary()
    stored = config.get("logger") or {}
    stored = {k: v for k, v in stored.items() if k != "_target_"} if stored.get("_target_") == _TARGET else {}
    given = {"folder": folder} | with_secrets({"logger": stored | own})["logger"] | {"system_metrics": False}
    status: Status = summary.get("status", "KILLED")
    try:
        tracker = TrackingLogger(**given)
    except (TypeError, ValueError) as error:
        raise InputError(f"{folder}: {error}") from error
    clock, board = clock_of(folder), read_board(folder)
    board.num_tasks = 1 + max(board.rows, default=-1)
    tracker.start(clock.began)
    tracker.log_hyperparams(config)
    replay(tracker, folder, start.get("about", {}), clock, list(board.rows), in_tags(board), summary)
    tracker.finish(status, folder / "checkpoints" / LAST, clock.ended)
    if not tracker.is_behind:
        print(f"{folder}: {status}, in MLflow; look at it: {tracker.view_command()}")
    return not tracker.is_behind
