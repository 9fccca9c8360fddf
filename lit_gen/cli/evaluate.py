"""lit-gen evaluate: the scores of a checkpoint, or of one set of images against another."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import seed_everything

from callbacks.task_switch import TaskSwitch
from lit_gen.cli.arguments import split_words
from lit_gen.cli.compose import build, compose
from lit_gen.cli.lean import without_gpu_checks
from lit_gen.cli.log import log_to
from lit_gen.cli.rebuild import rebuild
from lit_gen.cli.run_folder import rank, write_atomically
from lit_gen.core.checkpoint import read
from lit_gen.core.types import InputError
from lit_gen.evaluation.folders import compare_folders
from lit_gen.evaluation.scores import ReportsScores, Score

HELP = """lit-gen evaluate ckpt=PATH [out=scores.json] [GROUP=NAME ...] [KEY=VALUE ...]
lit-gen evaluate real=IMAGES fake=IMAGES [extractor=NAME] [out=scores.json] [KEY=VALUE ...]

Scores a checkpoint with the callbacks it was trained with, at the task it had reached; or compares two sets
of images, each a folder (searched through) or an .npz archive of uint8 NHWC.

  ckpt       a run folder or a checkpoint file; its own configuration is used, and GROUP=NAME or KEY=VALUE
             change it (extractor=inception, trainer=ddp, data.root=...), but not model.* and stream.*
  out        also writes the scores as JSON
  extractor  inception, lenet_mnist, lenet_digits

Examples
  lit-gen evaluate ckpt=runs/my-run out=scores.json
  lit-gen evaluate ckpt=runs/my-run/checkpoints/task-2.ckpt extractor=inception
  callbacks.quality.num_samples=5000 lit-gen evaluate real=photos/test fake=generated extractor=inception
"""

log = logging.getLogger(__name__)

_OWN = ("ckpt", "real", "fake", "out")


def run(words: list[str]) -> int:
    own, others = split_words(words, _OWN)
    out = Path(own["out"]) if "out" in own else None
    if out is not None and not out.parent.is_dir():
        raise InputError(f"out={out}: the folder {out.parent} does not exist; make it first")
    if "ckpt" in own and not {"real", "fake"} & set(own):
        scores = evaluate_checkpoint(own["ckpt"], others)
    elif {"real", "fake"} <= set(own) and "ckpt" not in own:
        scores = _evaluate_folders(own["real"], own["fake"], others)
    else:
        raise InputError("give either ckpt=, or both real= and fake=; see lit-gen evaluate --help")
    if rank() == 0:
        print(_table(scores))
        if out is not None:
            write_atomically(out, json.dumps([score._asdict() for score in scores], indent=1) + "\n")
    return 0


def evaluate_checkpoint(path: str, overrides: Sequence[str]) -> list[Score]:
    """The scores that training would have given after the task that the checkpoint is at.

    Raises:
        InputError: the checkpoint or an override cannot be used, or nothing in its configuration gives
            scores.
    """
    log_to(None)
    stored = read(path)
    composed, module, stage, current_task = rebuild(stored, overrides)
    config = composed.config
    seed_everything(config["seed"], workers=True, verbose=False)
    data = composed.build("data")
    data.prepare_data()
    data.setup("test")
    data.current_task = current_task
    switch = TaskSwitch(config["seed"])
    switch.stage = stage
    scoring = _scoring(composed.config["callbacks"] or {})
    if not scoring:
        raise InputError(f"ckpt={path}: none of its callbacks gives scores; add callbacks=quality")
    trainer = build(
        config["trainer"] | {"max_time": None},
        "trainer",
        callbacks=[switch, *scoring],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    without_gpu_checks(trainer)
    losses = trainer.test(module, datamodule=data, verbose=False)[0]
    scores = [score for callback in scoring for score in callback.scores]
    named = {score.metric for score in scores}
    return [*(loss for loss in _losses(losses, scores[0]) if loss.metric not in named), *scores]


def _evaluate_folders(real: str, fake: str, overrides: Sequence[str]) -> list[Score]:
    composed = compose("evaluate", overrides)
    quality = composed.config["callbacks"]["quality"]
    return compare_folders(
        Path(real),
        Path(fake),
        composed.build("extractor"),
        [build(node, "callbacks.quality.metrics") for node in quality["metrics"]],
        quality["batch_size"],
        composed.config["seed"],
    )


def _scoring(nodes: dict[str, Any]) -> list[Any]:
    """The callbacks that report scores; the others, which write into the run folder, are left out."""
    callbacks = [build(node, f"callbacks.{name}") for name, node in nodes.items()]
    return [callback for callback in callbacks if isinstance(callback, ReportsScores)]


def _losses(metrics: dict[str, float], like: Score) -> list[Score]:
    """What `evaluate` of the module gave ("test/loss", "test/kl"), in the same form as the scores."""
    return [
        Score(None, name.removeprefix("test/"), value, "", "", "test", like.num_real, 0, like.seed)
        for name, value in metrics.items()
        if name.count("/") == 1
    ]


def _table(scores: Sequence[Score]) -> str:
    """One line per score: what, on which task, value, extractor with hash, counts."""
    lines = [f"{'metric':<16} {'task':>5} {'value':>12}  extractor (hash)  real / fake"]
    for score in scores:
        task = "all" if score.on_task is None else str(score.on_task)
        judge = f"{score.extractor} ({score.extractor_hash})" if score.extractor else "-"
        counts = f"{score.num_real} / {score.num_fake}"
        lines.append(f"{score.metric:<16} {task:>5} {score.value:>12.6g}  {judge}  {counts}")
    return "\n".join(lines)
