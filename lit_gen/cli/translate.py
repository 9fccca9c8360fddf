"""lit-gen translate: a folder of pictures as pictures of the other domain."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from datamodules.image_cache import Decoding, decode
from lit_gen.cli import did_you_mean
from lit_gen.cli.arguments import split_words
from lit_gen.cli.log import log_to
from lit_gen.cli.rebuild import rebuild
from lit_gen.cli.tables import picture
from lit_gen.core.checkpoint import read
from lit_gen.core.images import to_float, to_uint8
from lit_gen.core.module import LitModel
from lit_gen.core.types import InputError, Translates
from lit_gen.evaluation.folders import image_files

HELP = """lit-gen translate ckpt=PATH in=FOLDER out=FOLDER to=a|b [overwrite=false] [device=cpu]

Translates pictures to the other of the two domains that a model (cyclegan) was trained on.

  ckpt       a run folder or a checkpoint file
  in         a folder of pictures (png, jpg, ...) and folders in it; they become grey or colour as the model
             needs them, the shorter side is resized to its size and the longer one cut
  out        where each picture goes under its own name as a PNG; a new or empty folder
  to         the domain that the pictures become part of: a or b
  overwrite  true: out may hold files already; those of the same name are replaced
  device     cpu, cuda, ...

Examples
  lit-gen translate ckpt=runs/my-run in=horses out=zebras to=b
  lit-gen translate ckpt=runs/my-run/checkpoints/last.ckpt in=zebras out=horses to=a overwrite=true
"""

log = logging.getLogger(__name__)

_OWN = ("ckpt", "in", "out", "to", "overwrite", "device")
_BLOCK = 64


def run(words: list[str]) -> int:
    log_to(None, logging.INFO)
    own, others = split_words(words, _OWN)
    if others:
        key = others[0].partition("=")[0]
        raise InputError(f"{others[0]}: lit-gen translate takes {', '.join(_OWN)}.{did_you_mean(key, _OWN)}")
    for key in ("ckpt", "in", "out", "to"):
        if not own.get(key):
            raise InputError(f"{key}= is missing; see lit-gen translate --help")
    to, overwrite = own["to"], own.get("overwrite", "false")
    if to not in ("a", "b"):
        raise InputError(f"to={to}: the domains are a and b, as in the run's data.a and data.b")
    if overwrite not in ("true", "false"):
        raise InputError(f"overwrite={overwrite}: expected true or false")
    source, out = Path(own["in"]), Path(own["out"])
    names = _names(source)
    _check_out(source, out, overwrite == "true")
    model = _translator(own["ckpt"], own.get("device", "cpu"))
    with _filled_at_once(out) as folder:
        _translate(model, to, source, names, folder)
    print(f"{len(names)} images: {out}")
    return 0


def _names(source: Path) -> dict[Path, Path]:
    """Every picture with the place of its translation, both relative to their folders."""
    if not source.is_dir():
        raise InputError(f"in={source}: there is no such folder; give a folder of pictures")
    files = [file.relative_to(source) for file in image_files(source)]
    if not files:
        raise InputError(f"in={source}: holds no pictures (png, jpg, ...)")
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
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise InputError(f"out={out}: is not empty; give another folder, or overwrite=true")


def _translator(path: str, device: str) -> LitModel:
    module = rebuild(read(path)).module
    if not isinstance(module.abilities(), Translates):
        raise InputError(
            f"ckpt={path}: {type(module.abilities()).__name__} does not translate between domains; give a "
            "checkpoint of model=cyclegan"
        )
    try:
        return module.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={device}: cannot be used ({str(error).splitlines()[0]})") from error


def _translate(module: LitModel, to: str, source: Path, names: dict[Path, Path], folder: Path) -> None:
    how = Decoding(module.spec.channels, module.spec.size, convert=True)
    files: Sequence[Path] = list(names)
    for first in range(0, len(files), _BLOCK):
        block = files[first : first + _BLOCK]
        pixels = np.stack([decode(source / file, how) for file in block])
        image = to_float(torch.from_numpy(pixels)).to(module.device)
        with torch.no_grad():
            translated = to_uint8(module.abilities().translate(image, to=to)).cpu()
        for file, each in zip(block, translated, strict=True):
            place = folder / names[file]
            place.parent.mkdir(parents=True, exist_ok=True)
            picture(each.permute(1, 2, 0).numpy()).save(place)
        if len(files) > _BLOCK:
            log.info("%d of %d images", first + len(block), len(files))


@contextmanager
def _filled_at_once(out: Path) -> Iterator[Path]:
    """A folder whose files move to `out` when all went well; otherwise `out` stays as it was.

    Raises:
        InputError: `out` cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    except OSError as error:
        raise InputError(f"out={out}: cannot be written ({error.strerror or error})") from error
    try:
        yield draft
        for file in sorted(file for file in draft.rglob("*") if file.is_file()):
            place = out / file.relative_to(draft)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)
    except OSError as error:
        raise InputError(f"out={out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
