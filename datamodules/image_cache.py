"""Picture files decoded once into one uint8 array on disk, which is memory-mapped if it is large."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import zlib
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

from lit_gen.core.files import replaced, writable_folder
from lit_gen.core.pictures import DECODER, Picture, read_all, read_picture, some_of
from lit_gen.core.types import InputError

log = logging.getLogger(__name__)

_IN_MEMORY = 2**30  # bytes; a larger cache is mapped, and its pages are shared by all processes
_BLOCK = 2**24  # bytes


class Decoding(NamedTuple):
    """How a picture file becomes an image. Part of the cache's key."""

    channels: int
    size: int
    crop: int | None = None  # side of a centre square, in pixels of the file, that is kept before resizing
    convert: bool = False  # whether grey pictures become colour ones, or colour ones grey, or are refused
    invert: bool = False  # 255 - level
    background: str = "black"  # the colour behind what is transparent


def decode(path: str | Path, how: Decoding) -> np.ndarray:
    """uint8 [C, S, S] of one file.

    Raises:
        InputError: the file cannot be read, or not in this way; names it.
    """
    return fitted(read_picture(path, how.background), how)


def fitted(picture: Picture, how: Decoding) -> np.ndarray:
    """uint8 [C, S, S]: the shorter side resized to `size` (bilinear, antialiased), the longer one cut.

    Raises:
        InputError: it has another number of channels, or is smaller than the crop; names it.
    """
    path, image, is_palette, _ = picture
    fits = len(image.getbands()) == how.channels or (is_palette and how.channels == 3)
    if not fits and not how.convert:
        kind = "grey" if image.mode == "L" else "colour"
        raise InputError(
            f"{path}: a {kind} picture where data.spec.channels={how.channels}: "
            "set data.convert=true, change the key if all are like this one, or remove the file."
        )
    if len(image.getbands()) != how.channels:
        image = image.convert("RGB" if how.channels == 3 else "L")
    if how.crop is not None:
        if how.crop > min(image.size):
            raise InputError(
                f"{path}: {image.width} x {image.height} pixels, of which data.crop={how.crop} cannot be cut "
                f"out; set it to {min(image.size)} or less, or remove the file."
            )
        image = _centre(image, how.crop, how.crop)
    scale = how.size / min(image.size)
    if scale != 1:
        width, height = (max(how.size, int(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(_centre(image, how.size, how.size)).reshape(how.size, how.size, how.channels)
    pixels = pixels.transpose(2, 0, 1)
    return 255 - pixels if how.invert else pixels


def cached_images(paths: Sequence[str], root: Path, how: Decoding, cache: str | Path | None) -> Tensor:
    """All pictures as uint8 [N, C, S, S]; decoded now, under a lock, if that has not been done before.

    Args:
        root: the pictures' names relative to it, their sizes and times of change are the cache's key.
        cache: folder of the cache; None is `root/.lit_gen_cache`, or the user's cache folder if that is not
            writable.

    Raises:
        InputError: files that cannot be used, all of them.
    """
    if not paths:
        return torch.empty(0, how.channels, how.size, how.size, dtype=torch.uint8)
    name = f"{_key(paths, root, how)}.npy"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folders = [root / ".lit_gen_cache", home / "lit_gen"] if cache is None else [Path(cache)]
    file = next((folder / name for folder in folders if _is_whole(folder / name)), None)
    if file is None:
        file = _first_writable(folders) / name
        with FileLock(f"{file}.lock"):
            if not _is_whole(file):
                if file.exists():
                    log.warning("%s: the cache is damaged, or of an older version; made again", file)
                log.info("decoding %d pictures of %s into %s", len(paths), root, file)
                _write(paths, how, file)
    # Copy-on-write: torch takes read-only arrays with a warning, and nothing ever reaches the file.
    return torch.from_numpy(np.load(file, mmap_mode="c" if file.stat().st_size > _IN_MEMORY else None))


def _write(paths: Sequence[str], how: Decoding, target: Path) -> None:
    shape = (len(paths), how.channels, how.size, how.size)
    with replaced(target) as aside:
        array = np.lib.format.open_memmap(aside, mode="w+", dtype=np.uint8, shape=shape)
        for place, pixels in enumerate(read_all(paths, how.background, partial(fitted, how=how))):
            if pixels is not None:
                array[place] = pixels
        array.flush()
        checksum = _checksum(aside, aside.stat().st_size)
        with aside.open("ab") as file:
            file.write(checksum)


def _is_whole(file: Path) -> bool:
    """Whether a cache is there and as it was written: four bytes behind the array are its CRC-32."""
    try:
        facts = file.stat()
    except OSError:
        return False
    return _has_its_checksum(file, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=64)  # a run asks several times
def _has_its_checksum(file: Path, size: int, changed: int) -> bool:
    with file.open("rb") as content:
        content.seek(max(0, size - 4))
        return size > 4 and content.read() == _checksum(file, size - 4)


def _checksum(file: Path, size: int) -> bytes:
    """Of the first bytes of a file."""
    value = 0
    with file.open("rb") as content:
        while size > 0 and (block := content.read(min(size, _BLOCK))):
            value, size = zlib.crc32(block, value), size - len(block)
    return value.to_bytes(4, "little")


def _key(paths: Sequence[str], root: Path, how: Decoding) -> str:
    gone, digest = [], hashlib.sha256(f"{DECODER} {how}".encode())
    for path in paths:
        try:
            facts = os.stat(path)
        except OSError:
            # A broken link is named by the reader, with all else that is damaged.
            gone += [path] * (not os.path.islink(path))
            continue
        name = path.removeprefix(f"{root}{os.sep}")
        digest.update(f"{name}\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode(errors="surrogateescape"))
    if gone:
        raise InputError(f"{some_of(gone, ', ')}: no such file. Put it there, or set data.root.")
    return digest.hexdigest()[:24]


def _first_writable(folders: Sequence[Path]) -> Path:
    for folder in folders[:-1]:
        with contextlib.suppress(InputError):
            return writable_folder("data.cache", folder)
    return writable_folder("data.cache", folders[-1])


def _centre(picture: Image.Image, width: int, height: int) -> Image.Image:
    left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
    return picture.crop((left, top, left + width, top + height))
