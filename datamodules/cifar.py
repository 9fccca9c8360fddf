"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), from the official pickled or binary files."""

import io
import pickle
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from datamodules.dataset import LabelledItems
from datamodules.files import FileImages, contents, padded
from lit_gen.core.types import ImageSpec, InputError

_PIXELS = 3 * 32 * 32
_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_DAMAGE = (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError)


class _Layout(NamedTuple):
    """One way in which the files come; the label byte or key that we use is the last one."""

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int  # before each image of a binary file; 0 for pickles


@dataclass(eq=False, repr=False)
class CIFAR10(FileImages):
    """60,000 photographs, 32 x 32, colour, 10 classes; `root` holds `cifar-10-batches-py` or
    `cifar-10-batches-bin`.
    """

    loader, label_key = "CIFAR10", "labels"
    layouts = (
        _Layout("cifar-10-batches-py", _BATCHES, ("test_batch",), 0),
        _Layout("cifar-10-batches-bin", tuple(f"{name}.bin" for name in _BATCHES), ("test_batch.bin",), 1),
    )

    spec: ImageSpec = field(default=ImageSpec(3, 32, 10), kw_only=True)

    @property
    def layout(self) -> _Layout:
        """The first one whose folder is there, else the first."""
        return next((one for one in self.layouts if (Path(self.root) / one.folder).is_dir()), self.layouts[0])

    @property
    def folder(self) -> Path:
        return Path(self.root) / self.layout.folder

    def missing(self) -> list[str]:
        return [name for name in self.layout.train + self.layout.test if not (self.folder / name).exists()]

    def read(self, split: Literal["train", "test"]) -> LabelledItems:
        images, labels, layout = [], [], self.layout
        read = partial(_read_binary, layout.label_bytes) if layout.label_bytes else self._read_pickle
        for name in layout.train if split == "train" else layout.test:
            path = self.folder / name
            image, label = read(path)
            if label.size and not 0 <= label.min() <= label.max() < self.spec.num_classes:
                raise InputError(
                    f"{path}: labels from {label.min()} to {label.max()} where data.spec.num_classes="
                    f"{self.spec.num_classes}; get the file again, or correct the key."
                )
            images.append(image)
            labels.append(label)
        image = torch.from_numpy(np.concatenate(images)).view(-1, 3, 32, 32)
        label = torch.from_numpy(np.concatenate(labels))
        return LabelledItems(padded(image, self.spec.size), label, label)

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
    layouts = (
        _Layout("cifar-100-python", ("train",), ("test",), 0),
        _Layout("cifar-100-binary", ("train.bin",), ("test.bin",), 2),
    )

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


def _read_binary(label_bytes: int, path: Path) -> tuple[np.ndarray, np.ndarray]:
    data = np.frombuffer(contents(path), dtype=np.uint8)
    row = label_bytes + _PIXELS
    if data.size == 0 or data.size % row:
        raise InputError(f"{path}: {data.size} bytes, not a whole number of {row} each. Get it again.")
    table = data.reshape(-1, row)
    return table[:, label_bytes:].copy(), table[:, label_bytes - 1].astype(np.int64)
