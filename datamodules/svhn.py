"""Street View House Numbers (Netzer et al. 2011): single digits, from the official Matlab files."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from scipy.io import loadmat

from datamodules.dataset import LabelledItems
from datamodules.files import FileImages, contents, fitted
from lit_gen.core.types import ImageSpec, InputError


@dataclass(eq=False, repr=False)
class SVHN(FileImages):
    """73,257 training and 26,032 test images, 32 x 32, colour, 10 classes; `root` holds
    `svhn/train_32x32.mat` and `svhn/test_32x32.mat`.
    """

    loader = "SVHN"

    spec: ImageSpec = field(default=ImageSpec(3, 32, 10), kw_only=True)

    @property
    def folder(self) -> Path:
        return Path(self.root) / "svhn"

    def path(self, split: Literal["train", "test"]) -> Path:
        return self.folder / f"{split}_32x32.mat"

    def missing(self) -> list[str]:
        return [path.name for path in map(self.path, ("train", "test")) if not path.exists()]

    def fetch(self) -> None:
        from torchvision import datasets

        for split in ("train", "test"):
            datasets.SVHN(str(self.folder), split=split, download=True)

    def read(self, split: Literal["train", "test"]) -> LabelledItems:
        path = self.path(split)
        try:
            content = loadmat(io.BytesIO(contents(path)), variable_names=("X", "y"))
            image, label = torch.from_numpy(content["X"]), torch.from_numpy(content["y"]).long().flatten()
        # What scipy raises for damaged files depends on where the damage is.
        except InputError:
            raise
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise InputError(f"{path}: truncated, or no Matlab file of SVHN ({why}). Get it again.") from None
        if image.dtype != torch.uint8 or tuple(image.shape) != (32, 32, 3, len(label)):
            raise InputError(
                f"{path}: expected X of bytes, 32 x 32 x 3 x {len(label)} for its {len(label)} labels y, got "
                f"{image.dtype} of {' x '.join(map(str, image.shape))}. Get it again."
            )
        if len(label) and not 1 <= int(label.min()) <= int(label.max()) <= 10:
            raise InputError(
                f"{path}: labels from {label.min()} to {label.max()}, where 1 to 10 are the digits 1 to 0. "
                "Get it again."
            )
        label = label % 10
        return LabelledItems(fitted(image.permute(3, 2, 0, 1).contiguous(), self.spec.size), label, label)
