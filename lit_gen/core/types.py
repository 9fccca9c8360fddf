"""The words that every floor of the house speaks: batches, tasks, phases, and what a model may promise."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple, Protocol, runtime_checkable

from annotated_types import Ge, Gt, Le
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from lit_gen.core.batch import Batch, ImageSpec, PairBatch, SequenceSpec, Spec  # noqa: F401

Terms = dict[str, Tensor]
"""Scalars by name. "loss" is minimised; all of them are logged."""

Positive = Annotated[int, Gt(0)]
NonNegative = Annotated[int, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
Params = Iterable[nn.Parameter]
OptimizerFactory = Callable[[Params], Optimizer]
ScheduleFactor = Callable[[float], float]
"""Of the learning rate, over progress in [0, 1]."""
Split = Literal["train", "val", "test"]


class InputError(ValueError):
    """Something the user gave cannot be used: a value, a file, a checkpoint. The command line exits with 2.

    The message names the key or the file, what came, what is allowed, and the way out.
    """


def below(key: str, problem: str) -> str:
    """What is wrong at a key: "key.argument=..." where that begins with an argument, else "key: ..."."""
    return f"{key}{'.' if re.match('[a-zA-Z_][a-zA-Z0-9_.]*=', problem) else ': '}{problem}"


def together(*steps: Callable[[], Any]) -> list[Any]:
    """What each step returns; one InputError with the complaints of all of them that have one."""
    results, complaints = [], []
    for step in steps:
        try:
            results.append(step())
        except InputError as error:
            complaints.append(str(error))
    if complaints:
        raise InputError("\n".join(dict.fromkeys(complaints)))
    return results


class Diverged(RuntimeError):
    """Training cannot go on: a loss or a weight is no number any more, or beyond what is allowed.

    The message says where, which checkpoint is still good, and what to try.
    """


class Task(NamedTuple):
    """One task of a stream; a data set without a split is a stream of one task."""

    index: int  # 0-based
    name: str  # "0-1", "smiling"
    label_counts: tuple[int, ...]  # training images per class, length num_classes
    first_index: int  # Batch.index of its first training image
    num_images: int  # training images


class Dealt(NamedTuple):
    """How many images one batch of training has, those that it repeats to be as long as others left out."""

    own: int  # of this process; 0: it only repeats
    images: int  # of all processes
    weight: float = 1.0  # with which means over `own` make, on average, that over the step


def do_nothing(task: Task) -> None:
    """Default of a phase's `begin` and `end`."""


Look = Callable[[int], Sequence[Batch]]
"""Gives that many of a task's training images, ready for the model, in a few batches: others in every epoch,
the same on every process. A longer look begins with the shorter one."""


@dataclass(frozen=True)
class Turn:
    """One optimizer step of a phase; a GAN's phase has two.

    Attributes:
        loss: (batch, progress in [0, 1]) -> terms.
        trains: everything else is frozen (`requires_grad`) in this turn.
        optimizer: makes the optimizer of these parameters; None is the model's own.
        every: taken on every n-th batch of the phase (the n_critic of WGAN).
        after_backward: when the gradients of a step are there, averaged over processes, before they are
            clipped and used: changes them in place (projections), and may compute further gradients.
        after_step: after the optimizer's step, while its gradients are still there, without gradient itself:
            what follows the course of weights (path integrals), or bounds them.
    """

    name: str
    loss: Callable[[Batch, float], Terms]
    trains: tuple[nn.Module, ...]
    optimizer: OptimizerFactory | None = None
    every: int = 1
    after_backward: Callable[[], None] | None = None
    after_step: Callable[[], None] | None = None


