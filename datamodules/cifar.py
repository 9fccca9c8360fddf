"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), from the official pickled or binary files."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from datamodules.base import ImageDataModule
from datamodules.dataset import LabelledImages
from datamodules.files import fetch, padded
from lit_gen.core.types import InputError

_PIXELS = 3 * 32 * 32


class _Layout(NamedTuple):
    """One way in which the files come; the label byte or key that we use is the last one."""

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int  # before each image of a binary file; 0 for pickles


class CIFAR10Data(ImageDataModule):
    """60,000 photographs, 32 x 32, colour, 10 classes.

    Args:
        root: holds `cifar-10-batches-py` or `cifar-10-batches-bin`.
        download: whether missing files are fetched.
    """

    layouts = (
        _Layout("cifar-10-batches-py", tuple(f"data_batch_{n}" for n in range(1, 6)), ("test_batch",), 0),
        _Layout(
            "cifar-10-batches-bin", tuple(f"data_batch_{n}.bin" for n in range(1, 6)), ("test_batch.bin",), 1
        ),
    )
    label_key = "labels"

    def __init__(self, root: str, download: bool = True, **base) -> None:
        super().__init__(**base)
        self.root, self.download = Path(root), download

    def prepare_data(self) -> None:
        layout = self._layout()
        folder = self.root / layout.folder
        missing = [name for name in layout.train + layout.test if not (folder / name).exists()]
        fetch(folder.name, self.root, folder, missing, self.from_torchvision if self.download else None)

    def from_torchvision(self) -> None:
        from torchvision.datasets import CIFAR10

        CIFAR10(self.root, download=True)

    def read(self, split: Literal["train", "test"]) -> LabelledImages:
        layout = self._layout()
        images, labels = [], []
        for name in layout.train if split == "train" else layout.test:
            path = self.root / layout.folder / name
            image, label = (
                _read_binary(path, layout.label_bytes) if layout.label_bytes else self._read_pickle(path)
            )
            if label.size and not 0 <= label.min() <= label.max() < self.spec.num_classes:
                raise InputError(
                    f"{path}: a label is outside of 0 to {self.spec.num_classes - 1}; the file is damaged, "
                    f"or data.spec.num_classes={self.spec.num_classes} is wrong."
                )
            images.append(image)
            labels.append(label)
        image = torch.from_numpy(np.concatenate(images)).view(-1, 3, 32, 32)
        label = torch.from_numpy(np.concatenate(labels))
        return LabelledImages(padded(image, self.spec.size), label, label)

    def _layout(self) -> _Layout:
        """The first layout whose folder is there, else the first."""
        return next((one for one in self.layouts if (self.root / one.folder).is_dir()), self.layouts[0])

    def _read_pickle(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        try:
            content = _ArraysOnly(io.BytesIO(_contents(path)), encoding="bytes").load()
            image, label = content[b"data"], np.asarray(content[self.label_key.encode()], dtype=np.int64)
        except (
            pickle.UnpicklingError,
            EOFError,
            KeyError,
            TypeError,
            ValueError,
            IndexError,
            AttributeError,
        ) as error:
            raise InputError(
                f"{path}: truncated, or no CIFAR file ({type(error).__name__}: {error}). Get it again."
            ) from None
        if (
            not isinstance(image, np.ndarray)
            or image.dtype != np.uint8
            or image.shape != (len(label), _PIXELS)
        ):
            found = getattr(image, "shape", type(image).__name__)
            raise InputError(
                f"{path}: expected bytes of shape ({len(label)}, {_PIXELS}) for its {len(label)} labels, "
                f"got {found}."
            )
        return image, label


class CIFAR100Data(CIFAR10Data):
    """60,000 photographs, 32 x 32, colour, 100 classes, in `cifar-100-python` or `cifar-100-binary`."""

    layouts = (
        _Layout("cifar-100-python", ("train",), ("test",), 0),
        _Layout("cifar-100-binary", ("train.bin",), ("test.bin",), 2),
    )
    label_key = "fine_labels"

    def from_torchvision(self) -> None:
        from torchvision.datasets import CIFAR100

        CIFAR100(self.root, download=True)


class _ArraysOnly(pickle.Unpickler):
    """Refuses whatever an array of bytes does not need: a pickle can run any code."""

    allowed = {
        # numpy moved its core between versions, and files name either place.
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): lambda text, encoding: text.encode(encoding),  # how old protocols write bytes
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it wants {module}.{name}, which no CIFAR file needs")
        return self.allowed[module, name]


def _read_binary(path: Path, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    data = np.frombuffer(_contents(path), dtype=np.uint8)
    row = label_bytes + _PIXELS
    if data.size == 0 or data.size % row:
        raise InputError(
            f"{path}: {data.size} bytes are no whole number of images of {row} bytes; get it again."
        )
    table = data.reshape(-1, row)
    return table[:, label_bytes:].copy(), table[:, label_bytes - 1].astype(np.int64)


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. Put it there, or set data.root.") from None
