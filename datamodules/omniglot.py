"""Omniglot's background set (Lake et al. 2015): 964 characters of 30 alphabets, 20 drawings of each."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from datamodules.dataset import LabelledItems
from datamodules.files import FileImages
from datamodules.image_cache import Decoding, cached_images
from lit_gen.core.pictures import pictures_in
from lit_gen.core.types import ImageSpec, InputError


@dataclass(eq=False, repr=False)
class Omniglot(FileImages):
    """Characters in alphabetical order of alphabets, grey, shrunk from 105 x 105.

    There is no test split of the same characters, so `validation` is "fraction" (Deja et al. 2022,
    arXiv:2106.12196) or "train" (Deja et al. 2023, arXiv:2312.13699). `root` holds
    `omniglot-py/images_background/<alphabet>/<character>/*.png`.

    Attributes:
        invert: white strokes on black (Deja et al. 2022); otherwise black on white as in the files
            (Deja et al. 2023).
        cache: folder for the decoded pictures; None is beside the files, or the user's cache folder.
    """

    loader = "Omniglot"

    invert: bool = True
    cache: str | Path | None = None
    spec: ImageSpec = field(default=ImageSpec(1, 28, 964), kw_only=True)
    validation: Literal["official", "fraction", "train"] = field(default="fraction", kw_only=True)

    @property
    def folder(self) -> Path:
        return Path(self.root) / "omniglot-py" / "images_background"

    def missing(self) -> list[str]:
        return [] if any(self.folder.glob("*/*/*.png")) else ["<alphabet>/<character>/*.png"]

    def prepare_data(self) -> None:
        super().prepare_data()
        self.read("train")  # decodes into the cache

    def read(self, split: Literal["train", "test"]) -> LabelledItems:
        if split == "test":
            raise InputError("data.validation=official: Omniglot has no test split; use fraction or train.")
        folders = self.folder.glob("[!.]*/[!.]*")
        characters = sorted(path for path in folders if path.is_dir())
        if len(characters) != self.spec.num_classes:
            raise InputError(
                f"data.spec.num_classes={self.spec.num_classes}, but {self.folder} has {len(characters)} "
                "characters and the background set 964; unpack its zip again, or correct the key."
            )
        listed = [pictures_in(character).paths for character in characters]
        how = Decoding(self.spec.channels, self.spec.size, invert=self.invert)
        image = cached_images([path for paths in listed for path in paths], self.folder, how, self.cache)
        label = torch.arange(len(listed)).repeat_interleave(torch.tensor([len(paths) for paths in listed]))
        return LabelledItems(image, label, label)
