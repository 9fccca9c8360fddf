"""MNIST (LeCun et al. 1998) and FashionMNIST (Xiao et al. 2017, arXiv:1708.07747), from their IDX files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from datamodules.dataset import LabelledItems
from datamodules.files import FileImages, fitted, read_idx
from lit_gen.core.types import ImageSpec, InputError, Positive

_PREFIX = {"train": "train", "test": "t10k"}
_FILES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


@dataclass(eq=False, repr=False)
class MNIST(FileImages):
    """70,000 handwritten digits, 28 x 28, grey; a larger `spec.size` pads them with black, a smaller one
    averages areas.

    Attributes:
        root: holds `MNIST/raw/train-images-idx3-ubyte[.gz]` and so on.
        crop: side of a centre square that is cut out first; digits are about 20 pixels high.
    """

    loader = "MNIST"

    spec: ImageSpec = field(default=ImageSpec(1, 28, 10), kw_only=True)
    crop: Positive | None = field(default=None, kw_only=True)

    @property
    def folder(self) -> Path:
        return Path(self.root) / self.loader / "raw"

    def missing(self) -> list[str]:
        there = {path.name.removesuffix(".gz") for path in self.folder.glob("*")}
        return [name for name in _FILES if name not in there]

    def read(self, split: Literal["train", "test"]) -> LabelledItems:
        image = read_idx(self.folder, f"{_PREFIX[split]}-images-idx3-ubyte", 3)
        label = read_idx(self.folder, f"{_PREFIX[split]}-labels-idx1-ubyte", 1).long()
        if len(image) != len(label):
            raise InputError(f"{self.folder}: {len(image)} images, but {len(label)} labels; get both again.")
        return LabelledItems(fitted(image[:, None], self.spec.size, self.crop), label, label)


@dataclass(eq=False, repr=False)
class FashionMNIST(MNIST):
    """70,000 pictures of clothes in MNIST's format, in `FashionMNIST/raw`."""

    loader = "FashionMNIST"
