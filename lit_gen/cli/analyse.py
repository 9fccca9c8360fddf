"""lit-gen analyse: what a trained model can be used for, and how well."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lit_gen.cli import group_names
from lit_gen.cli.building import build
from lit_gen.cli.config import FIXED, recompose
from lit_gen.cli.log import log_to, run_logger
from lit_gen.cli.open_run import Opened, open_run, refuse_unused, with_distinct_names
from lit_gen.cli.signatures import describe, fits, mismatch, signature_of
from lit_gen.cli.words import key_of, own_words, parse
from lit_gen.core.files import new_or_empty, writable_folder, write_json, write_text
from lit_gen.core.pictures import pictures_in
from lit_gen.core.types import InputError, NonNegative
from lit_gen.evaluation.image_sets import batches
from lit_gen.evaluation.plots import write_picture
from lit_gen.evaluation.tables import as_csv, as_text
from lit_gen.evaluation.uses import USES
from lit_gen.evaluation.uses.findings import Findings
from lit_gen.tracking.masking import without_secrets
from lit_gen.tracking.mlflow import TrackingLogger

HELP = """lit-gen analyse ckpt=RUN what=NAME [out=FOLDER] [seed=0] [OPTION=VALUE ...] [KEY=VALUE ...]
lit-gen analyse what=NAME

What a trained model can be used for, and how well: a table, and pictures beside it.

  ckpt    a run folder or a checkpoint file, or several of them with commas
  what    interpolation traversal reconstruction anomaly map clusters probe compression denoise
          augmentation translation drift snr noising transfer probe_steps counterfactual ; without
          further words the one that is named says what it does and takes
  out     where <what>.png, .csv and .json go, a folder that holds nothing but the like; without it analysis/
          in the run folder. Results of the same analysis are replaced
  in      of denoise and transfer: a folder of images or an .npz archive, of the size that the model was
          trained on
  seed    of whatever is drawn
  device  cpu, cuda, ...
  track   true: also into the run's MLflow run
  KEY     data.root=... and other data.* change the run's configuration; so do sampler.* of augmentation,
          noising and transfer, extractor.* of translation, noising and counterfactual, and
          callbacks.ema.use

Examples
  lit-gen analyse what=map
  lit-gen analyse ckpt=runs/my-run what=map method=tsne n=5000 out=maps
  lit-gen analyse ckpt=runs/my-run what=counterfactual to=3
  lit-gen analyse ckpt=runs/z4,runs/z8,runs/z16 what=compression out=compression
  lit-gen analyse ckpt=runs/my-run/checkpoints/task-0.ckpt,runs/my-run/checkpoints/task-1.ckpt what=drift
