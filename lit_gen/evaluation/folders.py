"""Two sets of images, wherever they come from, compared with the same metrics as in training."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from lit_gen.core.processes import ImageBar, gathered, wrong_for_all
from lit_gen.core.random import processes
from lit_gen.core.types import InputError, together
from lit_gen.evaluation.board import Row
from lit_gen.evaluation.feature_file import FeatureFile, Seen
from lit_gen.evaluation.image_sets import ImageSet, image_set
from lit_gen.evaluation.statistics import Statistics, holds_statistics, read_statistics
from lit_gen.metrics.base import FeatureMetric
from lit_gen.metrics.features import FeatureExtractor

log = logging.getLogger(__name__)


def compare_folders(
    real: Path,
    fake: Path,
    extractor: FeatureExtractor,
    metrics: Sequence[FeatureMetric],
    batch_size: int,
    seed: int,
    background: str = "black",
    device: torch.device | str = "cpu",
    features: Path | None = None,
) -> list[Row]:
    """Scores of the images in `fake` against those in `real`, the same on every process and for any number of
    them; collective. Images are held a batch at a time, features where a metric or `features` needs them.

    Args:
        real: may be a file of statistics, of which metrics are given that need no more.
        background: the colour behind what is transparent.
        device: of this process.
        features: a file that keeps them. A side of it whose images have changed is computed again.

    Raises:
        InputError: a path is missing, holds no images, or some that cannot be read: names them.
    """
    extractor.to(device)
    for metric in metrics:
        # MPS has no float64.
        metric.to("cpu" if torch.device(device).type == "mps" else device).reset()
    weights_hash = extractor.weights_hash
    with wrong_for_all():
        kept = None if features is None else FeatureFile(features, extractor)
        is_given = holds_statistics(real)
        images_of = partial(image_set, background=background)
        of_real = partial(read_statistics, extractor=extractor) if is_given else images_of
        given, images = together(partial(of_real, "real", real), partial(images_of, "fake", fake))
        if is_given:
            metrics = _from_statistics(metrics, given, real)
            weights_hash += "" if given.weights_hash == weights_hash else f" / {given.weights_hash}"
    sides = {"fake": images} if is_given else {"real": given, "fake": images}
    _show(sides, extractor, metrics, batch_size, device, kept)
    values: dict[str, Tensor] = {}
    for metric in metrics:
        values |= metric.compute()
    about = (extractor.name, weights_hash, "given", given.total, images.total, seed)
    return [Row(None, name, float(value), *about) for name, value in values.items()]


def seen_by(
    extractor: FeatureExtractor, images: ImageSet, batch_size: int, device: torch.device | str
) -> Iterator[Seen]:
    """This process's batches of a set, as an extractor on `device` sees them."""
    world, rank = processes()
    for places, image in images.batches(batch_size, rank, world):
        yield Seen(places, *extractor(image.to(device)))


def _from_statistics(metrics: Sequence[FeatureMetric], given: Statistics, real: Path) -> list[FeatureMetric]:
    """Those of the metrics that statistics of the real images are enough for."""
    enough, others = [], []
    for metric in metrics:
        if metric.take_statistics(given.mean, given.covariance, given.total):
            enough.append(metric)
        else:
            others += metric.names
    if not enough:
        raise InputError(
            f"real={real}: statistics are enough for no metric asked for ({', '.join(others)}), which need "
            "features of every image; give a folder of images, or ask for FrechetDistance"
        )
    if others:
        log.warning(
            "real=%s: statistics hold no features, so these are not given: %s", real, ", ".join(others)
        )
    return enough


def _show(
    sides: Mapping[str, ImageSet],
    extractor: FeatureExtractor,
    metrics: Sequence[FeatureMetric],
    batch_size: int,
    device: torch.device | str,
    kept: FeatureFile | None,
) -> None:
    """Shows this process's images of both sides to every metric, and keeps the features of what was not kept
    yet."""
    world, rank = processes()
    digests = {side: images.digest() for side, images in sides.items()} if kept else {}
    held: dict[str, list[Seen]] = {side: [] for side, digest in digests.items() if not kept.has(side, digest)}
    for side in held.keys() & kept.header.keys() if kept else ():
        log.warning(
            "features=%s: is of other images than %s=%s now has; theirs are computed and take the place",
            *(kept.path, side, sides[side].path),
        )
    with wrong_for_all(), ImageBar("features", sum(images.total for images in sides.values())) as bar:
        for side, images in sides.items():
            if kept and side not in held:
                batches = kept.batches(side, batch_size, rank, world)
            else:
                batches = seen_by(extractor, images, batch_size, device)
            for seen in batches:
                for metric in metrics:
                    metric.update(seen.features, side == "real", seen.places, seen.logits)
                bar.count(len(seen.places))
                if side in held:
                    held[side].append(seen)
    if held:
        found = {side: (digests[side], _in_order(seen, extractor, device)) for side, seen in held.items()}
        if rank == 0:
            kept.write(found)


def _in_order(batches: Sequence[Seen], extractor: FeatureExtractor, device: torch.device | str) -> Seen:
    """All images of all processes, by their places, on the CPU; collective."""
    none = Seen(
        torch.empty(0, dtype=torch.long),
        torch.empty(0, extractor.num_features, device=device),
        torch.empty(0, extractor.num_logits, device=device) if extractor.num_logits else None,
    )
    places, features, logits = zip(none, *batches, strict=True)
    order = gathered(torch.cat(places).to(device)).argsort()
    rows = [
        None if part[0] is None else gathered(torch.cat(part))[order].cpu() for part in (features, logits)
    ]
    return Seen(order, *rows)


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
