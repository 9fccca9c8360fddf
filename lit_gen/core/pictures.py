"""Picture files: which files of a folder are pictures, and what the pixels of one are. The only reader."""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

from lit_gen.core.types import InputError

log = logging.getLogger(__name__)

DECODER = 2
"""Changes when the pixels of any file do; part of the key of decoded copies."""
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")

_BLOCK = 8  # pictures decoded at a time by one thread
_BLOCKS_AHEAD = min(16, 2 * (os.cpu_count() or 1))  # decoded before they are asked for; photos are large
_KEPT = 2**29  # bytes of decoded pictures that wait in memory until all are known to be good
_MOST_NAMED = 8
_GREY = ("1", "L", "LA", "La")
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_FRAMES = "have more than one frame, of which the first is read"
_DARK = "use less than 1/256 of the range of their many-bit levels and are black"


class Found(NamedTuple):
    """What a folder holds."""

    paths: list[str]  # of its pictures, sorted
    skipped: Counter[str]  # endings of its other files, and how many have them


class Picture(NamedTuple):
    """What is read of a file."""

    path: str
    image: Image.Image  # upright, mode L or RGB
    is_palette: bool  # its mode is that of its colours, and it may as well be taken as RGB
    notes: tuple[str, ...]  # what somebody should know


Fit = Callable[[Picture], np.ndarray]


def pictures_in(folder: str | Path) -> Found:
    """The pictures in a folder and all folders in it, by their endings. Hidden ones are not looked at.

    Links are followed, but every folder is read once, where it is rather than where it is linked to, and none
    that holds `folder`.

    Raises:
        InputError: a folder cannot be read.
    """
    paths, skipped = [], Counter()
    seen = {_identity(parent) for parent in Path(os.path.realpath(folder)).parents}
    waiting = [str(folder)]
    for start in waiting:  # which grows by the links that are met
        # os.walk, since a Path for each file takes ten times as long.
        for parent, folders, names in os.walk(start, onerror=_refuse):
            identity = _identity(parent)
            folders[:] = [] if identity in seen else sorted(n for n in folders if n[0] != ".")
            if identity in seen:
                continue
            seen.add(identity)
            inner = (f"{parent}{os.sep}{name}" for name in folders)
            waiting += [path for path in inner if os.path.islink(path)]  # os.walk does not follow them
            for name in names:
                if is_picture(name):
                    paths.append(f"{parent}{os.sep}{name}")
                elif name[0] != ".":
                    skipped[os.path.splitext(name)[1].lower() or "no ending"] += 1
    return Found(sorted(paths), skipped)


def is_picture(name: str) -> bool:
    """By the name of a file; what is in it shows when it is read."""
    return name[0] != "." and name.lower().endswith(ENDINGS)


def mention_skipped(folder: str | Path, skipped: Counter[str]) -> None:
    """One line about files that are no pictures, if there are any."""
    if skipped:
        listed = ", ".join(f"{ending} ({count})" for ending, count in skipped.most_common())
        log.warning("%s: files of other kinds than %s are left out: %s", folder, " ".join(ENDINGS), listed)


def colour(text: str) -> tuple[int, int, int]:
    """Levels of a colour by its name (white) or number (#ff8800).

    Raises:
        InputError: there is no such colour.
    """
    try:
        return ImageColor.getrgb(text)[:3]
    except (ValueError, AttributeError):
        raise InputError(f"background={text}: no colour; give a name (black) or a number (#ff8800)") from None


def read_picture(path: str | Path, background: str = "black") -> Picture:
    """The first frame, turned upright as its EXIF data says, on a background where it is transparent.

    Levels of 16 bits and more are scaled by their range. Palettes are grey if all their colours are, four
    inks become RGB.

    Args:
        background: a colour; of grey pictures, its luminance.

    Raises:
        InputError: the file cannot be read; names it.
    """
    notes = []
    try:
        with Image.open(path) as picture:
            notes += [_FRAMES] * (getattr(picture, "n_frames", 1) > 1)
            picture.load()
        bits = _bits(picture)
        ImageOps.exif_transpose(picture, in_place=True)
        if picture.mode == "F":
            raise ValueError("levels that are no integers have no range; save it with 8 or 16 bits")
        if picture.mode.startswith("I"):
            levels = np.asarray(picture).astype(np.int64)
            picture = _eight_bits(levels, bits)
            notes += [_DARK] * (levels.any() and not np.asarray(picture).any())
        is_palette = picture.mode in ("P", "PA")
        has_alpha = picture.mode in _ALPHA or "transparency" in picture.info
        is_grey = picture.mode in _GREY
        if is_palette:
            picture = picture.convert("RGBA" if has_alpha else "RGB")
            red, green, blue = (band.tobytes() for band in picture.split()[:3])
            is_grey = red == green == blue
        mode = "L" if is_grey else "RGB"
        if has_alpha:
            picture = picture.convert("LA" if is_grey else "RGBA")
            canvas = Image.new("RGB", picture.size, colour(background)).convert(mode)
            canvas.paste(picture.convert(mode), mask=picture.getchannel("A"))
            picture = canvas
        return Picture(str(path), _in_mode(picture, mode), is_palette, tuple(notes))
    except UnidentifiedImageError:
        raise InputError(f"{path}: no readable picture. Replace or remove the file.") from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, or a broken link. Put it there again.") from None
    # PIL's readers raise whatever the damage makes them stumble over.
    except Exception as error:
        why = str(error) or type(error).__name__
        raise InputError(f"{path}: no readable picture ({why}). Replace or remove the file.") from None


