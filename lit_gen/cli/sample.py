"""lit-gen sample: images from a checkpoint, as a grid, a folder or an archive."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Fabric
from torch import Tensor

from lit_gen.cli.building import plain_errors
from lit_gen.cli.devices import KEYS, launched, with_one_device, without_choice
from lit_gen.cli.lock import RunLock
from lit_gen.cli.log import log_to
from lit_gen.cli.open_run import Rebuilt, read_own, rebuild, refuse_unused, use_own_threads
from lit_gen.cli.run_folder import rank
from lit_gen.cli.sample_folder import BLOCK, Drawn, SampleFolder, write_archive
from lit_gen.cli.stop import told_to_stop
from lit_gen.cli.words import own_words
from lit_gen.core.files import plain, writable_folder
from lit_gen.core.images import to_uint8
from lit_gen.core.memory import refuse_beyond_memory
from lit_gen.core.module import LitGenerator
from lit_gen.core.processes import ImageBar, gathered, wrong_for_all
from lit_gen.core.random import forked_rng
from lit_gen.core.types import InputError, NonNegative, Positive, Remembers
from lit_gen.evaluation.plots import cells, write_picture
from lit_gen.families.samplers import joined
from lit_gen.metrics.features import weights_hash

HELP = """lit-gen sample ckpt=PATH out=FILE_OR_FOLDER [n=64] [task=K] [label=K] [seed=0] [KEY=VALUE ...]

Draws images from a trained model. Image i is the same however many are drawn, by however many processes.

  ckpt     a run folder or a checkpoint file
  out      grid.png (one picture) or samples.npz (uint8 NHWC under "image", with "label" and "task"), in place
           of a file that is there; or a folder, which is written as the images come: a command that was
           stopped goes on where it was when it is given again, and a larger n adds to what stands there
  shards   shards=npz: in the folder an archive for every 256 images, in place of a PNG for each
  n        how many
  task     of models conditioned on the task; without it all tasks seen so far take turns
  label    of models conditioned on the label, one that was learned; without it all those take turns
  place    of BinPlay, instead of n, task and label: what it remembers of these places in the stream, with
           place=0:64 those of the first 64 training images
  sampler  another way of drawing than the one that the model was scored with: sampler=NAME, sampler.KEY=VALUE
  denoiser a checkpoint of DAED or another diffusion model on images of this size, which takes away the last
           of the noise, from where its own first step begins
  trainer  the devices, as in training: trainer=cpu, trainer=gpu, trainer.devices=[3], trainer=ddp
           trainer.devices=4, trainer.precision=bf16-mixed; without it one device, the best that is there

Examples
  lit-gen sample ckpt=runs/my-run out=grid.png
  lit-gen sample ckpt=runs/my-run/checkpoints/task-2.ckpt n=1000 task=1 out=samples.npz
  lit-gen sample ckpt=runs/my-run place=0:64 out=grid.png
  lit-gen sample ckpt=runs/my-run n=50000 out=samples shards=npz trainer=ddp trainer.devices=4
