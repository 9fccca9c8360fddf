"""lit-gen sample: images from a checkpoint, as a grid, a folder or an archive."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lit_gen.cli.arguments import as_count, split_words
from lit_gen.cli.rebuild import rebuild
from lit_gen.core.checkpoint import read
from lit_gen.core.images import grid, to_uint8
from lit_gen.core.module import LitGenerator
from lit_gen.core.random import forked_rng
from lit_gen.core.types import InputError

HELP = """lit-gen sample ckpt=PATH out=FILE_OR_FOLDER [n=64] [task=K] [label=K] [seed=0]

Draws images from a trained model.

  ckpt   a run folder or a checkpoint file
  out    grid.png (one picture), samples.npz (uint8 NHWC under "image", with "label" and "task"),
         or a folder (one PNG per image)
  n      how many
  task   of models conditioned on the task; without it all tasks seen so far take turns
  label  of models conditioned on the label; without it all classes seen so far take turns

Examples
  lit-gen sample ckpt=runs/my-run out=grid.png
  lit-gen sample ckpt=runs/my-run/checkpoints/task-2.ckpt n=1000 task=1 out=samples.npz
"""

log = logging.getLogger(__name__)

_OWN = ("ckpt", "out", "n", "task", "label", "seed", "device")
_BLOCK = 256


class Drawn(NamedTuple):
    """Images with what they were drawn for; -1 where the model takes no such condition."""

    image: Tensor  # uint8 [n, C, S, S]
    label: Tensor  # int64 [n]
    task: Tensor  # int64 [n]


def run(words: list[str]) -> int:
    own, others = split_words(words, _OWN)
    if others:
        raise InputError(f"{others[0]}: lit-gen sample takes {', '.join(_OWN)}")
    for key in ("ckpt", "out"):
        if key not in own:
            raise InputError(f"{key}= is missing; see lit-gen sample --help")
    count, seed = as_count("n", own.get("n", "64"), 1), as_count("seed", own.get("seed", "0"))
    stored = read(own["ckpt"])
    rebuilt = rebuild(stored)
    module = rebuilt.module
    if not isinstance(module, LitGenerator):
        raise InputError(f"ckpt={own['ckpt']}: {type(module).__name__} draws no images")
    module.to(own.get("device", "cpu"))
    conditions = _conditions(module, rebuilt.current_task, own)
    drawn = draw(module, count, seed, conditions)
    place = write(drawn, Path(own["out"]))
    print(f"{count} images: {place}")
    return 0


def draw(module: LitGenerator, count: int, seed: int, conditions: dict[str, Tensor]) -> Drawn:
    """Images in blocks, each seeded by its number, so that the first n are the same however many are drawn.

    Args:
        conditions: allowed values by name, int64 [K]; images take turns through them.
    """
    turns = {name: values[torch.arange(count) % len(values)] for name, values in conditions.items()}
    parts = []
    for block, first in enumerate(range(0, count, _BLOCK)):
        given = {name: turn[first : first + _BLOCK].to(module.device) for name, turn in turns.items()}
        with forked_rng(seed, block, device=module.device):
            # A whole block always, since the draws of a part of it would be others.
            full = {name: _filled(value, _BLOCK) for name, value in given.items()}
            parts.append(to_uint8(module.sample(_BLOCK, **full)).cpu()[: count - first])
    unknown = torch.full((count,), -1)
    return Drawn(torch.cat(parts), turns.get("label", unknown), turns.get("task", unknown))


def write(drawn: Drawn, out: Path) -> Path:
    """Writes a grid, an archive or a folder, by the ending of `out`.

    Raises:
        InputError: the place cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".png":
            _picture(grid(drawn.image).numpy()).save(out)
        elif out.suffix == ".npz":
            image = drawn.image.permute(0, 2, 3, 1).numpy()
            np.savez_compressed(out, image=image, label=drawn.label.numpy(), task=drawn.task.numpy())
        elif out.suffix == "":
            out.mkdir(exist_ok=True)
            for number, image in enumerate(drawn.image):
                _picture(image.permute(1, 2, 0).numpy()).save(out / f"{number:06d}.png")
        else:
            raise InputError(
                f"out={out}: expected grid.png, samples.npz or a folder's name without an ending"
            )
    except OSError as error:
        raise InputError(f"out={out}: cannot be written ({error.strerror or error})") from error
    return out


def _conditions(module: LitGenerator, current_task: int, own: dict[str, str]) -> dict[str, Tensor]:
    """The values that each condition of the model may take, from the words or from what was seen so far."""
    limits = {"task": current_task + 1, "label": module.spec.num_classes}
    values = {}
    for name, limit in limits.items():
        if name not in module.conditions:
            if name in own:
                raise InputError(
                    f"{name}={own[name]}: this model was trained without a condition on the {name}"
                )
            continue
        if name not in own:
            values[name] = torch.arange(limit)
            continue
        value = as_count(name, own[name])
        if value >= limit:
            raise InputError(f"{name}={value}: this checkpoint knows {name}s 0 to {limit - 1}")
        values[name] = torch.tensor([value])
    return values


def _filled(values: Tensor, size: int) -> Tensor:
    return torch.cat([values, values[-1:].expand(size - len(values))])


def _picture(pixels: np.ndarray) -> Image.Image:
    """A uint8 [H, W, C] array as a picture; one channel is grey."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
