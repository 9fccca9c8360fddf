"""Any folder of pictures in the usual layout: `<split>/<class>/<picture>`."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal

import torch

from datamodules.base import ImageDataModule
from datamodules.dataset import LabelledItems
from datamodules.image_cache import Decoding, cached_images
from lit_gen.core.pictures import (
    ENDINGS,
    Found,
    colour,
    is_picture,
    mention_skipped,
    pictures_in,
    shape_of,
    some_of,
)
from lit_gen.core.types import ImageSpec, InputError, Positive, together

log = logging.getLogger(__name__)

_WAY_OUT = ". Set data.root to the folder that holds train/<class>/, or <class>/."
_SIZES = (32, 64, 128)
_MOST_LOOKED_AT = 1000  # pictures whose headers are read for the sake of `spec_of`


@dataclass(eq=False, repr=False)
class ImageFolder(ImageDataModule):
    """Your own pictures: the shorter side resized, the middle cut out, decoded once into a cache.

    `root/train/<class>/*`, and `root/test` or `root/val` likewise; without these a part of the training
    pictures is held out (validation=fraction). Without `root/train`, the classes are the folders of `root`;
    those without pictures are none. With `spec.num_classes=0` all pictures below are taken, without labels.

    Attributes:
        cache: folder for the decoded pictures; None is `root/.lit_gen_cache`, or the user's cache folder.
        convert: grey pictures among colour ones (or the other way round) are converted, not refused.
        crop: side of a centre square that is cut out of each file before resizing.
        background: the colour behind what is transparent, by name or number (#ff8800); of grey pictures, its
            luminance.
    """

    root: str | Path
    cache: str | Path | None = None
    convert: bool = True
    crop: Positive | None = None
    background: str = "black"
    spec: ImageSpec = field(default=ImageSpec(3, 32, 0), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.spec.channels not in (1, 3):
            raise InputError(f"spec.channels={self.spec.channels}: pictures have 1 (grey) or 3 (colour).")
        colour(self.background)
        self.root = Path(self.root)

    @classmethod
    def spec_of(cls, root: str | Path) -> dict[str, int]:
        """What the files suggest for a spec: as many classes as folders, or 0 for a single one; 1 channel
        where all pictures are grey; of the sizes 32, 64 and 128 the largest that most of them have.

        Raises:
            InputError: there is no such folder, or no picture in it.
        """
        folder = _training_folder(Path(root))
        classes = _classes_in(folder)
        paths = pictures_in(folder).paths
        shapes = list(filter(None, map(shape_of, paths[:: -(-len(paths) // _MOST_LOOKED_AT) or 1])))
        if not shapes:
            raise InputError(f"{folder}: no pictures ({', '.join(ENDINGS)}) that can be read{_WAY_OUT}")
        sides, channels = zip(*shapes, strict=True)
        size = max((each for each in _SIZES if each <= median(sides)), default=_SIZES[0])
        return {
            "channels": max(channels),
            "size": size,
            "num_classes": len(classes) if len(classes) > 1 else 0,
        }

    def prepare_data(self) -> None:
        splits = ("train", "test") if self._folder("test") else ("train",)
        if not self._parts:  # Lightning comes here at every fit
            self._say_what_is_made_of_them()
            for split in splits:
                self._mention(split)
        together(*(partial(self.read, split) for split in splits))  # decodes into the cache

    def setup(self, stage: str | None = None) -> None:
        if self._folder("test") is None and self.validation == "official":
            self.validation = "fraction"
        super().setup(stage)

    def read(self, split: Literal["train", "test"]) -> LabelledItems:
        classes, listed = self._classes(), [found.paths for found in self._found(split).values()]
        if not any(listed):
            raise InputError(f"{self._folder(split)}: no pictures ({', '.join(ENDINGS)}){_WAY_OUT}")
        spec = self.spec
        how = Decoding(spec.channels, spec.size, self.crop, self.convert, background=self.background)
        image = cached_images([path for paths in listed for path in paths], self.root, how, self.cache)
        group = torch.arange(len(listed)).repeat_interleave(torch.tensor([len(paths) for paths in listed]))
        return LabelledItems(image, group if classes else torch.full_like(group, -1), group)

    def group_names(self) -> tuple[str, ...]:
        return tuple(self._classes()) or ("all",)

    def _found(self, split: Literal["train", "test"]) -> dict[str, Found]:
        """What lies in the folder of each class; without labels, in the one folder "." of all."""
        folder, classes = self._folder(split), self._classes()
        unknown = sorted(set(_classes_in(folder)) - set(classes)) if classes else []
        if unknown:
            raise InputError(f"{folder}: {', '.join(unknown)} are no classes of {self._folder('train')}.")
        places = {name: folder / name for name in classes or ["."]}
        return {n: pictures_in(p) if p.is_dir() else Found([], Counter()) for n, p in places.items()}

    def _say_what_is_made_of_them(self) -> None:
        spec, classes = self.spec, self._classes()
        kind = "colour" if spec.channels == 3 else "grey"
        others = f"others are {'converted' if self.convert else 'refused'}"
        held_out = "the pictures in test/ or val/"
        if self._folder("test") is None or self.validation == "fraction":
            held_out = f"{self.validation_fraction:.0%} of the pictures (data.validation_fraction)"
        names = some_of(classes, ", ") or "no labels"
        log.info(
            "%s: what is made of the pictures, and what changes it\n  %s",
            self._folder("train"),
            "\n  ".join(
                (
                    f"classes   {len(classes)} (data.spec.num_classes): {names}",
                    f"pixels    {kind} (data.spec.channels={spec.channels}), {others} (data.convert)",
                    f"size      {spec.size} x {spec.size} (data.spec.size), from the middle of each",
                    f"scores    of {held_out}",
                )
            ),
        )

    def _mention(self, split: Literal["train", "test"]) -> None:
        """Says what is not used, and which classes have nothing."""
        found = self._found(split)
        mention_skipped(self._folder(split), sum((each.skipped for each in found.values()), Counter()))
        loose = sum(map(is_picture, os.listdir(self._folder(split))))
        if loose and self.spec.num_classes:
            log.warning("%s: %d pictures in no class folder are left out", self._folder(split), loose)
        empty = [name for name, each in found.items() if not each.paths]
        if 0 < len(empty) < len(found):
            log.warning("%s: no pictures of class %s", self._folder(split), ", ".join(empty))

    def _folder(self, split: Literal["train", "test"]) -> Path | None:
        if split == "train":
            return _training_folder(self.root)
        if self._folder("train") == self.root:
            return None
        return next((self.root / name for name in ("test", "val") if (self.root / name).is_dir()), None)

    def _classes(self) -> list[str]:
        """Names of the training folders, sorted; [] without labels."""
        if self.spec.num_classes == 0:
            return []
        folder = self._folder("train")
        names = _classes_in(folder)
        if len(names) != self.spec.num_classes:
            listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            raise InputError(
                f"data.spec.num_classes={self.spec.num_classes}, but {folder} has {len(names)} folders with "
                f"pictures ({listed}); set it to {len(names)}, or leave it out."
            )
        return names


def _training_folder(root: Path) -> Path:
    return root / "train" if (root / "train").is_dir() else root


def _classes_in(folder: Path) -> list[str]:
    """Names of the folders that hold pictures, sorted."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder{_WAY_OUT}")
    return sorted(name for name in _folders_in(folder) if pictures_in(folder / name).paths)


def _folders_in(folder: Path) -> Iterator[str]:
    """Without hidden ones, and links to what holds them."""
    place = folder.resolve()
    for one in folder.iterdir():
        if one.is_dir() and one.name[0] != "." and not place.is_relative_to(one.resolve()):
            yield one.name
