"""Finding data files, fetching those that are missing, and readers that check what they read."""

from __future__ import annotations

import gzip
import logging
import math
import os
import socket
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from lit_gen.core.types import InputError

log = logging.getLogger(__name__)

_PATIENCE = 20.0  # seconds until a silent server counts as unreachable; urllib would wait for ever
_IDX_UINT8 = 0x08  # third byte of the magic number: the type of the entries


def missing_files(folder: Path, names: Sequence[str]) -> list[str]:
    """Which of `names` is in `folder` neither plain nor with `.gz`."""
    return [name for name in names if not (folder / name).exists() and not (folder / f"{name}.gz").exists()]


def fetch(
    what: str, root: Path, folder: Path, missing: Sequence[str], download: Callable[[], object] | None
) -> None:
    """Downloads once where files are missing. InputError that names them and their folder if that does not
    help.

    Args:
        missing: the names of the files; nothing happens if there are none.
        download: a torchvision loader's constructor call; None if the user does not want it.
    """
    if not missing:
        return
    reason = "data.download=false"
    if download is not None:
        log.info("%s: %s not found in %s, downloading", what, ", ".join(missing), folder)
        patience = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_PATIENCE)
        try:
            download()
            return
        # torchvision raises RuntimeError after the last mirror, urllib and socket subclasses of OSError; some
        # sets need a package that is not here.
        except (RuntimeError, OSError, ImportError) as error:
            reason = f"the download failed ({str(error).strip() or type(error).__name__})"
        finally:
            socket.setdefaulttimeout(patience)
    raise InputError(
        f"{what}: {', '.join(missing)} not found and {reason}. Put the file(s) into {folder.resolve()}, or "
        f"set data.root (now {root}) or LIT_GEN_DATA to the folder that holds {folder.relative_to(root)}."
    )


def read_idx(folder: Path, name: str, dimensions: int) -> Tensor:
    """An IDX file of unsigned bytes, plain or gzipped.

    Args:
        name: without `.gz`; a plain file is preferred.
        dimensions: 3 for images, 1 for labels.

    Raises:
        InputError: the file is missing, truncated, or no such file; names it.
    """
    path = folder / name
    if not path.exists():
        path = folder / f"{name}.gz"
    data = _contents(path)
    magic = bytes([0, 0, _IDX_UINT8, dimensions])
    if data[:4] != magic:
        raise InputError(
            f"{path}: not an IDX file of unsigned bytes with {dimensions} dimension(s); its first bytes are "
            f"{data[:4].hex(' ')}, expected {magic.hex(' ')}. Get the file again."
        )
    start = 4 + 4 * dimensions
    shape = np.frombuffer(data[4:start].ljust(4 * dimensions, b"\0"), dtype=">u4").astype(int).tolist()
    if len(data) - start != math.prod(shape):
        raise InputError(
            f"{path}: the header promises {' x '.join(map(str, shape))} bytes and "
            f"{max(0, len(data) - start)} follow; the file is truncated or damaged. Get it again."
        )
    return torch.frombuffer(bytearray(memoryview(data)[start:]), dtype=torch.uint8).view(shape)


def labelled_alike(folder: Path, image: Tensor, label: Tensor) -> None:
    """InputError where images and labels do not belong together."""
    if len(image) != len(label):
        raise InputError(
            f"{folder}: {len(image)} images, but {len(label)} labels; the files do not belong together."
        )


def padded(image: Tensor, size: int) -> Tensor:
    """uint8 [N, C, S, S] -> [N, C, size, size] with black around it; smaller sizes are left to be refused."""
    missing = size - image.shape[-1]
    if missing <= 0:
        return image
    return pad(image, (missing // 2, missing - missing // 2) * 2)


def cache_home() -> Path:
    """Where a user's caches go by convention."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lit_gen"


def _contents(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file (nor without .gz). Put it there, or set data.root.") from None
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: damaged or truncated gzip file ({error}). Get it again.") from None
