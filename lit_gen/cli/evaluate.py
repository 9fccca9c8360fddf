"""lit-gen evaluate: the scores of a checkpoint, or of one set of images against another."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_gen.cli import group_names
from lit_gen.cli.config import compose
from lit_gen.cli.devices import KEYS, launched, without_choice
from lit_gen.cli.log import log_to
from lit_gen.cli.open_run import refuse_unused
from lit_gen.cli.run_folder import rank
from lit_gen.cli.scores import TOP, at_tasks, evaluate_checkpoint, evaluate_run
from lit_gen.cli.words import own_words
from lit_gen.core.files import writable_file, write_json
from lit_gen.core.types import InputError
from lit_gen.evaluation.board import Row
from lit_gen.evaluation.folders import compare_folders
from lit_gen.evaluation.tables import as_text

HELP = """lit-gen evaluate ckpt=PATH|RUN@best [out=scores.json] [GROUP=NAME ...] [KEY=VALUE ...]
lit-gen evaluate ckpt=RUN@all|@last|@task-K [follow=true] [out=scores.json] [GROUP=NAME ...] [KEY=VALUE ...]
lit-gen evaluate real=IMAGES fake=IMAGES [extractor=NAME] [features=FILE] [out=scores.json] [KEY=VALUE ...]

Scores a checkpoint with the judges it was trained with, at the task it had reached; or the checkpoints that a
run kept after its tasks, into the run's scores.csv, matrix.png, summary.json and MLflow, as if it had scored
itself; or compares two sets of images, each a folder (searched through), an .npz archive of uint8 NHWC or a
folder of such archives.

  ckpt       a run folder or a checkpoint file; its own configuration is used, and GROUP=NAME or KEY=VALUE
             change it (extractor=inception, sampler=latent, judges=[quality,terms], data.root=...), but not
             model.* and stream.*, nor what only matters in training
  @          of a run folder: all its tasks, the last one, or one or some (@task-0,task-2); rows of another
             extractor stay beside these, the same ones are replaced (MLflow keeps the first of a step)
  @best      the best checkpoint of the last task, if callbacks=[default,best] or [default,best_fid] kept it;
             sample, analyse and lit_gen.load take it as well
  follow     waits for the checkpoints of a run with scores=later and scores each as it comes, until it ends;
             on other devices than the run's: trainer=gpu trainer.devices=[1]
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
  lit-gen evaluate ckpt=runs/my-run@all trainer=ddp trainer.devices=2
  lit-gen evaluate ckpt=runs/my-run@best
  lit-gen evaluate ckpt=runs/my-run@all follow=true
  lit-gen evaluate real=photos/test fake=generated extractor=inception
  lit-gen evaluate real=photos/test fake=generated features=kept.safetensors trainer=ddp trainer.devices=4
"""

_OWN = {
    **{"ckpt": str, "follow": bool, "real": Path, "fake": Path},
    **{"background": str, "features": Path, "out": Path},
}
_USED_BY_FOLDERS = (
    "extractor",
    "judges.quality.extractor",
    "judges.quality.metrics",
    "judges.quality.batch_size",
    *(key for key in KEYS if key != "trainer.precision"),
)


def run(words: list[str]) -> int:
    own, others = own_words(words, _OWN, others=(*group_names(), *TOP))
    out = own.get("out")
    if out is not None:
        writable_file("out", out)
    of_images = {"real", "fake", "background", "features"} & set(own)
    place = at_tasks(own.get("ckpt", ""), own.get("follow", False))
    if place is not None and not of_images:
        return evaluate_run(*place, others, out)
    if "ckpt" in own and not of_images:
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
