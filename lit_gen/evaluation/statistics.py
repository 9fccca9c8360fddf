"""Mean and covariance of features in a file, as pytorch-fid, torch-fidelity and ADM's reference batches have
them: "mu" and "sigma".
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_gen.core.files import replaced
from lit_gen.core.types import InputError
from lit_gen.metrics.features import FeatureExtractor

UNKNOWN = "unknown"
_NOTES = ("extractor", "extractor_hash", "num_images")  # that only our own files have
_ROUNDING = 1e-5  # of the largest entry: what float32 leaves of a symmetric matrix


class Statistics(NamedTuple):
    """What is known of a set of images."""

    mean: Tensor  # float64 [D]
    covariance: Tensor  # float64 [D, D]
    total: int  # images; 0 is not known
    weights_hash: str  # of the extractor, or "unknown"


def holds_statistics(path: Path) -> bool:
    """Whether a file is an archive with one of the two; whatever else it is, its reader says."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return bool({"mu.npy", "sigma.npy"} & set(archive.namelist()))


def read_statistics(key: str, path: Path, extractor: FeatureExtractor) -> Statistics:
    """Runs no code of the file.

    Args:
        key: that the path was given with, for messages.
        extractor: which the statistics must be of.

    Raises:
        InputError: they cannot be read, are no mean and covariance, or of another extractor.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {name: archive[name] for name in ("mu", "sigma", *_NOTES) if name in archive.files}
    except Exception as error:  # zipfile, numpy and zlib each raise their own kinds for a damaged archive
        raise InputError(f"{key}={path}: cannot be read as an .npz archive of numbers ({error})") from error
    if missing := {"mu", "sigma"} - found.keys():
        raise InputError(
            f"{key}={path}: statistics without {missing.pop()!r}; both 'mu' [D] and 'sigma' [D, D] are needed"
        )
    mean, covariance = found["mu"], found["sigma"]
    size = extractor.num_features
    if wrong := _wrong(mean, covariance, size):
        raise InputError(f"{key}={path}: {wrong}")
    weights_hash = str(found.get("extractor_hash", UNKNOWN))
    if weights_hash not in (UNKNOWN, extractor.weights_hash):
        raise InputError(
            f"{key}={path}: statistics of {found.get('extractor', 'an extractor')} ({weights_hash}), and the "
            f"images would be seen by {extractor.name} ({extractor.weights_hash}); give the same extractor"
        )
    mean, covariance = (torch.from_numpy(np.asarray(each, np.float64)) for each in (mean, covariance))
    return Statistics(mean, (covariance + covariance.T) / 2, int(found.get("num_images", 0)), weights_hash)


def write_statistics(path: Path, statistics: Statistics, extractor: FeatureExtractor) -> None:
    """In place of a file that is there."""
    with replaced(path) as aside:
        np.savez(
            aside,
            mu=statistics.mean.numpy(),
            sigma=statistics.covariance.numpy(),
            extractor=extractor.name,
            extractor_hash=statistics.weights_hash,
            num_images=statistics.total,
        )


def _wrong(mean: np.ndarray, covariance: np.ndarray, size: int) -> str | None:
    """What keeps these from being mean and covariance of `size` features."""
    for name, values, shape in (("mu", mean, (size,)), ("sigma", covariance, (size, size))):
        if values.dtype.kind != "f" or values.shape != shape:
            return (
                f"{name!r} is {values.dtype} {list(values.shape)}, and of an extractor of {size} features "
                f"it is floats {list(shape)}; give the one that the statistics were made with"
            )
        if not np.isfinite(values).all():
            return f"{name!r} holds numbers that are not finite"
    largest, difference = np.abs(covariance).max(), np.abs(covariance - covariance.T).max()
    if difference > _ROUNDING * largest:
        return f"'sigma' is not symmetric (by {difference:.3g}), so it is no covariance"
    if covariance.diagonal().min() < 0:
        return "'sigma' has a negative variance on its diagonal, so it is no covariance"
    return None