"""

log = logging.getLogger(__name__)

_OWN = {
    "ckpt": str,
    "out": Path,
    "shards": Literal["npz"],
    "n": Positive,
    "task": NonNegative,
    "label": NonNegative,
    "place": str,
    "seed": NonNegative,
    "denoiser": str,
}


def run(words: list[str]) -> int:
    with told_to_stop():
        return _run(words)


def _run(words: list[str]) -> int:
    log_to(None, logging.WARNING if rank() == 0 else None)
    own, others = own_words(words, _OWN, needed=("ckpt", "out"), others=("sampler", "trainer"))
    refuse_unused(without_choice(others), ("sampler", *KEYS), "lit-gen sample")
    out, places = own["out"], _places(own)
    count = len(places) if "place" in own else own.get("n", 64)
    _check_out(out, own.get("shards"))
    stored = read_own(own["ckpt"])
    rebuilt = rebuild(stored, with_one_device(others))
    module, config = rebuilt.module, rebuilt.composed.config
    if not isinstance(module, LitGenerator):
        raise InputError(f"ckpt={own['ckpt']}: {type(module).__name__} draws no images")
    about = {"ckpt": _digest(rebuilt), "denoiser": None, "sampler": config["sampler"]}
    parts = [module]
    if "denoiser" in own:
        other = rebuild(read_own(own["denoiser"]))
        with plain_errors("denoiser"):
            module.sampler = joined(module, other.module)
        about["denoiser"] = _digest(other)
        parts.append(other.module)
    if out.suffix:
        refuse_beyond_memory(count * math.prod(module.spec.shape), f"n={count}: that many images")
    conditions = {"place": places} if "place" in own else _conditions(rebuilt, own)
    if "place" in own:
        _memory(module).at(places[-1:])  # refuses what was not seen
    seed = own.get("seed", 0)
    fabric = launched(config["trainer"])
    use_own_threads(stored)
    for part in parts:
        fabric.strategy.precision.convert_module(part).to(fabric.device)
    about |= {key: own.get(key) for key in ("task", "label", "place", "shards")} | {"seed": seed}
    about |= {"trainer.accelerator": fabric.device.type, "trainer.precision": config["trainer"]["precision"]}
    drawing = Drawing(module, seed, conditions, fabric)
    if out.suffix:
        _write_file(drawing, count, out)
    elif not _fill(drawing, count, SampleFolder(out, own.get("shards")), about):
        if fabric.is_global_zero:
            print(f"{count} images: {out} (all of them were there already)")
        return 0
    if fabric.is_global_zero:
        print(f"{count} images: {out}")
    return 0


class Drawing:
    """What one block of images after the other is drawn from; each is seeded by its number, so that the first
    n are the same however many are drawn.

    Args:
        conditions: allowed values by name, int64 [K]; images take turns through them. With "place" among them
            images are remembered, not drawn.
    """

    def __init__(
        self, module: LitGenerator, seed: int, conditions: Mapping[str, Tensor], fabric: Fabric
    ) -> None:
        self.module, self.seed, self.conditions, self.fabric = module, seed, conditions, fabric

    def block(self, number: int) -> Tensor:
        """uint8 [256, C, S, S] on the device. Always a whole one: a part of it would be drawn otherwise."""
        turns = self.turns(range(number * BLOCK, (number + 1) * BLOCK))
        given = {name: values.to(self.module.device) for name, values in turns.items()}
        with forked_rng(self.seed, number, device=self.module.device), self.fabric.autocast():
            if "place" in given:
                return to_uint8(_memory(self.module).at(given["place"]))
            return to_uint8(self.module.sample(BLOCK, **given))

    def turns(self, numbers: Iterable[int]) -> dict[str, Tensor]:
        """The conditions of these images, int64 [n] each."""
        places = torch.tensor(list(numbers))
        return {name: values[places % len(values)] for name, values in self.conditions.items()}

    def told(self, image: Tensor, first: int = 0) -> Drawn:
        """Images with the conditions of those from number `first` on."""
        turns = self.turns(range(first, first + len(image)))
        none = torch.full((len(image),), -1)
        return Drawn(image.cpu(), turns.get("label", none), turns.get("task", none))


def _fill(drawing: Drawing, count: int, folder: SampleFolder, about: Mapping[str, Any]) -> bool:
    """Draws the blocks that are missing in a folder; False if none is."""
    fabric, lock, missing = drawing.fabric, RunLock(folder.path), []
    try:
        with wrong_for_all():
            if fabric.is_global_zero:
                folder.check()
                writable_folder("out", folder.path)
                lock.take()
                missing = folder.begin(count, about)
        missing = fabric.broadcast(missing)
        with ImageBar("drawing", count, max(0, count - len(missing) * BLOCK)) as bar:
            for number in missing[fabric.global_rank :: fabric.world_size]:
                image = drawing.block(number)[: count - number * BLOCK]
                folder.put(number, drawing.told(image, number * BLOCK))
                bar.count(len(image))
        fabric.barrier()
    finally:
        lock.release()
    return bool(missing)


def _write_file(drawing: Drawing, count: int, out: Path) -> None:
    """Draws everything and writes a grid or an archive, by the ending of `out`, from the first process."""
    image = torch.cat(list(_in_order(drawing, count)))[:count]
    if not drawing.fabric.is_global_zero:
        return
    try:
        if out.suffix == ".png":
            write_picture(out, cells(image))
        else:
            write_archive(out, drawing.told(image))
    except OSError as error:
        raise InputError(f"out={out}: cannot be written ({error.strerror or error})") from error


def _in_order(drawing: Drawing, count: int) -> Iterator[Tensor]:
    """All blocks on the CPU of the first process; of the others, nothing."""
    fabric, num_blocks = drawing.fabric, -(-count // BLOCK)
    nothing = torch.empty(0, *drawing.module.spec.shape, dtype=torch.uint8, device=fabric.device)
    with ImageBar("drawing", count) as bar:
        for first in range(0, num_blocks, fabric.world_size):
            number = first + fabric.global_rank
            some = gathered(drawing.block(number) if number < num_blocks else nothing)
            yield (some if fabric.is_global_zero else nothing).cpu()
            bar.count(BLOCK)


def _check_out(out: Path, shards: str | None) -> None:
    if out.suffix not in (".png", ".npz", ""):
        raise InputError(f"out={out}: expected grid.png, samples.npz or a folder's name without an ending")
    if out.suffix and shards:
        raise InputError(
            f"shards={shards}: is for a folder, and out={out} is one file; leave one of both out"
        )
    if out.suffix and out.is_dir():
        raise InputError(f"out={out}: is a folder; give the name of a file in it")
    if not out.suffix:
        SampleFolder(out, shards).check()


def _places(own: Mapping[str, Any]) -> Tensor:
    """Those of place=A:B, int64 [B - A]."""
    word = own.get("place", "0:0")
    found = re.fullmatch(r"(\d{1,15}):(\d{1,15})", word)
    if found is None or ("place" in own and int(found[1]) >= int(found[2])):
        raise InputError(
            f"place={word}: expected the first place and the one after the last, as in place=0:64"
        )
    if "place" in own and (given := [name for name in ("n", "task", "label", "denoiser") if name in own]):
        raise InputError(f"place={word}: says itself which images; leave out {', '.join(given)}")
    first, end = map(int, found.groups())
    refuse_beyond_memory(8 * (end - first), f"place={word}: that many places")
    return torch.arange(first, end)


def _memory(module: LitGenerator) -> Remembers:
    """The part of the model that remembers images by their places.

    Raises:
        InputError: there is none.
    """
    parts = (part for part in module.modules() if isinstance(part, Remembers))
    if (found := next(parts, None)) is None:
        raise InputError(
            f"place: {type(module).__name__} does not remember images by their places; leave it out"
        )
    return found


def _digest(rebuilt: Rebuilt) -> str:
    """Tells models apart by their weights, by what they are and by what they have learned."""
    learned = (rebuilt.composed.config["model"], rebuilt.current_task, rebuilt.label_counts)
    text = json.dumps(plain(learned), sort_keys=True)
    return f"{weights_hash(rebuilt.module)}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


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
