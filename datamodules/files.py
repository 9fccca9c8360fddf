"""Finding data files, fetching those that are missing, and readers that check what they read."""

import gzip
import logging
import math
import socket
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad
from torchvision.transforms.functional import center_crop

from datamodules.base import ImageDataModule
from lit_gen.core.memory import refuse_beyond_memory
from lit_gen.core.types import InputError

log = logging.getLogger(__name__)

_PATIENCE = 20.0  # seconds until a silent server counts as unreachable; urllib would wait for ever
_AT_ONCE = 4096  # images that are floats together
_IDX_UINT8 = 0x08  # third byte of the magic number: the type of the entries


@dataclass(eq=False, repr=False)
class FileImages(ImageDataModule):
    """Images in files that torchvision can fetch.

    Attributes:
        root: holds the folder of the data set.
        download: whether missing files are fetched.
    """

    loader = ""  # a class of torchvision.datasets

    root: str | Path
    download: bool = True

    @property
    def folder(self) -> Path:
        raise NotImplementedError

    def missing(self) -> list[str]:
        """Names of the files that are not there."""
        raise NotImplementedError

    def fetch(self) -> None:
        """Downloads the files."""
        import torchvision.datasets

        getattr(torchvision.datasets, self.loader)(str(self.root), download=True)

    def prepare_data(self) -> None:
        """Downloads once where files are missing. InputError that names them if that does not help."""
        names = ", ".join(self.missing())
        if not names:
            return
        reason = "data.download=false"
        if self.download:
            log.info("%s: %s not found in %s, downloading", self.loader, names, self.folder)
            patience = socket.getdefaulttimeout()
            socket.setdefaulttimeout(_PATIENCE)
            try:
                self.fetch()
                return
            # torchvision raises RuntimeError after the last mirror, urllib and socket subclasses of OSError;
            # some sets need a package that is not here.
            except (RuntimeError, OSError, ImportError) as error:
                reason = f"the download failed ({str(error).strip() or type(error).__name__})"
            finally:
                socket.setdefaulttimeout(patience)
        raise InputError(
            f"{self.loader}: {names} not found and {reason}. Put the file(s) into {self.folder.resolve()}, "
            f"or set data.root (now {self.root}) or LIT_GEN_DATA to the folder that holds "
            f"{self.folder.relative_to(self.root)}."
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
    data = contents(path)
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
    if not math.prod(shape):
        raise InputError(f"{path}: the file holds nothing ({' x '.join(map(str, shape))}).")
    return torch.frombuffer(bytearray(memoryview(data)[start:]), dtype=torch.uint8).view(shape)


def fitted(image: Tensor, size: int, crop: int | None = None) -> Tensor:
    """uint8 [N, C, S, S] -> [N, C, size, size]: black around smaller images, larger ones averaged over areas.

    Args:
        crop: side of a centre square that is cut out before, of at most S pixels.
    """
    side = image.shape[-1]
    if crop is not None:
        if crop > side:
            raise InputError(
                f"crop={crop}: the images have {side} pixels a side; set data.crop to at most that."
            )
        image, side = center_crop(image, crop), crop
    if size < side:
        parts = (interpolate(some.float(), size, mode="area") for some in image.split(_AT_ONCE))
        return torch.cat([part.round().to(torch.uint8) for part in parts])
    missing = size - side
    num_bytes = image.shape[0] * image.shape[1] * size**2
    refuse_beyond_memory(num_bytes, f"data.spec.size={size}: {len(image)} images of this size")
    return pad(image, (missing // 2, missing - missing // 2) * 2) if missing else image


def contents(path: Path) -> bytes:
    """Of a plain or gzipped file; InputError if it is missing or damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. Put it there, or set data.root.") from None
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: damaged or truncated gzip file ({error}). Get it again.") from None
