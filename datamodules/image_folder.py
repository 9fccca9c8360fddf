"""Any folder of pictures in the usual layout: `<split>/<class>/<picture>`."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from datamodules.base import ImageDataModule
from datamodules.dataset import LabelledItems
from datamodules.image_cache import Decoding, cached_images
from lit_gen.core.types import ImageSpec, InputError, Positive

log = logging.getLogger(__name__)

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_WAY_OUT = ". Set data.root to the folder that holds train/<class>/."


@dataclass(eq=False, repr=False)
class ImageFolder(ImageDataModule):
    """Your own pictures: the shorter side resized, the middle cut out, decoded once into a cache.

    `root/train/<class>/*`, and `root/test` or `root/val` likewise; without these a part of the training
    pictures is held out (validation=fraction). Without `root/train`, the classes are the folders of `root`.
    With `spec.num_classes=0` all pictures below are taken, without labels.

    Attributes:
        cache: folder for the decoded pictures; None is `root/.lit_gen_cache`, or the user's cache folder.
        convert: grey pictures among colour ones (or the other way round, or with alpha) are converted, not
            refused.
        crop: side of a centre square that is cut out of each file before resizing.
    """

    root: str | Path
    cache: str | Path | None = None
    convert: bool = False
    crop: Positive | None = None
    spec: ImageSpec = field(default=ImageSpec(3, 32, 0), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.spec.channels not in (1, 3):
            raise InputError(f"spec.channels={self.spec.channels}: pictures have 1 (grey) or 3 (colour).")
        self.root = Path(self.root)

    def prepare_data(self) -> None:
        for split in ("train", "test") if self._folder("test") else ("train",):
            self.read(split)  # decodes into the cache

    def setup(self, stage: str | None = None) -> None:
        if self.validation == "official" and self._folder("test") is None:
            said = "%s has neither test/ nor val/: data.validation=fraction, %g of the training pictures"
            log.warning(said, self.root, self.validation_fraction)
            self.validation = "fraction"
        super().setup(stage)

    def read(self, split: Literal["train", "test"]) -> LabelledItems:
        folder, classes = self._folder(split), self._classes()
        unknown = sorted(set(_folders_in(folder)) - set(classes)) if classes else []
        if unknown:
            raise InputError(f"{folder}: {', '.join(unknown)} are no classes of {self._folder('train')}.")
        listed = [sorted(_pictures_below(folder / name)) for name in classes or [""]]
        if not any(listed):
            raise InputError(f"{folder}: no pictures ({', '.join(_SUFFIXES)}){_WAY_OUT}")
        how = Decoding(self.spec.channels, self.spec.size, self.crop, self.convert)
        image = cached_images([path for paths in listed for path in paths], self.root, how, self.cache)
        group = torch.arange(len(listed)).repeat_interleave(torch.tensor([len(paths) for paths in listed]))
        return LabelledItems(image, group if classes else torch.full_like(group, -1), group)

    def group_names(self) -> tuple[str, ...]:
        return tuple(self._classes()) or ("all",)

    def _folder(self, split: Literal["train", "test"]) -> Path | None:
        if split == "train":
            return self.root / "train" if (self.root / "train").is_dir() else self.root
        if self._folder("train") == self.root:
            return None
        return next((self.root / name for name in ("test", "val") if (self.root / name).is_dir()), None)

    def _classes(self) -> list[str]:
        """Names of the training folders, sorted; [] without labels."""
        if self.spec.num_classes == 0:
            return []
        folder = self._folder("train")
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder{_WAY_OUT}")
        names = sorted(_folders_in(folder))
        if len(names) != self.spec.num_classes:
            listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            raise InputError(
                f"data.spec.num_classes={self.spec.num_classes}, but {folder} has {len(names)} class folders "
                f"({listed}); set it to {len(names)}."
            )
        return names


def _folders_in(folder: Path) -> Iterator[str]:
    return (one.name for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))


def _pictures_below(folder: Path) -> Iterator[str]:
    """Without hidden files and folders. os.walk, since a Path for each file takes ten times as long."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name[0] != "." and name.lower().endswith(_SUFFIXES):
                yield f"{parent}{os.sep}{name}"
