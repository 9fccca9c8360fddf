"""What every judge and every analysis is given: a model with its data, at the task that it has reached."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import torch
from lightning import Trainer
from torch import Tensor, nn
from torch.utils.data import Dataset

from lit_gen.core.module import LitModel
from lit_gen.core.random import Use, forked_rng, mixed_seed
from lit_gen.core.types import (
    Batch,
    Encodes,
    HasCodes,
    InputError,
    PairBatch,
    Split,
    StreamData,
)
from lit_gen.losses.reconstruction import unit_squared_error

log = logging.getLogger(__name__)

_LOG_SECONDS = 15.0
_Promise = TypeVar("_Promise")
_Answer = TypeVar("_Answer")
_AnyBatch = TypeVar("_AnyBatch", Batch, PairBatch)


@dataclass(frozen=True)
class Context:
    """A model and the data that it was trained on. Needs no Trainer: one process, and full precision, then.

    Attributes:
        model: draws images, if it does; what else it can do is asked of its `abilities`.
        data: set up.
        num_seen: tasks seen so far.
        name: of the run.
        kind: what kind of model it is, the same for runs that differ in sizes only.
        seed: of all that is drawn.
        batch_size: images in a block; another size gives other noise.
        rank: of this process.
        world_size: number of processes, to which blocks are dealt.
        is_dry: only shows that everything runs: one block of each task.
        precision: what the model's own work is done in.
    """

    model: LitModel
    data: StreamData
    num_seen: int
    name: str = "model"
    kind: str = "model"
    seed: int = 0
    batch_size: int = 256
    rank: int = 0
    world_size: int = 1
    is_dry: bool = False
    precision: Callable[[], AbstractContextManager[None]] = nullcontext

    @classmethod
    def of_trainer(cls, trainer: Trainer, model: LitModel) -> Context:
        """What a Trainer with a datamodule is at."""
        return cls(
            model,
            trainer.datamodule,
            trainer.datamodule.current_task + 1,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            is_dry=bool(trainer.fast_dev_run),
            precision=trainer.precision_plugin.forward_context,
        )

    def with_blocks(self, batch_size: int, seed: int) -> Context:
        """The same with other blocks and another seed."""
        return replace(self, batch_size=batch_size, seed=seed)

    def promised(self, promise: type[_Promise]) -> _Promise:
        """The model, which keeps this promise.

        Raises:
            InputError: it does not.
        """
        able = self.model.abilities()
        if not isinstance(able, promise):
            methods = [name for base in promise.__mro__[::-1] for name in vars(base) if name[0] != "_"]
            raise InputError(
                f"{self.name}: {type(able).__name__} does not promise {promise.__name__} "
                f"({' and '.join(methods)}), which is asked for here"
            )
        return able

    # --- which images

    def images(self, split: Split) -> Dataset[Batch]:
        """Images of the tasks seen so far."""
        return self.data.dataset(split, range(self.num_seen))

    def views(self, per_task: bool) -> list[tuple[int | None, slice]]:
        """What is scored of a list with one item per task: each task if asked, and (None) all of them."""
        single = [(task, slice(task, task + 1)) for task in range(self.num_seen)] if per_task else []
        return [*single, (None, slice(None))]

    def choose(self, count: int, most: int | None, *purpose: int) -> Tensor:
        """All of `count` places in order, or `most` of them (a block in a dry run) at random, int64 [n]."""
        most = self.batch_size if self.is_dry else most
        if most is None or count <= most:
            return torch.arange(count)
        rng = torch.Generator().manual_seed(mixed_seed(self.seed, *(purpose or (Use.CHOICE, 0))))
        return torch.randperm(count, generator=rng)[:most]

    def conditions(self, like: Batch, names: Collection[str]) -> dict[str, Tensor]:
        """What the model is told to draw images like these: their labels and tasks, int64 [B], by name.

        In place of a label that was never trained on (`data.without_classes`), those of the image's task that
        were take turns.
        """
        given = {name: getattr(like, name) for name in sorted(names)}
        if "label" not in given or like.label.ndim > 1 or self.data.spec.num_classes == 0:
            return given
        counts = torch.tensor([task.label_counts for task in self.data.tasks[: self.num_seen]])
        task, label = like.task.cpu(), like.label.cpu()
        learned = counts[task] if "task" in given else counts.sum(0).expand(len(task), -1)
        is_known = (label < 0) | (learned.gather(1, label.clamp(min=0)[:, None]).squeeze(1) > 0)
        for place in (~is_known).nonzero().flatten().tolist():
            others = counts[task[place]].nonzero().flatten()
            if len(others):
                label[place] = others[int(like.index[place]) % len(others)]
        return given | {"label": label.to(like.label.device)}

    # --- block by block

    def blocks(self, total: int) -> Iterator[tuple[int, Tensor]]:
        """This process's blocks of `total` images: number and places. No padding, so none comes twice."""
        size = self.batch_size
        for number in range(self.rank, -(-total // size), self.world_size):
            yield number, torch.arange(number * size, min((number + 1) * size, total))

    def over_blocks(self, total: int, answer: Callable[[Tensor], _Answer], *purpose: int) -> list[_Answer]:
        """What `answer` gives for the places of every block, in their order and on every process. Exactly the
        same for any number of processes: a block's noise is a function of the seed, the purpose and the
        block's number. The model is undisturbed.
        """
        found, said = [], time.monotonic()
        with undisturbed(self.model):
            for number, places in self.blocks(total):
                with forked_rng(self.seed, *(purpose or (Use.NOISE,)), number, device=self.model.device):
                    found.append((number, answer(places)))
                if time.monotonic() - said > _LOG_SECONDS:
                    said = time.monotonic()
                    log.info("%s: %d of %d images", self.name, int(places[-1]) + 1, total)
        if self.world_size > 1:
            every: list = [None] * self.world_size
            torch.distributed.all_gather_object(every, found)
            found = sorted(itertools.chain(*every), key=lambda each: each[0])
        return [each for _, each in found]

    def ask(
        self,
        question: Callable[[Batch], tuple[Tensor, ...]],
        images: Dataset[Batch],
        places: Tensor | None = None,
        *purpose: int,
    ) -> tuple[Tensor, ...]:
        """What `question` gives for a batch, [B, ...] each, for all images together, on the CPU."""
        places = torch.arange(len(images)) if places is None else places

        def answer(block: Tensor) -> tuple[Tensor, ...]:
            return tuple(part.cpu() for part in question(self.load(images, places[block])))

        answers = self.over_blocks(len(places), answer, *purpose)
        return tuple(torch.cat(parts) for parts in zip(*answers, strict=True))

    def load(self, images: Dataset[_AnyBatch], places: Tensor) -> _AnyBatch:
        """These images as one batch on the model's device, float32 in [-1, 1]."""
        return images.__getitems__(places.tolist()).to(self.model.device).ready()

    # --- codes

    def codes(self, split: Split, most: int | None = None, places: Tensor | None = None) -> Codes:
        """Codes of images of the tasks seen so far, `most` of them at random or those at `places`."""
        model, images = self.promised(Encodes), self.images(split)
        places = self.choose(len(images), most) if places is None else places
        return Codes(
            *self.ask(lambda b: (model.encode(b).flatten(1), b.label, b.task, b.index), images, places)
        )

    def decoded(self, codes: Tensor, label: Tensor, task: Tensor) -> Tensor:
        """Images of codes [N, Z], float32 [N, C, S, S] on the CPU; labels and tasks are used by models that
        take them as a condition.
        """
        model, device = self.promised(HasCodes), self.model.device

        def answer(block: Tensor) -> Tensor:
            some, of_label, of_task = (part[block].to(device) for part in (codes, label, task))
            return model.decode(some, label=of_label, task=of_task).cpu()

        return torch.cat(self.over_blocks(len(codes), answer))


class Codes(NamedTuple):
    """Codes of N images."""

    code: Tensor  # float32 [N, Z]
    label: Tensor  # int64 [N], -1 = unlabelled; [N, A] for attribute data
    task: Tensor  # int64 [N]
    index: Tensor  # int64 [N], the image's place in the whole stream

    def classes(self) -> Tensor:
        """The label of every image, or its task where images have none or many: int64 [N]."""
        return self.task if self.label.ndim > 1 or (self.label < 0).all() else self.label

    def only(self, chosen: Tensor) -> Codes:
        """Those at bool [N]."""
        return Codes(*(part[chosen] for part in self))


def only_labelled(context: Context, codes: Codes, split: Split) -> Codes:
    """Those of the codes whose image has a class.

    Raises:
        InputError: none has.
    """
    if codes.label.ndim > 1:
        raise InputError(f"{context.name}: its images have attributes, and this analysis needs classes")
    known = codes.label >= 0
    if not known.any():
        raise InputError(f"{context.name}: none of its {split} images has a label, which this needs")
    return codes.only(known)


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; every submodule has its own mode again outside."""
    was_training = [each for each in module.modules() if each.training]
    module.eval()
    try:
        # Lightning tests in inference mode; what is kept there cannot be used in a later fit.
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for each in was_training:
            each.training = True


def pixel_error(image: Tensor, target: Tensor) -> Tensor:
    """Mean squared error per pixel with pixels counted from 0 to 1: [B, C, S, S] in [-1, 1] twice -> [B]."""
    return unit_squared_error(image, target) / image[0].numel()


def peak_ratio(error: float) -> float:
    """Peak signal-to-noise ratio in decibels of a mean `pixel_error`; infinite for none."""
    return -10 * math.log10(error) if error > 0 else math.inf
