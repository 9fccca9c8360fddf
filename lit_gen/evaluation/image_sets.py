"""Images of a folder or of archives, read as they are asked for, block by block."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import zipfile
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_gen.core.pictures import ENDINGS, Picture, colour, mention_skipped, pictures_in, read_all
from lit_gen.core.types import InputError

log = logging.getLogger(__name__)

ABOUT = "samples.json"
"""In a folder that `lit-gen sample` has filled: what its images depend on."""

Read = Callable[[Sequence[int]], Iterator[np.ndarray | None]]


@dataclass(frozen=True)
class ImageSet:
    """Images in an order of their own.

    Attributes:
        path, background: that were given.
        files: all that they are read from.
        total: how many there are.
        read: those at ascending places, uint8 [C, H, W], C = 1 or 3; None for what cannot be used, of which
            an InputError says all at the end.
    """

    path: Path
    background: str
    files: Sequence[Path]
    total: int
    read: Read

    def batches(self, size: int, rank: int = 0, world: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """Places int64 [B] and images uint8 [B, C, H, W] of every `world`-th block of `size` images.

        A batch holds images of one block and of one shape: no image is scaled twice, and batches are the same
        for any number of processes.
        """
        blocks = range(rank, -(-self.total // size), world)
        places = [place for k in blocks for place in range(k * size, min((k + 1) * size, self.total))]
        waiting: list[tuple[int, Tensor]] = []
        # strict, so that the end of what is read is reached, where it says what could not be.
        for place, pixels in zip(places, self.read(places), strict=True):
            if pixels is None:
                continue
            first, like = waiting[0] if waiting else (place, torch.from_numpy(pixels))
            if first // size != place // size or like.shape != pixels.shape:
                yield _stacked(waiting)
                waiting = []
            waiting.append((place, torch.from_numpy(pixels)))
        if waiting:
            yield _stacked(waiting)

    def digest(self) -> str:
        """Changes when a file is another one, by its name in the folder, its size and its time."""
        facts = [(file.relative_to(self.path).as_posix(), file.stat()) for file in self.files]
        listed = [(name, fact.st_size, fact.st_mtime_ns) for name, fact in facts]
        return hashlib.sha256(json.dumps([listed, self.background]).encode()).hexdigest()


def image_set(key: str, path: Path, background: str = "black") -> ImageSet:
    """The images of an .npz archive, of a folder of pictures, or of a folder of archives.

    Args:
        key: that the path was given with, for messages.
        background: the colour behind what is transparent.

    Raises:
        InputError: there is nothing there, or an archive of something else.
    """
    colour(background)
    archives = [path] if path.suffix == ".npz" else sorted(path.glob("[!.]*.npz"))
    if archives and (path.suffix == ".npz" or not pictures_in(path).paths):
        opened = [_opened(key, archive) for archive in archives]
        total = sum(archive.count for archive in opened)
        found = ImageSet(path, background, archives, total, partial(_read_archives, opened))
    else:
        files = image_files(key, path, " or an .npz archive")
        found = ImageSet(path, background, files, len(files), partial(_read_pictures, files, background))
    _mention_missing(key, found)
    return found


def batches(key: str, path: Path, batch_size: int, background: str = "black") -> Iterator[Tensor]:
    """All images, uint8 [B, C, H, W], as the batches of `image_set`."""
    return (image for _, image in image_set(key, path, background).batches(batch_size))


def image_files(key: str, folder: Path, otherwise: str = "") -> list[Path]:
    """The image files in a folder and all folders in it, in the order in which `batches` reads them.

    Args:
        key: that the folder was given with, for messages.
        otherwise: what else could be given.

    Raises:
        InputError: there is no folder, or no image in it.
    """
    if not folder.is_dir():
        raise InputError(f"{key}={folder}: there is no such folder; give one of images{otherwise}")
    paths, skipped = pictures_in(folder)
    skipped[".json"] -= (folder / ABOUT).is_file()
    mention_skipped(folder, +skipped)
    if not paths:
        raise InputError(f"{key}={folder}: holds no images ({', '.join(ENDINGS)})")
    return [*map(Path, paths)]


def _mention_missing(key: str, found: ImageSet) -> None:
    """One line where `lit-gen sample` has not come to its end."""
    with suppress(OSError, ValueError, LookupError, TypeError):  # a file of this name may be somebody else's
        asked = json.loads((found.path / ABOUT).read_text(encoding="utf-8"))["n"]
        if asked > found.total:
            path, total = found.path, found.total
            log.warning("%s=%s: holds %d of %d images; lit-gen sample goes on there", key, path, total, asked)


def _stacked(waiting: list[tuple[int, Tensor]]) -> tuple[Tensor, Tensor]:
    places, images = zip(*waiting, strict=True)
    return torch.tensor(places), torch.stack(images)


def _read_pictures(
    files: Sequence[Path], background: str, places: Sequence[int]
) -> Iterator[np.ndarray | None]:
    return read_all([str(files[place]) for place in places], background, _whole)


def _whole(picture: Picture) -> np.ndarray:
    pixels = np.array(picture.image)
    return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)


class _Archive(NamedTuple):
    """An .npz file and the array of it that holds images, uint8 [count, *shape]."""

    key: str
    file: Path
    member: str
    count: int
    shape: tuple[int, int, int]  # H, W, C


@contextmanager
def _readable(key: str, file: Path) -> Iterator[None]:
    if not file.is_file():
        raise InputError(f"{key}={file}: there is no such file")
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # zipfile, numpy and zlib each raise their own kinds for a damaged archive
        raise InputError(f"{key}={file}: cannot be read as an .npz archive ({error})") from error


def _opened(key: str, file: Path) -> _Archive:
    with _readable(key, file), zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        member = "image.npy" if "image.npy" in names else names[0]
        with archive.open(member) as stream:
            shape, by_column, dtype = _header(stream)
    if dtype != np.uint8 or by_column or len(shape) != 4 or shape[3] not in (1, 3) or shape[0] == 0:
        found = f"{dtype} {list(shape)}" + " by columns" * by_column
        if dtype.kind == "f":
            with _readable(key, file), np.load(file, allow_pickle=False) as archive:
                share = 1 - np.isfinite(archive[member.removesuffix(".npy")]).mean()
            found += f", {share:.1%} of it no finite numbers" * bool(share > 0)
        raise InputError(
            f"{key}={file}: {member.removesuffix('.npy')!r} is {found}; expected levels from 0 to 255 as "
            "uint8 [N, H, W, 1 or 3]"
        )
    return _Archive(key, file, member, shape[0], shape[1:])


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and kind of an array, of which the stream stands at the first value then."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)


def _read_archives(archives: Sequence[_Archive], places: Sequence[int]) -> Iterator[np.ndarray]:
    first = 0
    for archive in archives:
        mine = places[bisect_left(places, first) : bisect_left(places, first + archive.count)]
        if mine:
            yield from _read_archive(archive, [place - first for place in mine])
        first += archive.count


def _read_archive(archive: _Archive, places: Sequence[int]) -> Iterator[np.ndarray]:
    """One image after the other: all of them may be more than memory holds."""
    with (
        _readable(archive.key, archive.file),
        zipfile.ZipFile(archive.file) as opened,
        opened.open(archive.member) as stream,
    ):
        _header(stream)
        begin, size = stream.tell(), math.prod(archive.shape)
        for place in places:
            stream.seek(begin + place * size)
            pixels = stream.read(size)
            if len(pixels) < size:
                raise EOFError(f"it ends before image {place}")
            yield np.frombuffer(bytearray(pixels), np.uint8).reshape(archive.shape).transpose(2, 0, 1)
