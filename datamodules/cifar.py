"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), from the official pickled or binary files."""

import io
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from datamodules.dataset import LabelledItems
from datamodules.files import FileImages, contents, fitted
from lit_gen.core.types import ImageSpec, InputError

_PIXELS = 3 * 32 * 32
_DAMAGE = (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError)


@dataclass(eq=False, repr=False)
class CIFAR10(FileImages):
    """60,000 photographs, 32 x 32, colour, 10 classes; `root` holds `cifar-10-batches-py` or
    `cifar-10-batches-bin`.
    """

    loader, label_key = "CIFAR10", "labels"
    folders = ("cifar-10-batches-py", "cifar-10-batches-bin")  # of pickles, of binary files
    files = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
    label_bytes = 1  # before each image of a binary file; the label is the last one

    spec: ImageSpec = field(default=ImageSpec(3, 32, 10), kw_only=True)

    @property
    def folder(self) -> Path:
        """The first one that is there, else the first."""
        folders = [Path(self.root) / name for name in self.folders]
        return next((folder for folder in folders if folder.is_dir()), folders[0])

    def paths(self, split: Literal["train", "test"]) -> list[Path]:
        suffix = ".bin" if self.folder.name == self.folders[1] else ""
        return [self.folder / f"{name}{suffix}" for name in self.files[split]]

    def missing(self) -> list[str]:
        return [path.name for path in self.paths("train") + self.paths("test") if not path.exists()]

    def read(self, split: Literal["train", "test"]) -> LabelledItems:
        images, labels = [], []
        for path in self.paths(split):
            image, label = (self._read_binary if path.suffix else self._read_pickle)(path)
            if label.size and not 0 <= label.min() <= label.max() < self.spec.num_classes:
                raise InputError(
                    f"{path}: labels from {label.min()} to {label.max()} where data.spec.num_classes="
                    f"{self.spec.num_classes}; get the file again, or correct the key."
                )
            images.append(image)
            labels.append(label)
        image = torch.from_numpy(np.concatenate(images)).view(-1, 3, 32, 32)
        label = torch.from_numpy(np.concatenate(labels))
        return LabelledItems(fitted(image, self.spec.size), label, label)

    def _read_binary(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        data, row = np.frombuffer(contents(path), dtype=np.uint8), self.label_bytes + _PIXELS
        if data.size == 0 or data.size % row:
            raise InputError(f"{path}: {data.size} bytes, not a whole number of {row} each. Get it again.")
        table = data.reshape(-1, row)
        return table[:, -_PIXELS:].copy(), table[:, self.label_bytes - 1].astype(np.int64)

    def _read_pickle(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        try:
            content = _ArraysOnly(io.BytesIO(contents(path)), encoding="bytes").load()
            image, label = content[b"data"], np.asarray(content[self.label_key.encode()], dtype=np.int64)
        except _DAMAGE as error:
            why = f"{type(error).__name__}: {error}"
            raise InputError(f"{path}: truncated, or no CIFAR file ({why}). Get it again.") from None
        is_bytes = isinstance(image, np.ndarray) and image.dtype == np.uint8
        if not is_bytes or image.shape != (len(label), _PIXELS):
            raise InputError(
                f"{path}: expected bytes of shape ({len(label)}, {_PIXELS}) for its {len(label)} labels, "
                f"got {getattr(image, 'shape', type(image).__name__)}."
            )
        return image, label


@dataclass(eq=False, repr=False)
class CIFAR100(CIFAR10):
    """60,000 photographs, 32 x 32, colour, 100 classes, in `cifar-100-python` or `cifar-100-binary`."""

    loader, label_key = "CIFAR100", "fine_labels"
    folders = ("cifar-100-python", "cifar-100-binary")
    files = {"train": ["train"], "test": ["test"]}
    label_bytes = 2

    spec: ImageSpec = field(default=ImageSpec(3, 32, 100), kw_only=True)


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
