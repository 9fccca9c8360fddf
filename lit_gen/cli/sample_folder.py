"""A folder that samples are written into block by block, by several processes and by one command after
another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from lit_gen.core.files import new_or_empty, plain, remove_unfinished, replaced, write_json
from lit_gen.core.types import InputError
from lit_gen.evaluation.image_sets import ABOUT
from lit_gen.evaluation.plots import write_picture

BLOCK = 256
"""Images that are drawn at a time, from a seed of their own: another number would give other images."""


class Drawn(NamedTuple):
    """Images with what they were drawn for; -1 where the model takes no such condition."""

    image: Tensor  # uint8 [n, C, S, S], on the CPU
    label: Tensor  # int64 [n]
    task: Tensor  # int64 [n]


class SampleFolder:
    """One PNG per image, or an archive per block (uint8 NHWC under "image", with "label" and "task"); and a
    file that says what the images depend on, by the key of the command line.

    Args:
        shards: "npz", or None for pictures.
    """

    def __init__(self, path: Path, shards: str | None) -> None:
        self.path, self.shards = path, shards

    def check(self) -> None:
        """Raises InputError where the folder holds something else."""
        if not (self.path / ABOUT).is_file():
            new_or_empty("out", self.path)

    def begin(self, count: int, about: Mapping[str, Any]) -> list[int]:
        """The numbers of the blocks that are missing of `count` images. Only one process at a time may ask.

        Raises:
            InputError: other images stand there, or more; nothing is changed then.
        """
        about, stands = plain(about), self._stands()
        if any(file.suffix in (".png", ".npz") for file in self.path.glob("[!.]*")):
            self._compare(about)
        if count < max(stands.values(), default=0):
            raise InputError(
                f"n={count}: {max(stands.values())} images stand in out={self.path}; give n="
                f"{max(stands.values())} or more, or another folder"
            )
        remove_unfinished(self.path)
        write_json(self.path / ABOUT, {"n": count, "block": BLOCK, **about})
        return [k for k in range(-(-count // BLOCK)) if stands.get(k, 0) < min((k + 1) * BLOCK, count)]

    def put(self, block: int, drawn: Drawn) -> None:
        """Writes a block, or as much of it as is wanted; InputError where the folder cannot be written."""
        try:
            if self.shards:
                write_archive(self.path / f"{block:06d}.npz", drawn)
            else:
                for number, image in enumerate(drawn.image, block * BLOCK):
                    write_picture(self.path / f"{number:06d}.png", image.permute(1, 2, 0))
        except OSError as error:
            raise InputError(f"out={self.path}: cannot be written ({error.strerror or error})") from error

    def _stands(self) -> dict[int, int]:
        """For each block of which something is there: number of the image after its last one."""
        if self.shards:
            archives = self.path.glob("[!.]*.npz")
            return {int(file.stem): int(file.stem) * BLOCK + _length(file) for file in archives}
        pictures = {int(file.stem) for file in self.path.glob("[!.]*.png") if file.stem.isdigit()}
        stands: dict[int, int] = {}
        for number in sorted(pictures):
            # Up to the first gap of a block, which is drawn anew where there is one.
            block = number // BLOCK
            if number == stands.get(block, block * BLOCK):
                stands[block] = number + 1
        return stands

    def _compare(self, about: Mapping[str, Any]) -> None:
        text = (self.path / ABOUT).read_text(encoding="utf-8")
        try:
            before = dict(json.loads(text))
        except ValueError as error:
            raise InputError(f"{self.path / ABOUT}: cannot be read ({error}); give another folder") from error
        if before.pop("block", BLOCK) != BLOCK:
            raise InputError(f"out={self.path}: was begun by another version; give another folder")
        others = [
            f"{key}={_said(value)}: those in out={self.path} were drawn with {key}={_said(before.get(key))}"
            for key, value in about.items()
            if before.get(key) != value
        ]
        if others:
            raise InputError("\n".join([*others, "Give the same, or another folder. Nothing was changed."]))


def write_archive(file: Path, drawn: Drawn) -> None:
    """uint8 NHWC under "image", with "label" and "task"; in place of a file that is there."""
    image = drawn.image.permute(0, 2, 3, 1).numpy()
    with replaced(file) as aside:
        np.savez_compressed(aside, image=image, label=drawn.label.numpy(), task=drawn.task.numpy())


def _length(archive: Path) -> int:
    """Images in it; 0 where it cannot be read."""
    try:
        with np.load(archive, allow_pickle=False) as found:
            return len(found["label"])
    except Exception:  # zipfile, numpy and zlib each raise their own kinds for a damaged archive
        return 0


def _said(value: Any) -> str:
    return "none" if value is None else json.dumps(value) if isinstance(value, dict) else str(value)
