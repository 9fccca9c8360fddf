"""CelebA (Liu et al. 2015): 202,599 aligned faces with 40 attributes, and the classes published for it."""

import io
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from datamodules.dataset import LabelledItems
from datamodules.files import FileImages, contents
from datamodules.image_cache import Decoding, cached_images
from lit_gen.core.types import ImageSpec, InputError, Positive, together

_PARTITION = {"train": 0, "test": 2}  # 1 is the official validation split, which nothing published here uses
_FILES = ("list_attr_celeba.txt", "list_eval_partition.txt")
_MALE = 20
# (class of the men, attribute): black, brown, hat, blond, grey, bald. A later rule overwrites an earlier
# one, in the order of the code of Deja et al. 2022.
_HAIR_AND_HAT = ((0, 8), (6, 11), (4, 35), (2, 9), (8, 17), (9, 4))
_HAIR_NAMES = (
    *("black_male", "black_female", "blond_male", "blond_female", "hat_male", "hat_female"),
    *("brown_male", "brown_female", "gray", "bald"),
)


@dataclass(eq=False, repr=False)
class CelebA(FileImages):
    """Faces, colour, the shorter side resized to `spec.size` and the middle cut out. `root` holds
    `celeba/img_align_celeba/*.jpg`, `celeba/list_attr_celeba.txt` and `celeba/list_eval_partition.txt`.

    Attributes:
        crop: None resizes all of the 178 x 218 pixels (Deja et al. 2022); 140 cuts the centre out first (Knop
            et al. 2020).
        classes: "hair_and_hat" has ten classes by hair colour or hat, and sex; pictures with none of these
            take part in no task. "first_ten" makes class i of attribute i, for i = 1 ... 9, a later one
            overwriting an earlier one, and class 0 of the faces *without* attribute 0: an accident (the index
            -0 is not negative) that defines the published benchmark. "none" is one group.
        label: the class of a picture, or float32 attributes in {0, 1} with spec.num_classes=40.
        cache: folder for the decoded pictures; None is beside the files, or the user's cache folder.
    """

    loader = "CelebA"

    crop: Positive | None = None
    classes: Literal["hair_and_hat", "first_ten", "none"] = "hair_and_hat"
    label: Literal["class", "attributes"] = "class"
    cache: str | Path | None = None
    spec: ImageSpec = field(default=ImageSpec(3, 64, 10), kw_only=True)

    @property
    def folder(self) -> Path:
        return Path(self.root) / "celeba"

    def missing(self) -> list[str]:
        return [name for name in (*_FILES, "img_align_celeba") if not (self.folder / name).exists()]

    def prepare_data(self) -> None:
        super().prepare_data()
        splits = ("train", "test") if self.validation == "official" else ("train",)
        together(*(partial(self.read, split) for split in splits))  # decodes into the cache

    def read(self, split: Literal["train", "test"]) -> LabelledItems:
        names, attributes = _read_attributes(self.folder / _FILES[0])
        chosen = _read_partition(self.folder / _FILES[1], names) == _PARTITION[split]
        paths = [os.path.join(self.folder, "img_align_celeba", name) for name in names[chosen]]
        how = Decoding(self.spec.channels, self.spec.size, self.crop)
        image = cached_images(paths, self.folder, how, self.cache)
        attributes = torch.from_numpy(attributes[chosen])
        group = groups_of(attributes, self.classes)
        return LabelledItems(image, attributes.float() if self.label == "attributes" else group, group)

    def group_names(self) -> tuple[str, ...]:
        if self.classes == "none":
            return ("all",)
        return _HAIR_NAMES if self.classes == "hair_and_hat" else tuple(map(str, range(10)))


def groups_of(attributes: Tensor, classes: Literal["hair_and_hat", "first_ten", "none"]) -> Tensor:
    """The published class of each face, int64 [N], -1 for none; `attributes` is bool [N, 40]."""
    if classes == "none":
        return torch.zeros(len(attributes), dtype=torch.long)
    group = torch.full((len(attributes),), -1)
    if classes == "first_ten":
        group[~attributes[:, 0]] = 0
        for attribute in range(1, 10):
            group[attributes[:, attribute]] = attribute
        return group
    is_female = (~attributes[:, _MALE]).long()
    for kind, attribute in _HAIR_AND_HAT:
        fits = attributes[:, attribute]
        group[fits] = kind if kind >= 8 else kind + is_female[fits]  # grey and bald are one class each
    return group


def _read_attributes(path: Path) -> tuple[pd.Index, np.ndarray]:
    """File names, and bool [N, 40]."""
    table, count = _table(path, skiprows=1), contents(path).partition(b"\n")[0].decode().strip()
    if count != str(len(table)) or table.shape[1] != 40 or table.isna().any(axis=None):
        raise InputError(
            f"{path}: expected as many lines as the first one says ({count!r}), each with a name and 40 "
            f"entries; got {len(table)} lines with {table.shape[1]}. Get it again."
        )
    return table.index, table.to_numpy() == 1


def _read_partition(path: Path, names: pd.Index) -> np.ndarray:
    parts = _table(path, header=None, index_col=0)[1].reindex(names)
    missing = names[parts.isna()]
    if len(missing):
        raise InputError(f"{path}: no line for {missing[0]} and {len(missing) - 1} other(s). Get it again.")
    return parts.to_numpy()


def _table(path: Path, **how: Any) -> pd.DataFrame:
    data = contents(path)
    try:
        return pd.read_csv(io.BytesIO(data), sep=r"\s+", **how)
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}). Get it again.") from None
