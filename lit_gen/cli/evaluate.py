"""lit-gen evaluate: the scores of a checkpoint, or of one set of images against another."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import seed_everything

from callbacks.task_switch import TaskSwitch
from lit_gen.cli import group_names
from lit_gen.cli.config import build, compose
from lit_gen.cli.devices import KEYS, launched, without_choice
from lit_gen.cli.log import log_to
from lit_gen.cli.open_run import open_run, refuse_unused
from lit_gen.cli.run_folder import rank
from lit_gen.cli.train import scoring_of
from lit_gen.cli.words import key_of, own_words
from lit_gen.core.files import writable_folder, write_json
from lit_gen.core.types import InputError
from lit_gen.evaluation.board import Row
from lit_gen.evaluation.folders import compare_folders
from lit_gen.evaluation.tables import as_text

HELP = """lit-gen evaluate ckpt=PATH [out=scores.json] [GROUP=NAME ...] [KEY=VALUE ...]
lit-gen evaluate real=IMAGES fake=IMAGES [extractor=NAME] [features=FILE] [out=scores.json] [KEY=VALUE ...]

Scores a checkpoint with the judges it was trained with, at the task it had reached; or compares two sets
of images, each a folder (searched through), an .npz archive of uint8 NHWC or a folder of such archives.

  ckpt       a run folder or a checkpoint file; its own configuration is used, and GROUP=NAME or KEY=VALUE
             change it (extractor=inception, sampler=latent, judges=[quality,terms], data.root=...), but not
             model.* and stream.*, nor what only matters in training
  out        also writes the scores as JSON, in place of a file that is there
  real       may be the statistics of a set, an .npz with "mu" and "sigma" as pytorch-fid and ADM's reference
             batches have them and as lit-gen stats writes them: FID alone is given then
  features   a safetensors file that keeps the features of real and fake: made where it is not there, and read
             where extractor and images are the same; a side whose images have changed is computed again
             and replaced, a file of another extractor is refused
  background the colour behind transparent pixels of real and fake: a name, or a number (#ff8800)
  extractor  inception, lenet_mnist, lenet_digits
  KEY        of two sets of images: extractor.*, judges.quality.metrics.*, judges.quality.batch_size and the
             devices, as in training: trainer=gpu, trainer=ddp trainer.devices=4

Examples
  lit-gen evaluate ckpt=runs/my-run out=scores.json
  lit-gen evaluate ckpt=runs/my-run/checkpoints/task-2.ckpt extractor=inception
  lit-gen evaluate ckpt=runs/my-run judges.quality.num_samples=5000
  lit-gen evaluate real=photos/test fake=generated extractor=inception
  lit-gen evaluate real=photos/test fake=generated features=kept.safetensors trainer=ddp trainer.devices=4
"""

_OWN = {"ckpt": str, "real": Path, "fake": Path, "background": str, "features": Path, "out": Path}
_TOP = ("seed", "mode_collapse")  # of the configuration, beside its groups
_USED = ("data", "extractor", "judges", "sampler", "trainer", "callbacks.ema.use", *_TOP)
_ONLY_IN_TRAINING = (
    *("judges.*.every_n_epochs", "judges.quality.num_val_samples", "mode_collapse.recall"),
    *("mode_collapse.precision", "trainer.m[ai][xn]_*", "trainer.*val_*", "trainer.limit_train_batches"),
    *("trainer.gradient_clip_*", "trainer.accumulate_grad_batches", "trainer.log_every_n_steps"),
    *("trainer.overfit_batches", "trainer.detect_anomaly", "data.flip"),
)
_USED_BY_FOLDERS = (
    "extractor",
    "judges.quality.extractor",
    "judges.quality.metrics",
    "judges.quality.batch_size",
    *(key for key in KEYS if key != "trainer.precision"),
)


def run(words: list[str]) -> int:
    own, others = own_words(words, _OWN, others=(*group_names(), *_TOP))
    out = own.get("out")
    if out is not None and not out.parent.is_dir():
        raise InputError(f"out={out}: the folder {out.parent} does not exist; make it first")
    if out is not None and out.is_dir():
        raise InputError(f"out={out}: is a folder; give the name of a file in it")
    if out is not None:
        writable_folder("out", out.parent)
    if "ckpt" in own and not {"real", "fake", "background", "features"} & set(own):
        rows = evaluate_checkpoint(own["ckpt"], others)
    elif {"real", "fake"} <= set(own) and "ckpt" not in own:
        rows = _evaluate_folders(own, others)
    else:
        raise InputError("give either ckpt=, or both real= and fake=; see lit-gen evaluate --help")
    if rank() == 0:
        print(as_text([_line(row) for row in rows]))
        if out is not None:
            write_json(out, [row._asdict() for row in rows])
    return 0


def evaluate_checkpoint(path: str, overrides: Sequence[str]) -> list[Row]:
    """The scores that training would have given after the task that the checkpoint is at.

    Raises:
        InputError: the checkpoint or an override cannot be used, or its configuration has no judges.
    """
    log_to(None, logging.WARNING if rank() == 0 else None)
    refuse_unused(overrides, _USED, "lit-gen evaluate ckpt=...", _ONLY_IN_TRAINING)
    opened = open_run(path, overrides)
    config, module, data = opened.composed.config, opened.context.model, opened.context.data
    seed_everything(config["seed"], workers=True, verbose=False)
    switch, scoring = TaskSwitch(config["seed"]), scoring_of(opened.composed, writes=False)
    if not scoring.judges:
        raise InputError(f"ckpt={path}: it was trained without judges; add judges=quality, or judges=terms")
    scoring.check(module, data)
    _refuse_unasked(overrides, config["judges"])
    trainer = build(
        config["trainer"] | {"max_time": None},
        "trainer",
        callbacks=[switch, scoring],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    logged = trainer.test(module, datamodule=data, verbose=False)
    if not logged:
        raise InputError("trainer.limit_test_batches=0: nothing is tested; leave it out")
    judged = {row.metric for row in scoring.rows}
    terms = {name.removeprefix("test/"): value for name, value in logged[0].items() if name.count("/") == 1}
    count = module.images_evaluated
    own = [Row(None, name, v, "", "", "test", count, 0, config["seed"]) for name, v in terms.items()]
    return [*(row for row in own if row.metric not in judged), *scoring.rows]


def _refuse_unasked(overrides: Sequence[str], judges: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuses an extractor that no judge uses, and images drawn otherwise that none looks at."""
    judged = [judge for judge in judges.values() if judge]
    for word in overrides:
        top = key_of(word).partition(".")[0]
        if top in ("extractor", "sampler") and not any("extractor" in judge for judge in judged):
            raise InputError(f"{word}: would change nothing; of the judges {', '.join(judges)} none uses it")


def _evaluate_folders(own: Mapping[str, Any], overrides: Sequence[str]) -> list[Row]:
    log_to(None, logging.WARNING if rank() == 0 else None)
    refuse_unused(without_choice(overrides), _USED_BY_FOLDERS, "lit-gen evaluate real=... fake=...")
    composed = compose("evaluate", overrides)
    quality = composed.build("judges.quality")
    fabric = launched(composed.config["trainer"])
    return compare_folders(
        *(own["real"], own["fake"]),
        *(quality.extractor, quality.metrics, quality.batch_size, composed.config["seed"]),
        background=own.get("background", "black"),
        device=fabric.device,
        features=own.get("features"),
    )


def _line(row: Row) -> dict[str, str]:
    judge = f"{row.extractor} ({row.extractor_hash})" if row.extractor else "-"
    return {
        "metric": row.metric,
        "task": "all" if row.on_task is None else str(row.on_task),
        "value": f"{row.value:.6g}",
        "extractor (hash)": judge,
        "real / fake": f"{row.num_real or 'unknown'} / {row.num_fake}",
    }
