"""Omniglot's background set (Lake et al. 2015): 964 characters of 30 alphabets, 20 drawings of each."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from datamodules.base import ImageDataModule
from datamodules.dataset import LabelledImages
from datamodules.files import fetch
from datamodules.image_cache import Decoding, cached_images
from lit_gen.core.types import InputError


class OmniglotData(ImageDataModule):
    """Characters in alphabetical order of alphabets, grey, shrunk from 105 x 105.

    There is no test split of the same characters, so `validation` is "fraction" (Deja et al. 2022,
    arXiv:2106.12196) or "train" (Deja et al. 2023, arXiv:2312.13699).

    Args:
        root: holds `omniglot-py/images_background/<alphabet>/<character>/*.png`.
        invert: white strokes on black (Deja et al. 2022); otherwise black on white as in the files
            (Deja et al. 2023).
        cache: folder for the decoded pictures; None is beside the files, or the user's cache folder.
    """

    def __init__(
        self, root: str, invert: bool = True, download: bool = True, cache: str | None = None, **base
    ) -> None:
        super().__init__(**base)
        self.root, self.download = Path(root), download
        self.folder = self.root / "omniglot-py" / "images_background"
        self.cache = None if cache is None else Path(cache)
        self.how = Decoding(self.spec.channels, self.spec.size, invert=invert)

    def prepare_data(self) -> None:
        def from_torchvision() -> None:
            from torchvision.datasets import Omniglot

            Omniglot(str(self.root), background=True, download=True)

        missing = [] if any(self.folder.glob("*/*/*.png")) else ["<alphabet>/<character>/*.png"]
        fetch("Omniglot", self.root, self.folder, missing, from_torchvision if self.download else None)
        self.read("train")  # decodes into the cache

    def read(self, split: Literal["train", "test"]) -> LabelledImages:
        if split == "test":
            raise InputError(
                "data.validation=official: Omniglot's background set has no test split; use fraction or "
                "train."
            )
        characters = sorted(path for path in self.folder.glob("*/*") if path.is_dir())
        if len(characters) != self.spec.num_classes:
            raise InputError(
                f"{self.folder}: {len(characters)} characters, but "
                f"data.spec.num_classes={self.spec.num_classes}; the background set has 964. Unpack "
                "images_background.zip there again, or correct the key."
            )
        listed = [sorted(map(str, character.glob("*.png"))) for character in characters]
        image = cached_images([path for paths in listed for path in paths], self.folder, self.how, self.cache)
        drawings = torch.tensor([len(paths) for paths in listed])
        label = torch.arange(len(characters)).repeat_interleave(drawings)
        return LabelledImages(image, label, label)
