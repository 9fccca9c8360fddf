"""MNIST (LeCun et al. 1998) and FashionMNIST (Xiao et al. 2017, arXiv:1708.07747), from their IDX files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from datamodules.base import ImageDataModule
from datamodules.dataset import LabelledImages
from datamodules.files import fetch, labelled_alike, missing_files, padded, read_idx

_PREFIX = {"train": "train", "test": "t10k"}
_FILES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def read_mnist_like(folder: Path, split: Literal["train", "test"], size: int) -> LabelledImages:
    """28 x 28 images, padded with black to `size`. Raises InputError that names a missing or damaged file."""
    image = read_idx(folder, f"{_PREFIX[split]}-images-idx3-ubyte", 3)
    label = read_idx(folder, f"{_PREFIX[split]}-labels-idx1-ubyte", 1).long()
    labelled_alike(folder, image, label)
    return LabelledImages(padded(image[:, None], size), label, label)


class MNISTData(ImageDataModule):
    """70,000 handwritten digits, 28 x 28, grey; a larger `spec.size` pads them with black.

    Args:
        root: holds `MNIST/raw/train-images-idx3-ubyte[.gz]` and so on.
        download: whether missing files are fetched.
    """

    name = "MNIST"

    def __init__(self, root: str, download: bool = True, **base) -> None:
        super().__init__(**base)
        self.root, self.download = Path(root), download

    def prepare_data(self) -> None:
        folder = self.root / self.name / "raw"
        missing = missing_files(folder, _FILES)
        fetch(self.name, self.root, folder, missing, self.from_torchvision if self.download else None)

    def from_torchvision(self) -> None:
        from torchvision.datasets import MNIST

        MNIST(self.root, download=True)

    def read(self, split: Literal["train", "test"]) -> LabelledImages:
        return read_mnist_like(self.root / self.name / "raw", split, self.spec.size)


class FashionMNISTData(MNISTData):
    """70,000 pictures of clothes in MNIST's format, in `FashionMNIST/raw`."""

    name = "FashionMNIST"

    def from_torchvision(self) -> None:
        from torchvision.datasets import FashionMNIST

        FashionMNIST(self.root, download=True)
