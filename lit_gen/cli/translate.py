"""lit-gen translate: a folder of pictures as pictures of the other domain."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from datamodules.image_cache import Decoding, fitted
from lit_gen.cli.log import log_to
from lit_gen.cli.open_run import read_own, rebuild
from lit_gen.cli.words import own_words
from lit_gen.core.files import new_or_empty
from lit_gen.core.images import to_float, to_uint8
from lit_gen.core.module import LitModel
from lit_gen.core.pictures import read_good
from lit_gen.core.types import InputError, Translates
from lit_gen.evaluation.folders import filled_folder
from lit_gen.evaluation.image_sets import image_files
from lit_gen.evaluation.plots import write_picture

HELP = """lit-gen translate ckpt=PATH in=FOLDER out=FOLDER to=a|b [overwrite=false] [device=cpu]

Translates pictures to the other of the two domains that a model (cyclegan) was trained on.

  ckpt       a run folder or a checkpoint file
  in         a folder of pictures (png, jpg, ...) and folders in it; they are read as in training (with
             data.a.crop and data.a.background, if to=b) and become grey or colour as the model needs them
  out        where each picture goes under its own name as a PNG; a new or empty folder
  to         the domain that the pictures become part of: a or b
  overwrite  true: out may hold files already; those of the same name are replaced
  device     cpu, cuda, ...

Examples
  lit-gen translate ckpt=runs/my-run in=horses out=zebras to=b
  lit-gen translate ckpt=runs/my-run/checkpoints/last.ckpt in=zebras out=horses to=a overwrite=true
"""

log = logging.getLogger(__name__)

_OWN = {"ckpt": str, "in": Path, "out": Path, "to": Literal["a", "b"], "overwrite": bool, "device": str}
_BLOCK = 64


def run(words: list[str]) -> int:
    log_to(None, logging.INFO)
    own, _ = own_words(words, _OWN, needed=("ckpt", "in", "out", "to"), others=())
    source, out = own["in"], own["out"]
    names = _names(source)
    _check_out(source, out, own.get("overwrite", False))
    composed, model, *_ = rebuild(read_own(own["ckpt"]), device=own.get("device", "cpu"))
    able = model.abilities()
    if not isinstance(able, Translates):
        raise InputError(
            f"ckpt={own['ckpt']}: {type(able).__name__} does not translate between domains; give a "
            "checkpoint of model=cyclegan"
        )
    how = _decoding(model, own["to"], composed.config["data"])
    images = read_good([str(source / name) for name in names], how.background, partial(fitted, how=how))
    with filled_folder("out", out) as folder:
        _translate(model, own["to"], images, [folder / name for name in names.values()])
    print(f"{len(names)} images: {out}")
    return 0


def _names(source: Path) -> dict[Path, Path]:
    """Every picture with the place of its translation, both relative to their folders."""
    files = [file.relative_to(source) for file in image_files("in", source)]
    names = {file: file.with_suffix(".png") for file in files}
    for name, count in Counter(names.values()).items():
        if count > 1:
            same = ", ".join(str(file) for file in files if names[file] == name)
            raise InputError(f"in={source}: {same} would all become {name}; rename all but one")
    return names


def _check_out(source: Path, out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"out={out}: is a file; give the name of a folder")
    place, origin = out.resolve(), source.resolve()
    if place == origin or origin in place.parents:
        raise InputError(
            f"out={out}: lies in in={source}, whose pictures would be mixed with their translations; give a "
            "folder beside it"
        )
    new_or_empty("out", out, (lambda path: overwrite), " or give overwrite=true")


def _decoding(module: LitModel, to: str, data: Mapping[str, Any]) -> Decoding:
    """As the pictures of the domain to translate from were read in training, where it was one of files."""
    domain = data.get("b" if to == "a" else "a") or {}
    how = {key: domain[key] for key in ("crop", "background") if key in domain}
    return Decoding(module.spec.channels, module.spec.size, convert=True, **how)


def _translate(module: LitModel, to: str, images: Iterator[np.ndarray], files: Sequence[Path]) -> None:
    for first in range(0, len(files), _BLOCK):
        block = files[first : first + _BLOCK]
        image = to_float(torch.from_numpy(np.stack([*islice(images, len(block))]))).to(module.device)
        with torch.no_grad():
            translated = to_uint8(module.abilities().translate(image, to=to)).cpu()
        for file, each in zip(block, translated, strict=True):
            write_picture(file, each.permute(1, 2, 0))
        if len(files) > _BLOCK:
            log.info("%d of %d images", first + len(block), len(files))
