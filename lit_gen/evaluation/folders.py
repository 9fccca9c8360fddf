"""Two sets of images, wherever they come from, compared with the same metrics as in training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from lit_gen.core.pictures import ENDINGS, Picture, colour, mention_skipped, pictures_in, read_good
from lit_gen.core.types import InputError, together
from lit_gen.evaluation.board import Row
from lit_gen.metrics.base import FeatureMetric
from lit_gen.metrics.features import FeatureExtractor


def compare_folders(
    real: Path,
    fake: Path,
    extractor: FeatureExtractor,
    metrics: Sequence[FeatureMetric],
    batch_size: int,
    seed: int,
    background: str = "black",
) -> list[Row]:
    """Scores of the images in `fake` against those in `real`; all are looked at before the first is scored.

    Args:
        background: the colour behind what is transparent.

    Raises:
        InputError: a path is missing, holds no images, or some that cannot be read: names them.
    """
    colour(background)
    places, sides = (("real", real), ("fake", fake)), {}
    opened = together(*(partial(batches, *place, batch_size, background) for place in places))
    for (name, _), images in zip(places, opened, strict=True):
        features, logits = zip(*map(extractor, images), strict=True)
        sides[name] = torch.cat(features), None if logits[0] is None else torch.cat(logits)
    counts, values = [len(features) for features, _ in sides.values()], {}
    for metric in metrics:
        metric.reset()
        for name, (features, logits) in sides.items():
            metric.update(features, name == "real", torch.arange(len(features)), logits)
        values |= metric.compute()
    about = (extractor.name, extractor.weights_hash, "given", *counts, seed)
    return [Row(None, name, float(value), *about) for name, value in values.items()]


def batches(name: str, path: Path, batch_size: int, background: str = "black") -> Iterator[Tensor]:
    """uint8 [B, C, H, W] of a folder or an archive; a batch holds images of one size, so that no image is
    scaled twice.

    Args:
        name: the key that the path was given with, for messages.
        background: the colour behind what is transparent.

    Raises:
        InputError: at once: there is nothing there, or something that cannot be read.
    """
    if path.suffix == ".npz":
        return _batched(_archive(name, path), batch_size)
    files = [*map(str, image_files(name, path, " or an .npz archive"))]
    return _batched(map(torch.from_numpy, read_good(files, background, _whole)), batch_size)


def image_files(name: str, folder: Path, otherwise: str = "") -> list[Path]:
    """The image files in a folder and all folders in it, in the order in which `batches` reads them.

    Args:
        name: the key that the folder was given with, for messages.
        otherwise: what else could be given.

    Raises:
        InputError: there is no folder, or no image in it.
    """
    if not folder.is_dir():
        raise InputError(f"{name}={folder}: there is no such folder; give one of images{otherwise}")
    paths, skipped = pictures_in(folder)
    mention_skipped(folder, skipped)
    if not paths:
        raise InputError(f"{name}={folder}: holds no images ({', '.join(ENDINGS)})")
    return [*map(Path, paths)]


@contextmanager
def filled_folder(name: str, out: Path) -> Iterator[Path]:
    """A folder whose files move to `out` when all went well; InputError where that cannot be written."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{out.name}.", suffix=".partial", dir=out.parent) as draft:
            yield Path(draft)
            for file in sorted(file for file in Path(draft).rglob("*") if file.is_file()):
                place = out / file.relative_to(draft)
                place.parent.mkdir(parents=True, exist_ok=True)
                file.replace(place)
    except OSError as error:
        raise InputError(f"{name}={out}: cannot be written ({error.strerror or error})") from error


def _batched(images: Iterable[Tensor], batch_size: int) -> Iterator[Tensor]:
    waiting: list[Tensor] = []
    for image in images:
        if waiting and (len(waiting) == batch_size or image.shape != waiting[0].shape):
            yield torch.stack(waiting)
            waiting = []
        waiting.append(image)
    yield torch.stack(waiting)


def _archive(name: str, path: Path) -> Tensor:
    if not path.is_file():
        raise InputError(f"{name}={path}: there is no such file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            key = "image" if "image" in archive.files else archive.files[0]
            images = archive[key]
    except Exception as error:  # zipfile, numpy and zlib each raise their own kinds for a damaged archive
        raise InputError(f"{name}={path}: cannot be read as an .npz archive ({error})") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or len(images) == 0:
        found = f"{images.dtype} {list(images.shape)}"
        if images.dtype.kind == "f" and (share := 1 - np.isfinite(images).mean()):
            found += f", {share:.1%} of it no finite numbers"
        raise InputError(
            f"{name}={path}: {key!r} is {found}; expected levels from 0 to 255 as uint8 [N, H, W, 1 or 3]"
        )
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def _whole(picture: Picture) -> np.ndarray:
    """uint8 [C, H, W], C = 1 or 3."""
    pixels = np.array(picture.image)
    return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)
