"""The one way in which files are written: aside, then renamed; a reader sees the old one or the new one.

And the check of an archive that is read back.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lit_gen.core.types import InputError


@contextmanager
def replaced(file: Path) -> Iterator[Path]:
    """A path beside `file`, with the same ending, that takes its place when the block ends well.

    The folder is made if it is not there. When the block raises, what it wrote is removed and `file` stays as
    it was.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.stem}.{os.getpid()}{file.suffix}")
    try:
        yield aside
        os.replace(aside, file)
    finally:
        aside.unlink(missing_ok=True)


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