"""

log = logging.getLogger(__name__)

_OWN = {
    "ckpt": str,
    "what": Literal[tuple(USES)],
    "out": Path,
    "in": Path,
    "seed": NonNegative,
    "device": str,
    "track": bool,
}
_CORRUPTIONS = {
    "gaussian": ("GaussianNoise", "std"),
    "masking": ("Masking", "share"),
    "salt_and_pepper": ("SaltAndPepper", "share"),
}


def run(words: list[str]) -> int:
    log_to(None, logging.INFO)
    if len(words) == 1 and words[0].removeprefix("what=") in USES:
        print(_described(words[0].removeprefix("what=")))
        return 0
    own, others = own_words(words, _OWN, needed=("ckpt", "what"))
    what, seed, given = own["what"], own.get("seed", 0), own.get("in")
    use, overrides = _use(what, others)
    if given is not None and not hasattr(use, "given"):
        raise InputError(
            f"in={given}: only what=denoise and what=transfer take images; what={what} uses the run's own"
        )
    paths = [own["ckpt"]] if Path(own["ckpt"]).exists() else own["ckpt"].split(",")
    runs = with_distinct_names([open_run(path, overrides, seed, own.get("device", "cpu")) for path in paths])
    # Compression and drift are one result about all runs together; any other use is one for each run.
    groups = [runs] if what in ("compression", "drift") else [[each] for each in runs]
    table = []
    for group in groups:
        first, out = group[0], own.get("out")
        if out is not None:
            folder = out / first.context.name if len(groups) > 1 else out
        else:
            folder = first.folder / "analysis" / first.moment
        if out is not None:
            new_or_empty("out", folder, lambda path: path.stem in USES)
        writable_folder("out", folder)
        try:
            found = _findings(use, group, given)
        except InputError as mistake:
            with suppress(OSError):  # only a folder in which there is nothing is removed
                folder.rmdir()
            of_model = str(mistake).startswith(f"{first.context.name}:")
            raise InputError(f"ckpt={mistake}" if of_model else str(mistake)) from mistake
        record = {"what": what, "seed": seed, "settings": dataclasses.asdict(use)}
        record |= {"overrides": without_secrets(overrides)}
        record |= {"ckpt": [str(each.stored.path) for each in group], "in": given, "table": found.table}
        files = [write_json(folder / f"{what}.json", record), *_write(found, folder, what, given)]
        if own.get("track"):
            _track(found, files, what, group)
        name = {"run": first.context.name} if len(groups) > 1 else {}
        table += [{**name, **row} for row in found.table]
        print(f"{folder}: {', '.join(file.name for file in files)}")
    print(as_text(table))
    return 0


def _use(what: str, words: Sequence[str]) -> tuple[Any, list[str]]:
    """The use with its options, and the words about the configuration; InputError for any other word."""
    parameters = signature_of(USES[what]).parameters
    own_words(words, _OWN, others=(*parameters, *group_names()))
    options = {word.key: word for word in map(parse, [each for each in words if key_of(each) in parameters])}
    for key, word in options.items():
        if not fits(parameters[key].hint, word.value):
            raise InputError(f"{word.text}: {mismatch(parameters[key].hint, word.value)}")
    use = USES[what](**{key: word.value for key, word in options.items()})
    rest = [word for word in words if key_of(word) not in parameters]
    asks = inspect.signature(use.__call__).parameters
    used = ["data", "callbacks.ema.use", *(["extractor"] if "extractor" in asks else [])]
    used += ["sampler"] if what in ("augmentation", "noising", "transfer") else []
    refuse_unused(rest, used, f"what={what}", ("data.flip",))
    return use, rest


def _described(what: str) -> str:
    """What a use says about itself, and its options with their defaults and what else they may be."""
    use, parameters = USES[what], signature_of(USES[what]).parameters
    lines = [
        {
            "option": field.name,
            "default": str(field.default),
            "allowed": describe(parameters[field.name].hint),
        }
        for field in dataclasses.fields(use)
    ]
    return f"what={what}: {inspect.getdoc(use)}\n" + (f"\n{as_text(lines)}\n" if lines else "")


def _findings(use: Any, group: Sequence[Opened], given: Path | None) -> Findings:
    """Asks the use, which is given by name what it cannot build itself."""
    opened = group[0]
    if given is not None:
        return use.given(opened.context, _given_images(given, opened))
    builders: dict[str, Callable[[], Any]] = {
        "context": lambda: opened.context,
        "contexts": lambda: [each.context for each in group],
        "corrupt": lambda: _corruption(use.corruption, use.noise),
        "make_guide": lambda: functools.partial(_guide, use.by, use.steps),
        "make_classifier": lambda: _classifier(opened),
        "extractor": lambda: opened.composed.build("extractor"),
    }
    return use(**{name: builders[name]() for name in inspect.signature(use.__call__).parameters})


def _corruption(kind: str, noise: float) -> Callable[[Tensor], Tensor]:
    name, key = _CORRUPTIONS[kind]
    if key == "share" and noise > 1:
        raise InputError(f"noise={noise}: of corruption={kind} it is a share, from 0 to 1")
    return build({"_target_": f"lit_gen.nets.corruption.{name}", key: noise}, "noise")


def _guide(by: str, steps: int, strength: float) -> Any:
    solver = {"_target_": "lit_gen.diffusion.solvers.DDIM"}
    options = {"by": by, "steps": steps, "strength": strength, "clip": True, "progress": False}
    return build(
        {"_target_": "lit_gen.families.guided.GuidedSampler", "solver": solver, **options}, "sampler"
    )


def _classifier(opened: Opened) -> Callable[[], Any]:
    """Makes LeNets for the run's images."""
    refused = [key for key in FIXED if key != "model"]
    composed = recompose(opened.stored.config, ["model=lenet"], refused)
    return lambda: composed.build("model")


def _given_images(path: Path, opened: Opened) -> Tensor:
    """uint8 [N, C, S, S] of the size that the model works on."""
    channels, size, _ = opened.context.data.spec
    parts = list(batches("in", path, opened.context.batch_size))
    for part in parts:
        found, height, width = part.shape[1:]
        if (found, height, width) != (channels, size, size):
            raise InputError(
                f"in={path}: an image has {found} channel(s) of {height} x {width} pixels, and the model "
                f"works on {channels} of {size} x {size}; resize the images first"
            )
    return torch.cat(parts)


def _write(found: Findings, folder: Path, what: str, given: Path | None) -> list[Path]:
    files = [write_text(folder / f"{what}.csv", as_csv(found.rows or found.table))]
    if found.picture is not None:
        files.append(write_picture(folder / f"{what}.png", found.picture))
    if found.images is not None:
        named = [Path(file).stem for file in pictures_in(given).paths] if given and given.is_dir() else []
        if len(set(named)) < len(found.images):  # an archive, or the same name in two folders
            named = [f"{number:06d}" for number in range(len(found.images))]
        shutil.rmtree(folder / what, ignore_errors=True)  # images of an earlier time
        for name, image in zip(named, found.images, strict=True):
            write_picture(folder / what / f"{name}.png", image.permute(1, 2, 0))
        files.append(folder / what)
    return files


def _track(found: Findings, files: Sequence[Path], what: str, group: Sequence[Opened]) -> None:
    """Adds files and numbers to the MLflow run of each run that has one."""
    for opened in group:
        has_note = (opened.folder / "run.json").is_file()
        logger = run_logger(recompose(opened.stored.config), opened.folder)
        if not has_note or not isinstance(logger, TrackingLogger):
            log.warning("track=true: %s has no MLflow run", opened.folder)
            continue
        for file in files:
            if file.is_file():
                logger.log_file(file, "analysis")
        for row in found.table:
            place = "/".join(["analysis", what, *(str(v) for v in row.values() if isinstance(v, str))])
            logger.log_metrics({f"{place}/{n}": v for n, v in row.items() if isinstance(v, int | float)})
        logger.finish("FINISHED")
