"""Picture files decoded once into one uint8 array on disk, which is memory-mapped if it is large."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from PIL import Image, ImageOps
from torch import Tensor

from lit_gen.core.files import replaced, writable_folder
from lit_gen.core.types import InputError

log = logging.getLogger(__name__)

# Of PIL's modes; the others have alpha, four inks or more than 8 bits.
_CHANNELS = {"1": 1, "L": 1, "RGB": 3, "P": 3}
_KINDS = {1: "grey", 3: "colour", None: "special"}
_CHUNK = 1024  # pictures decoded before they are written
_IN_MEMORY = 2**30  # bytes; a larger cache is mapped, and its pages are shared by all processes


class Decoding(NamedTuple):
    """How a picture file becomes an image. Part of the cache's key."""

    channels: int
    size: int
    crop: int | None = None  # side of a centre square, in pixels of the file, that is kept before resizing
    convert: bool = False  # whether pictures with other channels are converted, or refused
    invert: bool = False  # 255 - level


def decode(path: str | Path, how: Decoding) -> np.ndarray:
    """uint8 [C, S, S]: the shorter side resized to `size` (bilinear, antialiased), the longer one cut.

    Raises:
        InputError: the file cannot be read, or has another number of channels; names it.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            mode = picture.mode
            picture = ImageOps.exif_transpose(picture)
    # PIL raises OSError and SyntaxError on damage, ValueError and DecompressionBombError on absurd sizes.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: no readable picture ({error}). Replace or remove the file.") from None
    channels = _CHANNELS.get(mode)
    if not how.convert and channels != how.channels:
        raise InputError(
            f"{path}: a {_KINDS[channels]} picture (mode {mode}) where data.spec.channels={how.channels}: "
            "set data.convert=true, change the key if all are like this one, or remove the file."
        )
    picture = picture.convert("RGB" if how.channels == 3 else "L")
    if how.crop is not None:
        picture = _centre(picture, how.crop, how.crop)
    scale = how.size / min(picture.size)
    if scale != 1:
        width, height = (max(how.size, int(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(_centre(picture, how.size, how.size)).reshape(how.size, how.size, how.channels)
    pixels = pixels.transpose(2, 0, 1)
    return 255 - pixels if how.invert else pixels


def cached_images(paths: Sequence[str], root: Path, how: Decoding, cache: str | Path | None) -> Tensor:
    """All pictures as uint8 [N, C, S, S]; decoded now, under a lock, if that has not been done before.

    Args:
        root: the pictures' names relative to it, their sizes and times of change are the cache's key.
        cache: folder of the cache; None is `root/.lit_gen_cache`, or the user's cache folder if that is not
            writable.
    """
    name = f"{_key(paths, root, how)}.npy"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folders = [root / ".lit_gen_cache", home / "lit_gen"] if cache is None else [Path(cache)]
    file = next((folder / name for folder in folders if (folder / name).exists()), None)
    if file is None:
        file = _first_writable(folders) / name
        with FileLock(f"{file}.lock"):
            if not file.exists():
                log.info("decoding %d pictures of %s into %s", len(paths), root, file)
                _write(paths, how, file)
    # Copy-on-write: torch takes read-only arrays with a warning, and nothing ever reaches the file.
    return torch.from_numpy(np.load(file, mmap_mode="c" if file.stat().st_size > _IN_MEMORY else None))


def _write(paths: Sequence[str], how: Decoding, target: Path) -> None:
    shape = (len(paths), how.channels, how.size, how.size)
    # Threads, since PIL decodes without the interpreter's lock.
    with replaced(target) as aside, ThreadPoolExecutor() as pool:
        array = np.lib.format.open_memmap(aside, mode="w+", dtype=np.uint8, shape=shape)
        for first in range(0, len(paths), _CHUNK):
            chunk = list(pool.map(partial(decode, how=how), paths[first : first + _CHUNK]))
            array[first : first + len(chunk)] = chunk
        array.flush()


def _key(paths: Sequence[str], root: Path, how: Decoding) -> str:
    digest = hashlib.sha256(repr(how).encode())
    for path in paths:
        try:
            facts = os.stat(path)
        except FileNotFoundError:
            raise InputError(f"{path}: no such file. Put it there, or set data.root.") from None
        name = path.removeprefix(f"{root}{os.sep}")
        digest.update(f"{name}\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:24]


def _first_writable(folders: Sequence[Path]) -> Path:
    for folder in folders[:-1]:
        with contextlib.suppress(InputError):
            return writable_folder("data.cache", folder)
    return writable_folder("data.cache", folders[-1])


def _centre(picture: Image.Image, width: int, height: int) -> Image.Image:
    left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
    return picture.crop((left, top, left + width, top + height))
