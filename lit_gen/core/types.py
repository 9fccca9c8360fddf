"""The words that every floor of the house speaks: batches, tasks, phases, and what a model may promise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, Protocol, runtime_checkable

from annotated_types import Ge, Gt, Le
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

Terms = dict[str, Tensor]
"""Scalars by name. "loss" is minimised; all of them are logged."""

Positive = Annotated[int, Gt(0)]
NonNegative = Annotated[int, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
Params = Iterable[nn.Parameter]
Split = Literal["train", "val", "test"]


class InputError(ValueError):
    """Something the user gave cannot be used: a value, a file, a checkpoint. The command line exits with 2.

    The message names the key or the file, what came, what is allowed, and the way out.
    """


class Diverged(RuntimeError):
    """Training cannot go on: a loss or a weight is no number any more, or beyond what is allowed.

    The message says where, which checkpoint is still good, and what to try.
    """


class ImageSpec(NamedTuple):
    """What the images of a data set look like; they are square."""

    channels: int
    size: int
    num_classes: int  # 0 when the data has no labels


class Batch(NamedTuple):
    """B images with what is known about them."""

    image: Tensor  # float32 [B, C, S, S] in [-1, 1]; uint8 in [0, 255] until it is on the device
    label: Tensor  # int64 [B], -1 = unlabelled; float32 [B, A] in {0, 1} for attribute data
    task: Tensor  # int64 [B], index of the task the image came from
    index: Tensor  # int64 [B], the image's place in the whole stream, the same in every epoch; -1 = replayed


class PairBatch(NamedTuple):
    """Images of two domains that belong to no common pairs."""

    a: Batch
    b: Batch


class Task(NamedTuple):
    """One task of a stream; a data set without a split is a stream of one task."""

    index: int  # 0-based
    name: str  # "0-1", "smiling"
    label_counts: tuple[int, ...]  # training images per class, length num_classes
    first_index: int  # Batch.index of its first training image
    num_images: int  # training images


def do_nothing(task: Task) -> None:
    """Default of a phase's `begin` and `end`."""


@dataclass(frozen=True)
class Turn:
    """One optimizer step of a phase; a GAN's phase has two.

    Attributes:
        loss: (batch, progress in [0, 1]) -> terms.
        trains: everything else is frozen (`requires_grad`) in this turn.
        optimizer: makes the optimizer of these parameters; None is the model's own.
        every: taken on every n-th batch of the phase (the n_critic of WGAN).
    """

    name: str
    loss: Callable[[Batch, float], Terms]
    trains: tuple[nn.Module, ...]
    optimizer: Callable[[Params], Optimizer] | None = None
    every: int = 1


@dataclass(frozen=True)
class Phase:
    """One loss (or several in turns), one set of trained modules, one optimizer each, for a number of epochs.

    Attributes:
        epochs: None is what the Trainer was configured with.
        schedule: learning-rate factor over this phase's own progress in [0, 1]; None is the model's.
        span: the part of a longer course that this phase is; the `progress` given to losses runs over it.
        prepare: once per batch, without gradient: mixes replay in, builds a pool.
        chunk: the prepared pool is cut into minibatches of this size, one optimizer step each.
        each_epoch: at the start of an epoch, with `look_size` images of the task, the same on every process
            and in every epoch; leaves nothing that must be saved.
        begin: before the fit; changes parameters and buffers only, wherever the module is.
        end: after the fit, likewise.
    """

    name: str
    turns: tuple[Turn, ...]
    epochs: int | None = None
    schedule: Callable[[float], float] | None = None
    span: tuple[float, float] = (0.0, 1.0)
    prepare: Callable[[Batch], Batch] | None = None
    chunk: int | None = None
    each_epoch: Callable[[Task, Sequence[Batch]], None] | None = None
    look_size: int = 1000
    begin: Callable[[Task], None] = do_nothing
    end: Callable[[Task], None] = do_nothing

    @classmethod
    def single(
        cls,
        name: str,
        loss: Callable[[Batch, float], Terms],
        trains: tuple[nn.Module, ...],
        epochs: int | None = None,
        optimizer: Callable[[Params], Optimizer] | None = None,
        **rest,
    ) -> Phase:
        """A phase of one turn; `rest` are further attributes of the phase."""
        return cls(name, (Turn(name, loss, trains, optimizer),), epochs, **rest)

    @property
    def is_manual(self) -> bool:
        """Whether the turns are run by hand instead of by Lightning's automatic optimisation."""
        return len(self.turns) > 1 or self.chunk is not None or self.turns[0].every > 1


class StreamData(Protocol):
    """What the callbacks ask of a datamodule."""

    spec: ImageSpec
    tasks: tuple[Task, ...]
    current_task: int

    @property
    def stages(self) -> tuple[Task, ...]:
        """What the run walks over: the tasks, or their union as one task (its index the last one's)."""

    def dataset(self, split: Split, tasks: Sequence[int]) -> Dataset[Batch]:
        """Images of these tasks, in the order of the stream; a list of indices gives one `Batch`."""


@runtime_checkable
class Reconstructs(Protocol):
    """Has codes and turns them back into images."""

    def encode(self, batch: Batch) -> Tensor:
        """[B, Z], without gradient."""

    def decode(self, codes: Tensor, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        """[B, C, S, S] in [-1, 1], without gradient."""

    def reconstruct(self, batch: Batch) -> Tensor:
        """[B, C, S, S] in [-1, 1], without gradient."""


class Posterior(NamedTuple):
    """Independent normal distributions of a code's dimensions, one set for each image."""

    mean: Tensor  # [B, Z]
    log_var: Tensor  # [B, Z]


@runtime_checkable
class HasPosterior(Protocol):
    """Says how sure it is of the codes of images; the prior is the standard normal distribution."""

    def posterior(self, batch: Batch) -> Posterior:
        """q(z | x), without gradient."""


@runtime_checkable
class Classifies(Protocol):
    """Tells classes apart."""

    def classify(self, image: Tensor) -> Tensor:
        """float32 [B, C, S, S] in [-1, 1] -> logits [B, K]."""


@runtime_checkable
class Likelihood(Protocol):
    """Estimates the likelihood of images."""

    def log_likelihood(self, batch: Batch, draws: int) -> Tensor:
        """Nats per image, [B]."""


@runtime_checkable
class Translates(Protocol):
    """Carries images from one domain to another."""

    def translate(self, image: Tensor, to: Literal["a", "b"]) -> Tensor:
        """[B, C, S, S] in [-1, 1] twice."""
