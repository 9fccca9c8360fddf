"""Features of two sets of images, kept in a safetensors file so that they are computed once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lit_gen.core.files import replaced
from lit_gen.core.types import InputError
from lit_gen.metrics.features import FeatureExtractor


class Seen(NamedTuple):
    """A batch of images as an extractor sees them."""

    places: Tensor  # int64 [B], among all images of the set
    features: Tensor  # float32 [B, D]
    logits: Tensor | None  # float32 [B, K]; None if the extractor does not classify


class FeatureFile:
    """Rows in the order of the images, as "real.features", "real.logits" and the same of "fake"; the header
    names the extractor, and for each side a digest of its images.

    Raises:
        InputError: another kind of file, or of another extractor, stands there.
    """

    def __init__(self, path: Path, extractor: FeatureExtractor) -> None:
        self.path = path
        self._extractor = {"extractor": extractor.name, "extractor_hash": extractor.weights_hash}
        self.header: dict[str, str] = {}
        if not path.parent.is_dir():
            raise InputError(f"features={path}: the folder {path.parent} does not exist; make it first")
        if not path.exists():
            return
        try:
            with safe_open(path, framework="pt") as file:
                self.header = file.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"features={path}: is no safetensors file ({error}); give a new name, or remove it"
            ) from error
        there = {name: self.header.get(name, "none") for name in self._extractor}
        if there != self._extractor:
            raise InputError(
                f"features={path}: holds features of {' '.join(there.values())}, and asked is "
                f"{' '.join(self._extractor.values())}; give a name for each extractor"
            )

    def has(self, side: str, digest: str) -> bool:
        """Whether the features of exactly these images are there."""
        return self.header.get(side) == digest

    def batches(self, side: str, size: int, rank: int, world: int) -> Iterator[Seen]:
        """Every `world`-th block of `size` images."""
        with safe_open(self.path, framework="pt") as file:
            features, is_there = file.get_slice(f"{side}.features"), f"{side}.logits" in file.keys()  # noqa: SIM118 (no mapping)
            logits = file.get_slice(f"{side}.logits") if is_there else None
            total = features.get_shape()[0]
            for first in range(rank * size, total, world * size):
                last = min(first + size, total)
                some = None if logits is None else logits[first:last]
                yield Seen(torch.arange(first, last), features[first:last], some)

    def write(self, sides: dict[str, tuple[str, Seen]]) -> None:
        """Replaces what is there of these sides; each has the digest of its images, and all of them."""
        values = load_file(self.path) if self.path.exists() else {}
        for side, (_, seen) in sides.items():
            values[f"{side}.features"] = seen.features.contiguous()
            if seen.logits is not None:
                values[f"{side}.logits"] = seen.logits.contiguous()
        self.header |= self._extractor | {side: digest for side, (digest, _) in sides.items()}
        with replaced(self.path) as aside:
            save_file(values, aside, self.header)
