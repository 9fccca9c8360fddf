"""The one way in which files are written: aside, then renamed; a reader sees the old one or the new one.

And the check of an archive that is read back.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lit_gen.core.types import InputError

_OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


class CannotWrite(OSError):
    """The disk takes no more: it is full, a quota is reached, it is read-only or broken. In one line."""


def disk_failure(error: BaseException) -> str | None:
    """What to say where a disk took no more; None for everything else."""
    if isinstance(error, CannotWrite):
        return str(error)
    # NumPy gives no number.
    if isinstance(error, OSError) and (error.errno in _OF_DISK or "requested and" in str(error)):
        return f"{error.filename or 'a file'}: cannot be written ({error.strerror or error})"
    return None


@contextmanager
def whole(file: Path, name: Path | None = None) -> Iterator[None]:
    """A block that writes a new file; where it raises, none is left.

    Args:
        name: that the file will get; what has it now tells how large the new one will be.

    Raises:
        CannotWrite: the disk took no more.
    """
    try:
        yield
    except BaseException as error:
        file.unlink(missing_ok=True)
        if (said := disk_failure(error)) is None or isinstance(error, CannotWrite):
            raise
        free = f"{shutil.disk_usage(file.parent).free / 1e6:,.1f} MB are free"
        known = name is not None and name.exists()
        needed = f"about {name.stat().st_size / 1e6:,.1f} MB are needed, " if known else ""
        raise CannotWrite(f"{name or file}{said[said.index(': cannot') :]}; {needed}{free}") from error


@contextmanager
def replaced(file: Path) -> Iterator[Path]:
    """A path beside `file`, with the same ending, that takes its place when the block ends well.

    The folder is made if it is not there. When the block raises, what it wrote is removed and `file` stays as
    it was.

    Raises:
        CannotWrite: the disk took no more.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.stem}.{os.getpid()}{file.suffix}")
    with whole(aside, file):
        yield aside
        os.replace(aside, file)


def remove_unfinished(folder: Path) -> None:
    """Removes what killed processes were writing by `replaced`; nobody else may be writing there."""
    for file in folder.rglob(".*"):
        if file.is_file() and re.fullmatch(r"\..+\.\d+\.\w+", file.name):
            file.unlink()


def name_too(file: Path, name: Path) -> None:
    """Gives a file a second name, by a copy where the file system has no links."""
    with replaced(name) as aside:
        try:
            os.link(file, aside)
        except OSError:
            shutil.copyfile(file, aside)


def write_text(file: Path, text: str) -> Path:
    """UTF-8, line ends as they are."""
    with replaced(file) as aside:
        aside.write_text(text, encoding="utf-8", newline="")
    return file


def write_json(file: Path, values: Any) -> Path:
    """Numbers that are none become null, since JSON has none of them; what it does not know becomes text."""
    return write_text(file, json.dumps(plain(values), indent=1) + "\n")


def check_archive(file: Path) -> None:
    """Compares every part of a zip archive, which `torch.save` writes, with the CRC-32 that it holds.

    Raises:
        BadZipFile: names the part that is damaged. For damage to the archive's own tables zipfile raises many
            another exception.
    """
    with zipfile.ZipFile(file) as archive:
        if (part := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"the checksum of {part} is wrong")


def is_whole(archive: Path) -> bool:
    """Whether every part of a zip archive is as it was written."""
    try:
        check_archive(archive)
    except Exception:  # whatever the damage makes zipfile stumble over
        return False
    return True


def writable_folder(key: str, folder: Path) -> Path:
    """The folder, made if it was not there.

    Args:
        key: that the user gave it with, for the message.

    Raises:
        InputError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"{key}={folder}: cannot be written ({error.strerror or error}); choose another {key}"
        ) from error
    return folder


def writable_file(key: str, file: Path) -> Path:
    """A file that can be written, in a folder that is there.

    Args:
        key: that the user gave it with, for the message.

    Raises:
        InputError: it cannot.
    """
    if not file.parent.is_dir():
        raise InputError(f"{key}={file}: the folder {file.parent} does not exist; make it first")
    if file.is_dir():
        raise InputError(f"{key}={file}: is a folder; give the name of a file in it")
    writable_folder(key, file.parent)
    return file


def new_or_empty(
    key: str, folder: Path, own: Callable[[Path], bool] = lambda path: False, way_out: str = ""
) -> None:
    """Raises InputError where a folder holds something that is not hidden, so that nothing is mixed or lost.

    Args:
        own: of what is there, what may be: it is the verb's own and will be replaced.
        way_out: another one, for the message.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{key}={folder}: is a file; give the name of a folder")
    there = folder.iterdir() if folder.is_dir() else ()
    others = sorted(path.name for path in there if not path.name.startswith(".") and not own(path))
    if others:
        names = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise InputError(
            f"{key}={folder}: is not empty (it holds {names}); give a new or an empty folder, or remove "
            f"it{way_out}"
        )


def plain(values: Any) -> Any:
    """Dictionaries, lists, texts and finite numbers only."""
    if isinstance(values, Mapping):
        return {str(key): plain(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [plain(value) for value in values]
    if isinstance(values, float) and not math.isfinite(values):
        return None
    return values if isinstance(values, str | int | float | bool | None) else str(values)
