"""lit-gen analyse: what a trained model can be used for, and how well."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_gen.cli import did_you_mean, group_names
from lit_gen.cli.arguments import as_count, split_words
from lit_gen.cli.compose import build, recompose
from lit_gen.cli.hints import fits, mismatch
from lit_gen.cli.log import log_to
from lit_gen.cli.open_run import Opened, open_run, with_distinct_names
from lit_gen.cli.overrides import parse
from lit_gen.cli.rebuild import FIXED
from lit_gen.cli.signatures import signature_of
from lit_gen.cli.tables import as_csv, as_json, as_text, made_folder, picture, write_picture, write_text
from lit_gen.core.types import InputError
from lit_gen.evaluation.folders import batches, image_files
from lit_gen.evaluation.subject import Findings
from lit_gen.evaluation.uses.anomaly import Anomaly
from lit_gen.evaluation.uses.augmentation import Augmentation
from lit_gen.evaluation.uses.code_map import CodeMap
from lit_gen.evaluation.uses.compression import Compression
from lit_gen.evaluation.uses.denoise import Denoise
from lit_gen.evaluation.uses.interpolation import Interpolation
from lit_gen.evaluation.uses.probe import Probe
from lit_gen.evaluation.uses.reconstruction import Reconstruction
from lit_gen.evaluation.uses.translation import Translation
from lit_gen.evaluation.uses.traversal import Traversal
from lit_gen.tracking.mlflow_tracking import TrackingLogger

HELP = """lit-gen analyse ckpt=RUN what=NAME [out=FOLDER] [seed=0] [OPTION=VALUE ...] [KEY=VALUE ...]

What a trained model can be used for, and how well: a table, and pictures beside it.

  ckpt    a run folder or a checkpoint file, or several of them with commas
  what    interpolation   strips between pairs of test images
                          pairs=6 steps=10 way=both|linear|spherical
          traversal       every dimension of a code, moved while the others stay
                          image=0 dimensions=10 width=3 steps=9 n=2000
          reconstruction  test images above their reconstructions
                          n=64 columns=16
          anomaly         scores of strange images, ROC-AUC of classes held out
                          held_out=3 score=reconstruction|likelihood draws=50
          map             codes in two dimensions, coloured by class
                          method=pca|tsne n=2000 perplexity=30
          probe           how often a linear classifier and neighbours find the class from the code
                          n=10000 neighbours=5
          compression     distortion against latent size, of several ckpt= together
          denoise         corrupted test images, or those of in=, and their reconstructions
                          corruption=gaussian|masking|salt_and_pepper noise=0.5 n=1000 columns=16
          augmentation    a classifier (LeNet) trained with and without generated images
                          n=500 generated=5000 steps=500 batch_size=64 repeats=3
          translation     of models that translate (cyclegan): content kept and style reached, by the run's
                          extractor; test images, translated, and translated back
                          n=10000 columns=16
  out     where <what>.png, .csv and .json go; without it analysis/ in the run folder
  in      of denoise: a folder of images or an .npz archive, of the size that the model was trained on
  seed    of whatever is drawn
  device  cpu, cuda, ...
  track   true: also into the run's MLflow run
  KEY     data.root=... and the like change the run's configuration, but not model.* and stream.*

Without held_out=, anomaly takes the classes that were left out of training:
lit-gen train ... data.without_classes=[3]

Examples
  lit-gen analyse ckpt=runs/my-run what=interpolation
  lit-gen analyse ckpt=runs/my-run what=map method=tsne n=5000 out=maps
  lit-gen analyse ckpt=runs/z4,runs/z8,runs/z16 what=compression out=compression
"""

log = logging.getLogger(__name__)

USES: dict[str, type] = {
    "interpolation": Interpolation,
    "traversal": Traversal,
    "reconstruction": Reconstruction,
    "anomaly": Anomaly,
    "map": CodeMap,
    "probe": Probe,
    "compression": Compression,
    "denoise": Denoise,
    "augmentation": Augmentation,
    "translation": Translation,
}
_OWN = ("ckpt", "what", "out", "seed", "device", "in", "track")
_CORRUPTIONS = {
    "gaussian": ("GaussianNoise", "std"),
    "masking": ("Masking", "share"),
    "salt_and_pepper": ("SaltAndPepper", "share"),
}


def run(words: list[str]) -> int:
    log_to(None, logging.INFO)
    own, others = split_words(words, _OWN)
    for key in ("ckpt", "what"):
        if not own.get(key):
            raise InputError(f"{key}= is missing; see lit-gen analyse --help")
    what = own["what"]
    if what not in USES:
        raise InputError(f"what={what}: it is one of {', '.join(USES)}.{did_you_mean(what, USES)}")
    use, overrides = _use(what, others)
    if "in" in own and what != "denoise":
        raise InputError(f"in={own['in']}: only what=denoise takes images; what={what} uses the run's own")
    track = own.get("track", "false")
    if track not in ("true", "false"):
        raise InputError(f"track={track}: expected true or false")
    seed = as_count("seed", own.get("seed", "0"))
    runs = with_distinct_names(
        [open_run(path, overrides, seed, own.get("device", "cpu")) for path in _paths(own["ckpt"])]
    )
    # Compression is one result about all runs together; any other use is one for each run.
    groups = [runs] if what == "compression" else [[each] for each in runs]
    table = []
    for group, folder in zip(groups, _folders(own.get("out"), groups), strict=True):
        made_folder("out", folder)
        try:
            found = _findings(use, group, own.get("in"))
        except InputError:
            with suppress(OSError):  # only a folder in which there is nothing is removed
                folder.rmdir()
            raise
        settings = {"what": what, "seed": seed, "settings": dataclasses.asdict(use), "overrides": overrides}
        files = _write(found, folder, what, settings, group, own.get("in"))
        if track == "true":
            _track(found, files, what, group)
        name = {"run": group[0].subject.name} if len(groups) > 1 else {}
        table += [{**name, **row} for row in found.table]
        print(f"{folder}: {', '.join(file.name for file in files)}")
    print(as_text(table))
    return 0


def _use(what: str, words: Sequence[str]) -> tuple[Any, list[str]]:
    """The use with its options, and the words that change the run's configuration.

    Raises:
        InputError: an option that this use does not take, or a value that it cannot.
    """
    options, parameters = {}, signature_of(USES[what]).parameters
    overrides, groups = [], group_names()
    for word in words:
        key = word.partition("=")[0].lstrip("+~")
        if key not in parameters and ("." in key or key in groups):
            overrides.append(word)
            continue
        if key not in parameters:
            takes = ", ".join([*parameters, *_OWN])
            guess = did_you_mean(key, [*parameters, *_OWN])
            raise InputError(
                f"{word}: what={what} takes {takes}, and keys of the run such as data.root.{guess}"
            )
        (option,) = parse([word])
        if not fits(parameters[key].hint, option.value):
            raise InputError(f"{word}: {mismatch(parameters[key].hint, option.value)}")
        options[key] = option.value
    return USES[what](**options), overrides


def _paths(text: str) -> list[str]:
    return [text] if Path(text).exists() else [part for part in text.split(",") if part]


def _folders(out: str | None, groups: Sequence[Sequence[Opened]]) -> list[Path]:
    """Where each result goes: the run's own analysis/, or `out`; of several runs each has its own there."""
    if out is None:
        return [group[0].folder / "analysis" / group[0].moment for group in groups]
    return [Path(out) if len(groups) == 1 else Path(out) / group[0].subject.name for group in groups]