@dataclass(frozen=True)
class Phase:
    """One loss (or several in turns), one set of trained modules, one optimizer each, for a given length.

    A phase that trains nothing is a pass: each turn's loss sees every image of the task once.

    Attributes:
        epochs, steps, images: its length, in one of them; without any that of the Trainer (`max_epochs`,
            `max_steps`). A step is one batch of every process through all turns, or with accumulated
            gradients several; images are those of all processes, and the phase ends with the step that
            reaches them.
        schedule: over this phase's own progress; None is the model's.
        span: the part of a longer course that this phase is; the `progress` given to losses runs over it.
        prepare: once per batch, without gradient: mixes replay in, builds a pool.
        chunk: the prepared pool is cut into minibatches of this size, one optimizer step each.
        each_epoch: (task, look) at the start of an epoch; leaves nothing that must be saved.
        begin: before the fit; changes parameters and buffers only, wherever the module is.
        end: after the fit, likewise.
        keeps_statistics: modules in training mode whose weights stay: batch norm takes the statistics of
            batches in them, and keeps running ones.
        with_grad: of a pass: losses may take gradients with respect to all weights but those of frozen
            copies, in evaluation mode. Each process has its own images; what they sum up is summed over
            processes by the family (`core.processes.summed`).

    Raises:
        ValueError: more than one length.
    """

    name: str
    turns: tuple[Turn, ...]
    epochs: int | None = None
    schedule: ScheduleFactor | None = None
    span: tuple[float, float] = (0.0, 1.0)
    prepare: Callable[[Batch], Batch] | None = None
    chunk: int | None = None
    each_epoch: Callable[[Task, Look], None] | None = None
    begin: Callable[[Task], None] = do_nothing
    end: Callable[[Task], None] = do_nothing
    steps: int | None = None
    images: int | None = None
    with_grad: bool = False
    keeps_statistics: tuple[nn.Module, ...] = ()

    def __post_init__(self) -> None:
        if sum(length is not None for length in (self.epochs, self.steps, self.images)) > 1:
            raise ValueError(f"phase {self.name}: takes one of epochs, steps and images, not several")

    @classmethod
    def single(
        cls,
        name: str,
        loss: Callable[[Batch, float], Terms],
        trains: tuple[nn.Module, ...],
        epochs: int | None = None,
        optimizer: OptimizerFactory | None = None,
        **rest,
    ) -> Phase:
        """A phase of one turn; `rest` are further attributes of the phase."""
        return cls(name, (Turn(name, loss, trains, optimizer),), epochs, **rest)

    def framed(
        self, before: Callable[[Task], None] = do_nothing, after: Callable[[Task], None] = do_nothing
    ) -> Phase:
        """The same phase with something done before its `begin` and after its `end`."""

        def begin(task: Task) -> None:
            before(task)
            self.begin(task)

        def end(task: Task) -> None:
            self.end(task)
            after(task)

        return replace(self, begin=begin, end=end)

    @property
    def trains(self) -> tuple[nn.Module, ...]:
        """What its turns train."""
        return tuple(module for turn in self.turns for module in turn.trains)

    @property
    def is_manual(self) -> bool:
        """Whether the turns are run by hand instead of by Lightning's automatic optimisation."""
        return len(self.turns) > 1 or self.chunk is not None or self.turns[0].every > 1


class StreamData(Protocol):
    """What the callbacks ask of a datamodule."""

    spec: Spec
    tasks: tuple[Task, ...]
    current_task: int

    @property
    def stages(self) -> tuple[Task, ...]:
        """What the run walks over: the tasks, or their union as one task (its index the last one's)."""

    def dataset(self, split: Split, tasks: Sequence[int]) -> Dataset[Batch]:
        """Images of these tasks, in the order of the stream; a list of indices gives one `Batch`."""


@runtime_checkable
class LearnsLocally(Protocol):
    """Learns the current task apart before it consolidates it."""

    def sample_local(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        """Like `sample`, from what learned the current task; with the same noise, without gradient."""


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
class TranslatesCodes(Protocol):
    """Places what it draws of every task in one latent space."""

    def translated(self, task: Tensor) -> Tensor:
        """A draw of each of these tasks in it: int64 [B] -> [B, D], without gradient."""

    def decode_translated(self, code: Tensor) -> Tensor:
        """[B, D] -> [B, C, S, S] in [-1, 1], without gradient."""


@runtime_checkable
class Restores(Protocol):
    """Gives an image back, with or without codes."""

    def reconstruct(self, batch: Batch) -> Tensor:
        """[B, C, S, S] in [-1, 1], without gradient."""


class Posterior(NamedTuple):
    """Independent normal distributions of a code's dimensions, one set for each image."""

    mean: Tensor  # [B, Z]
    log_var: Tensor  # [B, Z]


@runtime_checkable
class Remembers(Protocol):
    """Gives training images back by their places in the stream."""

    def at(self, place: Tensor) -> Tensor:
        """int64 [B] -> [B, C, S, S] in [-1, 1], without gradient.

        Raises:
            InputError: there has been no such place.
        """


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
class Diffuses(Protocol):
    """Takes noise away in steps, along a path of `lit_gen.diffusion.path`."""

    path: nn.Module

    def denoiser(
        self,
        guidance: float = 0.0,
        clip: bool = False,
        *,
        label: Tensor | None = None,
        task: Tensor | None = None,
    ) -> Callable:
        """(x_t, t) -> what x_t is made of."""

    def denoised(
        self, x: Tensor, t: float, *, label: Tensor | None = None, task: Tensor | None = None
    ) -> Tensor:
        """x_t [B, C, S, S] without its noise, without gradient."""

    def features(self, batch: Batch, t: float) -> dict[str, Tensor]:
        """What the network makes of the images with the noise of time t on them, by depth: [B, C_i] each,
        without gradient.
        """


@runtime_checkable
class Translates(Protocol):
    """Carries images from one domain to another."""

    def translate(self, image: Tensor, to: Literal["a", "b"]) -> Tensor:
        """[B, C, S, S] in [-1, 1] twice."""
