"""lit-gen sample: images from a checkpoint, as a grid, a folder or an archive."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_gen.cli.open_run import rebuild
from lit_gen.cli.words import own_words
from lit_gen.core.checkpoint import read
from lit_gen.core.images import grid, to_uint8
from lit_gen.core.memory import refuse_beyond_memory
from lit_gen.core.module import LitGenerator
from lit_gen.core.random import forked_rng
from lit_gen.core.types import InputError, NonNegative, Positive
from lit_gen.evaluation.plots import picture

HELP = """lit-gen sample ckpt=PATH out=FILE_OR_FOLDER [n=64] [task=K] [label=K] [seed=0] [sampler...]

Draws images from a trained model.

  ckpt     a run folder or a checkpoint file
  out      grid.png (one picture), samples.npz (uint8 NHWC under "image", with "label" and "task"),
           or a folder (one PNG per image)
  n        how many
  task     of models conditioned on the task; without it all tasks seen so far take turns
  label    of models conditioned on the label; without it all classes seen so far take turns
  sampler  another way of drawing than the one that the model was scored with: sampler=NAME, sampler.KEY=VALUE
  device   cpu, cuda, ...

Examples
  lit-gen sample ckpt=runs/my-run out=grid.png
  lit-gen sample ckpt=runs/my-run/checkpoints/task-2.ckpt n=1000 task=1 out=samples.npz
"""

_OWN = {
    "ckpt": str,
    "out": Path,
    "n": Positive,
    "task": NonNegative,
    "label": NonNegative,
    "seed": NonNegative,
    "device": str,
}
_BLOCK = 256


class Drawn(NamedTuple):
    """Images with what they were drawn for; -1 where the model takes no such condition."""

    image: Tensor  # uint8 [n, C, S, S]
    label: Tensor  # int64 [n]
    task: Tensor  # int64 [n]


def run(words: list[str]) -> int:
    own, others = own_words(words, _OWN, needed=("ckpt", "out"), others=("sampler",))
    rebuilt = rebuild(read(own["ckpt"]), others, device=own.get("device", "cpu"))
    module, count = rebuilt.module, own.get("n", 64)
    if not isinstance(module, LitGenerator):
        raise InputError(f"ckpt={own['ckpt']}: {type(module).__name__} draws no images")
    refuse_beyond_memory(count * math.prod(module.spec.shape), f"n={count}: that many images")
    conditions = _conditions(module, rebuilt.current_task, own)
    place = write(draw(module, count, own.get("seed", 0), conditions), own["out"])
    print(f"{count} images: {place}")
    return 0


def draw(module: LitGenerator, count: int, seed: int, conditions: dict[str, Tensor]) -> Drawn:
    """Images in blocks, each seeded by its number, so that the first n are the same however many are drawn.

    Args:
        conditions: allowed values by name, int64 [K]; images take turns through them.
    """
    firsts = range(0, count, _BLOCK)
    # Whole blocks always, since the draws of a part of one would be others.
    numbers = torch.arange(len(firsts) * _BLOCK)
    turns = {name: values[numbers % len(values)] for name, values in conditions.items()}
    parts = []
    for block, first in enumerate(firsts):
        given = {name: turn[first : first + _BLOCK].to(module.device) for name, turn in turns.items()}
        with forked_rng(seed, block, device=module.device):
            parts.append(to_uint8(module.sample(_BLOCK, **given)).cpu())
    turns = {"label": -torch.ones_like(numbers), "task": -torch.ones_like(numbers)} | turns
    return Drawn(*(values[:count] for values in (torch.cat(parts), turns["label"], turns["task"])))


def write(drawn: Drawn, out: Path) -> Path:
    """Writes a grid, an archive or a folder, by the ending of `out`.

    Raises:
        InputError: the place cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".png":
            picture(grid(drawn.image)).save(out)
        elif out.suffix == ".npz":
            image = drawn.image.permute(0, 2, 3, 1).numpy()
            np.savez_compressed(out, image=image, label=drawn.label.numpy(), task=drawn.task.numpy())
        elif out.suffix == "":
            out.mkdir(exist_ok=True)
            for number, image in enumerate(drawn.image):
                picture(image.permute(1, 2, 0)).save(out / f"{number:06d}.png")
        else:
            raise InputError(
                f"out={out}: expected grid.png, samples.npz or a folder's name without an ending"
            )
    except OSError as error:
        raise InputError(f"out={out}: cannot be written ({error.strerror or error})") from error
    return out


def _conditions(module: LitGenerator, current_task: int, own: dict[str, Any]) -> dict[str, Tensor]:
    """The values that each condition of the model may take, from the words or from what was seen so far."""
    values = {}
    for name, limit in {"task": current_task + 1, "label": module.spec.num_classes}.items():
        given = own.get(name)
        if name in module.conditions:
            if given is not None and given >= limit:
                raise InputError(f"{name}={given}: this checkpoint knows {name}s 0 to {limit - 1}")
            values[name] = torch.arange(limit) if given is None else torch.tensor([given])
        elif given is not None:
            raise InputError(f"{name}={given}: this model was trained without a condition on the {name}")
    return values