def _findings(use: Any, group: Sequence[Opened], given: str | None) -> Findings:
    """Asks the use, which is given what it cannot build itself."""
    opened = group[0]
    if isinstance(use, Compression):
        return use([each.subject for each in group])
    if isinstance(use, Denoise):
        if given is not None:
            return use.given(opened.subject, _given_images(given, opened))
        kind, key = _CORRUPTIONS[use.corruption]
        node = {"_target_": f"lit_gen.nets.corruption.{kind}", key: use.noise}
        if key == "share" and use.noise > 1:
            raise InputError(f"noise={use.noise}: of corruption={use.corruption} it is a share, from 0 to 1")
        return use(opened.subject, build(node, "noise"))
    if isinstance(use, Augmentation):
        return use(opened.subject, _classifier(opened))
    if isinstance(use, Translation):
        return use(opened.subject, opened.composed.build("extractor"))
    return use(opened.subject)


def _given_images(path: str, opened: Opened) -> Tensor:
    """uint8 [N, C, S, S] of the size that the model works on."""
    spec = opened.subject.data.spec
    parts = list(batches("in", Path(path), opened.subject.batch_size))
    for part in parts:
        channels, height, width = part.shape[1:]
        if (channels, height, width) != (spec.channels, spec.size, spec.size):
            raise InputError(
                f"in={path}: an image has {channels} channel(s) of {height} x {width} pixels, and the model "
                f"works on {spec.channels} of {spec.size} x {spec.size}; resize the images first"
            )
    return torch.cat(parts)


def _classifier(opened: Opened) -> Callable[[], Any]:
    """Makes LeNets for the run's images."""
    composed = recompose(
        opened.stored.config, ["model=lenet"], refused=[key for key in FIXED if key != "model"]
    )
    return lambda: composed.build("model")


def _write(
    found: Findings,
    folder: Path,
    what: str,
    settings: Mapping[str, Any],
    group: Sequence[Opened],
    given: str | None,
) -> list[Path]:
    record = {
        **settings,
        "ckpt": [str(each.stored.path) for each in group],
        "in": given,
        "table": found.table,
    }
    files = [
        write_text(folder / f"{what}.json", as_json(record)),
        write_text(folder / f"{what}.csv", as_csv(found.rows or found.table)),
    ]
    if found.picture is not None:
        files.insert(0, write_picture(folder / f"{what}.png", found.picture))
    if found.images is not None:
        place = made_folder("out", folder / what)
        named = [file.stem for file in image_files(Path(given))] if given and Path(given).is_dir() else []
        if len(set(named)) < len(found.images):  # an archive, or the same name in two folders
            named = [f"{number:06d}" for number in range(len(found.images))]
        for name, image in zip(named, found.images, strict=True):
            picture(image.permute(1, 2, 0).numpy()).save(place / f"{name}.png")
        files.append(place)
    return files


def _track(found: Findings, files: Sequence[Path], what: str, group: Sequence[Opened]) -> None:
    """Adds files and numbers to the MLflow run of each run that has one."""
    for opened in group:
        if not (opened.folder / "run.json").is_file():
            log.warning("track=true: %s has no MLflow run", opened.folder)
            continue
        moved = recompose(opened.stored.config, [f"output_dir={opened.folder}"])
        logger = moved.build("logger")
        if not isinstance(logger, TrackingLogger):
            log.warning("track=true: %s was not logged with logger=mlflow", opened.folder)
            continue
        for file in files:
            if file.is_file():
                logger.log_file(file, "analysis")
        for row in found.table:
            place = "/".join(["analysis", what, *(str(v) for v in row.values() if isinstance(v, str))])
            numbers = {f"{place}/{name}": v for name, v in row.items() if isinstance(v, int | float)}
            logger.log_metrics(numbers)
        logger.finish("FINISHED")
