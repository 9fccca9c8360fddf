"""lit-gen sample: images from a checkpoint, as a grid, a folder or an archive."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_gen.cli.config import plain_errors
from lit_gen.cli.log import log_to
from lit_gen.cli.open_run import Rebuilt, read_own, rebuild
from lit_gen.cli.words import own_words
from lit_gen.core.files import new_or_empty, replaced
from lit_gen.core.images import grid, to_uint8
from lit_gen.core.memory import refuse_beyond_memory
from lit_gen.core.module import LitGenerator
from lit_gen.core.random import forked_rng
from lit_gen.core.types import InputError, NonNegative, Positive
from lit_gen.evaluation.folders import filled_folder
from lit_gen.evaluation.plots import write_picture
from lit_gen.families.samplers import joined

HELP = """lit-gen sample ckpt=PATH out=FILE_OR_FOLDER [n=64] [task=K] [label=K] [seed=0] [sampler...]

Draws images from a trained model.

  ckpt     a run folder or a checkpoint file
  out      grid.png (one picture) or samples.npz (uint8 NHWC under "image", with "label" and "task"), in place
           of a file that is there; or a new or empty folder (one PNG per image)
  n        how many
  task     of models conditioned on the task; without it all tasks seen so far take turns
  label    of models conditioned on the label, one that was learned; without it all those take turns
  sampler  another way of drawing than the one that the model was scored with: sampler=NAME, sampler.KEY=VALUE
  denoiser a checkpoint of DAED or another diffusion model on images of this size, which takes away the last
           of the noise, from where its own first step begins
  device   cpu, cuda, ...

Examples
  lit-gen sample ckpt=runs/my-run out=grid.png
  lit-gen sample ckpt=runs/my-run/checkpoints/task-2.ckpt n=1000 task=1 out=samples.npz
"""

log = logging.getLogger(__name__)

_OWN = {
    "ckpt": str,
    "out": Path,
    "n": Positive,
    "task": NonNegative,
    "label": NonNegative,
    "seed": NonNegative,
    "denoiser": str,
    "device": str,
}
_BLOCK = 256


class Drawn(NamedTuple):
    """Images with what they were drawn for; -1 where the model takes no such condition."""

    image: Tensor  # uint8 [n, C, S, S]
    label: Tensor  # int64 [n]
    task: Tensor  # int64 [n]


def run(words: list[str]) -> int:
    log_to(None, logging.WARNING)
    own, others = own_words(words, _OWN, needed=("ckpt", "out"), others=("sampler",))
    _check_out(own["out"])
    rebuilt = rebuild(read_own(own["ckpt"]), others, device=own.get("device", "cpu"))
    module, count = rebuilt.module, own.get("n", 64)
    if not isinstance(module, LitGenerator):
        raise InputError(f"ckpt={own['ckpt']}: {type(module).__name__} draws no images")
    if "denoiser" in own:
        other = rebuild(read_own(own["denoiser"]), device=own.get("device", "cpu")).module
        with plain_errors("denoiser"):
            module.sampler = joined(module, other)
    refuse_beyond_memory(count * math.prod(module.spec.shape), f"n={count}: that many images")
    conditions = _conditions(rebuilt, own)
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
    """Writes a grid, an archive or a folder, by the ending of `out`; InputError if that cannot be."""
    try:
        if out.suffix == ".png":
            write_picture(out, grid(drawn.image))
        elif out.suffix == ".npz":
            image = drawn.image.permute(0, 2, 3, 1).numpy()
            with replaced(out) as aside:
                np.savez_compressed(aside, image=image, label=drawn.label.numpy(), task=drawn.task.numpy())
        else:
            with filled_folder("out", out) as folder:
                for number, image in enumerate(drawn.image):
                    write_picture(folder / f"{number:06d}.png", image.permute(1, 2, 0))
    except OSError as error:
        raise InputError(f"out={out}: cannot be written ({error.strerror or error})") from error
    return out


def _check_out(out: Path) -> None:
    if out.suffix not in (".png", ".npz", ""):
        raise InputError(f"out={out}: expected grid.png, samples.npz or a folder's name without an ending")
    if out.suffix and out.is_dir():
        raise InputError(f"out={out}: is a folder; give the name of a file in it")
    if not out.suffix:
        new_or_empty("out", out)


def _conditions(rebuilt: Rebuilt, own: Mapping[str, Any]) -> dict[str, Tensor]:
    """The values that each condition of the model may take, int64 [K] each: by the words, and no task and no
    label that it was not trained on. A model with both conditions gets pairs that were there.
    """
    takes, counts = rebuilt.module.conditions, rebuilt.label_counts
    for name in ("task", "label"):
        if name in own and name not in takes:
            raise InputError(f"{name}={own[name]}: this model was trained without a condition on the {name}")
    if "label" in takes and not counts:
        log.warning(
            "ckpt=%s: does not say which labels it was trained on, as an older one; every label is taken",
            own["ckpt"],
        )
    # Of each task, and without the condition on it of all together.
    tasks = range(rebuilt.current_task + 1)
    every = range(rebuilt.module.spec.num_classes)
    learned = [[label for label in every if not counts or counts[task][label]] for task in tasks]
    if "label" not in takes:
        pairs = [(task, -1) for task in tasks]
    elif "task" not in takes:
        pairs = [(-1, label) for label in sorted(set(chain(*learned)))]
    else:
        pairs = [(task, label) for task in tasks for label in learned[task]]
    for place, name in enumerate(("task", "label")):
        known = sorted({pair[place] for pair in pairs})
        if name in own:
            pairs = [pair for pair in pairs if pair[place] == own[name]]
        if name in takes and not pairs:
            asked = f"{name}={own[name]}" if name in own else f"ckpt={own['ckpt']}"
            is_range = len(known) > 1 and known == list(range(len(known)))
            listed = f"0 to {len(known) - 1}" if is_range else ", ".join(map(str, known))
            there = f"{name}s {listed}" if known else f"no {name}"
            of = f" of task={own['task']}" if "task" in takes and name == "label" and "task" in own else ""
            raise InputError(f"{asked}: this checkpoint knows {there}{of}")
    values = torch.tensor(pairs)
    return {name: values[:, place] for place, name in enumerate(("task", "label")) if name in takes}
