"""What every analysis is given, a trained model with its data, and what every analysis gives back."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lit_gen.core.images import to_float
from lit_gen.core.module import LitModel
from lit_gen.core.random import forked_rng, mixed_seed
from lit_gen.core.types import Batch, InputError, Likelihood, StreamData
from lit_gen.losses.reconstruction import unit_squared_error

log = logging.getLogger(__name__)

# Uses of the seed that must not share their random numbers.
CHOICE, NOISE, CORRUPTION, GENERATED, CLASSIFIER = 401, 402, 403, 404, 405
_LOG_SECONDS = 15.0


@runtime_checkable
class Encodes(Protocol):
    """Has codes of images."""

    def encode(self, batch: Batch) -> Tensor:
        """[B, Z], without gradient."""


@runtime_checkable
class HasCodes(Encodes, Protocol):
    """Has codes of images, and images of codes."""

    def decode(self, codes: Tensor, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        """[B, C, S, S] in [-1, 1], without gradient."""


@runtime_checkable
class Restores(Protocol):
    """Gives an image back, with or without codes."""

    def reconstruct(self, batch: Batch) -> Tensor:
        """[B, C, S, S] in [-1, 1], without gradient."""


_METHODS: dict[type, str] = {
    Encodes: "encode",
    HasCodes: "encode and decode",
    Restores: "reconstruct",
    Likelihood: "log_likelihood",
}
_Promise = TypeVar("_Promise")


class Findings(NamedTuple):
    """What an analysis found.

    Attributes:
        table: the result, a few rows with the same columns.
        rows: what the table was made from, such as one row per image; none: the table is all there is.
        picture: uint8 [H, W, C].
        images: uint8 [N, C, S, S], for a folder.
    """

    table: list[dict[str, float | int | str]]
    rows: Sequence[dict[str, float | int | str]] = ()
    picture: Tensor | None = None
    images: Tensor | None = None


@dataclass(frozen=True)
class Subject:
    """A trained model and the data that it was trained on, at the task it had reached.

    Attributes:
        name: of the run.
        kind: what kind of model it is, the same for runs that differ in sizes only.
        model: draws images, if it does; what it can do with codes is asked of its `abilities`.
        data: set up.
        num_seen: tasks seen so far.
        seed: of all that the analyses draw.
        batch_size: images in a block; another size gives other noise.
    """

    name: str
    kind: str
    model: LitModel
    data: StreamData
    num_seen: int
    seed: int = 0
    batch_size: int = 256

    def promised(self, promise: type[_Promise]) -> _Promise:
        """The model, which keeps this promise.

        Raises:
            InputError: it does not.
        """
        able = self.model.abilities()
        if not isinstance(able, promise):
            raise InputError(
                f"ckpt={self.name}: {type(able).__name__} does not promise {promise.__name__} "
                f"({_METHODS[promise]}), which this analysis asks for; autoencoders of every kind do"
            )
        return able

    def images(self, split: str, all_tasks: bool = False) -> Dataset[Batch]:
        """Images of the tasks seen so far, or of all tasks."""
        return self.data.dataset(split, range(len(self.data.tasks) if all_tasks else self.num_seen))

    def choose(self, count: int, most: int | None, purpose: int = 0) -> Tensor:
        """All of `count` places in order, or `most` of them at random, in random order: int64 [n]."""
        if most is None or count <= most:
            return torch.arange(count)
        rng = torch.Generator().manual_seed(mixed_seed(self.seed, CHOICE, purpose))
        return torch.randperm(count, generator=rng)[:most]

    def load(self, images: Dataset[Batch], places: Tensor) -> Batch:
        """These images as one batch on the model's device, float32 in [-1, 1]."""
        batch = images.__getitems__(places.tolist())
        batch = Batch(*(part.to(self.model.device) for part in batch))
        return batch._replace(image=to_float(batch.image))

    def ask(
        self,
        question: Callable[[Batch], tuple[Tensor, ...]],
        images: Dataset[Batch],
        places: Tensor | None = None,
        purpose: int = NOISE,
    ) -> tuple[Tensor, ...]:
        """What `question` gives for a batch, [B, ...] each, for all images together, on the CPU.

        The noise of a block of images is a function of the seed, the purpose and the block's number.
        """
        places = torch.arange(len(images)) if places is None else places
        parts: list[tuple[Tensor, ...]] = []
        said = time.monotonic()
        for number, block in enumerate(places.split(self.batch_size)):
            with torch.no_grad(), forked_rng(self.seed, purpose, number, device=self.model.device):
                parts.append(tuple(answer.cpu() for answer in question(self.load(images, block))))
            if time.monotonic() - said > _LOG_SECONDS:
                said = time.monotonic()
                log.info("%s: %d of %d images", self.name, number * self.batch_size + len(block), len(places))
        return tuple(torch.cat(answers) for answers in zip(*parts, strict=True))

    def codes(self, images: Dataset[Batch], places: Tensor | None = None) -> Codes:
        """Codes of images with what is known about them."""
        model = self.promised(Encodes)
        return Codes(
            *self.ask(lambda b: (model.encode(b).flatten(1), b.label, b.task, b.index), images, places)
        )

    def decoded(self, codes: Tensor, label: Tensor, task: Tensor) -> Tensor:
        """Images of codes [N, Z], float32 [N, C, S, S] on the CPU; labels and tasks are used by models that
        take them as a condition.
        """
        model, device, parts = self.promised(HasCodes), self.model.device, []
        blocks = zip(*(part.split(self.batch_size) for part in (codes, label, task)), strict=True)
        for number, (some, of_label, of_task) in enumerate(blocks):
            with torch.no_grad(), forked_rng(self.seed, NOISE, number, device=device):
                image = model.decode(some.to(device), label=of_label.to(device), task=of_task.to(device))
                parts.append(image.cpu())
        return torch.cat(parts)


class Codes(NamedTuple):
    """Codes of N images."""

    code: Tensor  # float32 [N, Z]
    label: Tensor  # int64 [N], -1 = unlabelled; [N, A] for attribute data
    task: Tensor  # int64 [N]
    index: Tensor  # int64 [N], the image's place in the whole stream

    def classes(self) -> Tensor:
        """The label of every image, or its task where images have none or many: int64 [N]."""
        return self.task if self.label.ndim > 1 or (self.label < 0).all() else self.label


def pixel_error(image: Tensor, target: Tensor) -> Tensor:
    """Mean squared error per pixel with pixels counted from 0 to 1: [B, C, S, S] in [-1, 1] twice -> [B]."""
    return unit_squared_error(image, target) / image[0].numel()


def peak_ratio(error: float) -> float:
    """Peak signal-to-noise ratio in decibels of a mean `pixel_error`; infinite for none."""
    return -10 * math.log10(error) if error > 0 else math.inf


def only_labelled(subject: Subject, codes: Codes, split: str) -> Codes:
    """Those of the codes whose image has a class.

    Raises:
        InputError: none has.
    """
    if codes.label.ndim > 1:
        raise InputError(f"ckpt={subject.name}: its images have attributes, and this analysis needs classes")
    known = codes.label >= 0
    if not known.any():
        raise InputError(f"ckpt={subject.name}: none of its {split} images has a label, which this needs")
    return Codes(*(part[known] for part in codes))