def shape_of(path: str | Path) -> tuple[int, int] | None:
    """The shorter side and the number of channels, by a file's first bytes; None: they cannot be read."""
    try:
        with Image.open(path) as picture:
            return min(picture.size), 1 if picture.mode in _GREY or picture.mode[0] in "IF" else 3
    except (OSError, ValueError, Image.DecompressionBombError):  # said when the whole file is read
        return None


def read_all(
    paths: Sequence[str], background: str, fit: Fit, says_notes: bool = True
) -> Iterator[np.ndarray | None]:
    """Pictures one after the other; None for each that cannot be used, and at the end an InputError for them.

    Args:
        fit: what a picture becomes; InputError if it cannot be used.
    """
    complaints, notes = [], defaultdict(list)

    def attempt(block: Sequence[str]) -> list[tuple[np.ndarray | None, str, tuple[str, ...]]]:
        done = []
        for path in block:
            try:
                picture = read_picture(path, background)
                done.append((fit(picture), path, picture.notes))
            except InputError as error:
                done.append((None, str(error), ()))
        return done

    # Threads, since PIL decodes without the interpreter's lock; in blocks, since it needs it in between.
    with ThreadPoolExecutor() as pool:
        blocks = (paths[first : first + _BLOCK] for first in range(0, len(paths), _BLOCK))
        ahead = deque(pool.submit(attempt, block) for block in islice(blocks, _BLOCKS_AHEAD))
        while ahead:
            done = ahead.popleft().result()
            ahead.extend(pool.submit(attempt, block) for block in islice(blocks, 1))
            for pixels, text, found in done:
                complaints += [text] * (pixels is None)
                for note in found:
                    notes[note].append(text)
                yield pixels
    for note, files in notes.items() if says_notes else ():
        log.warning("%d picture(s) %s: %s", len(files), note, some_of(files, ", "))
    if len(complaints) == 1:
        raise InputError(complaints[0])
    if complaints:
        listed = some_of(complaints, "\n")
        raise InputError(f"{len(complaints)} files cannot be used:\n{listed}")


def read_good(paths: Sequence[str], background: str, fit: Fit) -> Iterator[np.ndarray]:
    """As `read_all`, but it raises at once, before the first one is given out."""
    kept, size = [], 0
    for pixels in read_all(paths, background, fit):
        size += 0 if pixels is None else pixels.nbytes
        if size <= _KEPT:
            kept.append(pixels)
    return chain(kept, read_all(paths[len(kept) :], background, fit, says_notes=False))


def some_of(texts: Sequence[str], between: str) -> str:
    """The first few, and how many more there are."""
    more = len(texts) - _MOST_NAMED
    return between.join([*texts[:_MOST_NAMED], *([f"... and {more} more"] if more > 0 else [])])


def _in_mode(picture: Image.Image, mode: str) -> Image.Image:
    return picture if picture.mode == mode else picture.convert(mode)  # which copies in any case


def _bits(picture: Image.Image) -> int:
    """How many bits the levels have that PIL gives as I;16 or I; a sign is none."""
    tags = getattr(picture, "tag_v2", None)  # of TIFF
    if tags is None:
        return 16  # PIL scales PGM to these, and says I instead of I;16 of some PNG
    return tags.get(258, (16,))[0] - (tags.get(339, (1,))[0] == 2)  # bits per sample, kind of number


def _eight_bits(levels: np.ndarray, bits: int) -> Image.Image:
    """The eight highest bits: exact for those that were eight bits once, times 256 or times 257."""
    if bits == 32:
        levels = levels & 0xFFFFFFFF  # PIL has no unsigned 32 bits
    if levels.min() < 0:
        raise ValueError("levels below 0 have no place between black and white")
    return Image.fromarray((levels >> (bits - 8)).clip(0, 255).astype(np.uint8))


def _identity(folder: str | Path) -> tuple[int, int]:
    facts = os.stat(folder)
    return facts.st_dev, facts.st_ino


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: the folder cannot be read ({error.strerror})") from error
