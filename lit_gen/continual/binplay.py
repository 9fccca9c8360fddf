"""BinPlay: a decoder memorises images by codes of their places in the stream, which need not be kept.

Source: Deja et al. 2020, "BinPlay: A Binary Latent Autoencoder for Generative Replay Continual Learning",
arXiv:2011.14960, and the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from lit_gen.continual.assignment import ASSIGN
from lit_gen.continual.place_codes import PlaceCodes, UniqueCodes, signs
from lit_gen.continual.pool import PastTasks
from lit_gen.core.frozen import FrozenCopy
from lit_gen.core.module import LitGenerator, LitModel, OptimizerFactory, ScheduleFactor
from lit_gen.core.processes import gathered, summed
from lit_gen.core.random import processes
from lit_gen.core.schedules import Exponential
from lit_gen.core.types import (
    Batch,
    ImageSpec,
    InputError,
    Look,
    NonNegative,
    Phase,
    Positive,
    Task,
    Terms,
)
from lit_gen.families.base import ADAM, Reconstruction
from lit_gen.losses.reconstruction import unit_squared_error
from lit_gen.nets.mlp import DenseDecoder, DenseEncoder

TASK_BITS, TASK_FACTOR = 10, 307  # of the code that a decoder is told of a task

Data = Literal["original", "original_through_vae", "generated"]


@dataclass(frozen=True)
class Epochs:
    """Lengths of the phases; the published ones."""

    codes: Positive = 20
    decoder: Positive = 200
    classifier: Positive = 15


class Pairs(NamedTuple):
    """What the decoder learns: codes, tasks, and the images that they stand for."""

    code: Tensor  # [B, L]
    task: Tensor  # int64 [B]
    image: Tensor  # [B, C, S, S]


class Numbers(nn.Module):
    """Which code each image of the current task has, by its place in the task; empty between tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("number", torch.zeros(0, dtype=torch.long))

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *args: Any) -> None:
        if prefix + "number" in state:
            self.number = self.number.new_zeros(len(state[prefix + "number"]))
        super()._load_from_state_dict(state, prefix, *args)


class BinPlay(LitGenerator):
    """An autoencoder chooses a code for every image of a task among those of its places. A new decoder learns
    the images by these codes, and past ones from what the decoder before makes of theirs. A classifier learns
    from what the decoder makes of all of them.

    Kept from task to task are networks and how many images each task had.

        >>> from lit_gen import Classifier
        >>> spec = ImageSpec(1, 8, 10)
        >>> model = BinPlay(spec, 5, Classifier(spec))
        >>> model.past.close(Task(0, "0-1", (30, 30, *[0] * 8), 0, 60))
        >>> list(model.at(torch.arange(4)).shape)
        [4, 1, 8, 8]

    Args:
        num_tasks: length of the stream.
        classifier: such as `Classifier`, with its own optimizer; the authors' net is a `DropoutLeNet`.
        codes: of places.
        encoder: image -> [B, L]; None is a dense one.
        decoder: code [B, L] and the task's bits [B, 10] -> image; None is a dense one.
        assign: how the images of a batch are given codes, see `assignment`.
        epochs: lengths of the phases.
        free_epochs: of the first phase, in which the encoder need not come near to any code.
        code_weight: of the mean squared distance between an image's latent and its code, beside the
            reconstruction; the authors weigh the sum over a batch of 40 by 10.
        repeats: minibatches of the decoder for every batch of the task, from the second task on. None is
            3 max(5 - t, 1) at task t, the authors' for images of 28 pixels; theirs for 32 is 3.
        data: that the classifier learns from: "original" real images of the task, "original_through_vae" what
            encoder and decoder make of these, "generated" what the decoder makes of their codes.
        first_decoder_optimizer: of the decoder in the first task; None, as of all others, is `optimizer`.
    """

    needs_every_task = True
    conditions = frozenset({"task"})

    def __init__(
        self,
        spec: ImageSpec,
        num_tasks: Positive,
        classifier: LitModel,
        codes: PlaceCodes | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        assign: Literal["greedy", "auction", "hungarian"] = "greedy",
        epochs: Epochs = Epochs(),
        free_epochs: NonNegative = 3,
        code_weight: Annotated[float, Ge(0)] = 400.0,
        repeats: Positive | None = None,
        data: Data = "generated",
        reconstruction: Reconstruction = unit_squared_error,
        optimizer: OptimizerFactory = ADAM,
        first_decoder_optimizer: OptimizerFactory | None = None,
        schedule: ScheduleFactor | None = None,
    ) -> None:
        super().__init__(spec, optimizer, schedule)
        if spec.num_classes == 0:
            raise ValueError("BinPlay: the data has no labels (data.spec.num_classes=0) for its classifier")
        self.codes = UniqueCodes() if codes is None else codes
        size = (spec.channels, spec.size, self.codes.num_bits)
        self.encoder = DenseEncoder(*size) if encoder is None else encoder
        self.decoder = DenseDecoder(*size, condition_size=TASK_BITS, gain=0.5) if decoder is None else decoder
        self.classifier = classifier
        self.decoder_before, self.classifier_before = FrozenCopy(self.decoder), FrozenCopy(classifier)
        self.past, self.own = PastTasks(num_tasks, spec.num_classes), Numbers()
        self.register_buffer("num_dealt", torch.zeros((), dtype=torch.long))  # past places, to all processes
        self.assign, self.lengths, self.repeats, self.data = ASSIGN[assign], epochs, repeats, data
        self.free_epochs, self.code_weight, self.reconstruction = free_epochs, code_weight, reconstruction
        self.first_decoder_optimizer = first_decoder_optimizer
        self.batch_size = 40
        self._latent = torch.zeros(0)  # of the task's images, while codes are assigned
        self._in_epoch: tuple[Tensor, Tensor] | None = None  # codes of the task, and which are taken

    # --- what it is asked for

    def at(self, place: Tensor) -> Tensor:
        """The images of these places in the stream, int64 [N].

        Raises:
            InputError: one has not been seen.
        """
        sizes = self.past.sizes[: int(self.past.seen)].long()
        total = int(sizes.sum())
        if len(place) and not 0 <= int(place.min()) <= int(place.max()) < total:
            raise InputError(
                f"place={int(place.max())}: this model has seen {total:,} images, at the places from 0 on"
            )
        place = place.to(self.device)
        task = torch.bucketize(place, sizes.cumsum(0), right=True)
        return self._decoded(self.decoder, place, task)

    def generate(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        """Images of places of these tasks, drawn at random; of a task that is not over as it will be."""
        task = task.to(self.device)
        sizes = self.past.sizes.long().clamp(min=1)
        place = (torch.rand(n, device=self.device) * sizes[task]).long() + (sizes.cumsum(0) - sizes)[task]
        return self._decoded(self.decoder, place, task)

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        return self.encoder(batch.image)

    @torch.no_grad()
    def decode(self, codes: Tensor, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        return self.decoder(codes, self.told(task.to(self.device)))

    def reconstruct(self, batch: Batch) -> Tensor:
        return self.decode(self.encode(batch), task=batch.task)

    def classify(self, image: Tensor) -> Tensor:
        return self.classifier.classify(image)

    def evaluate(self, batch: Batch) -> Terms:
        found = self.classifier.evaluate(batch)
        error = self.reconstruction(self.reconstruct(batch), batch.image).mean()
        return {"reconstruction": error, "accuracy": found["accuracy"], "cross_entropy": found["loss"]}

    def told(self, task: Tensor) -> Tensor:
        """What a decoder is told of tasks: float32 [B, 10] of 0 and 1."""
        return (signs(task * TASK_FACTOR % 2**TASK_BITS, TASK_BITS) + 1) / 2

    # --- what trains

    def use_batches_of(self, size: int) -> None:
        self.batch_size = size

    def phases(self, task: Task) -> tuple[Phase, ...]:
        epochs, rate = self.lengths, Exponential(0.99, self.lengths.decoder)
        optimizer = None if task.index else self.first_decoder_optimizer
        # Before anything is trained: codes that do not reach so far say so.
        self.codes(torch.tensor([task.first_index + task.num_images - 1], device=self.device))
        return (
            Phase.single("codes", partial(self.code_loss, task), (self.encoder, self.decoder), epochs.codes,
                         each_epoch=self._free_codes, begin=self._begin),
            Phase.single("assignment", partial(self.look_at, task), (), begin=self._forget, end=self.choose),
            Phase.single("decoder", self.decoder_loss, (self.decoder,), epochs.decoder, optimizer,
                         schedule=rate, prepare=partial(self.with_past, task), chunk=self.batch_size,
                         begin=self._start_anew),
            Phase.single("classifier", self.class_loss, (self.classifier,), epochs.classifier,
                         self.classifier.make_optimizer, schedule=self.classifier.schedule,
                         prepare=partial(self.shown, task), begin=self._keep_classifier, end=self._close),
        )  # fmt: skip

    def code_loss(self, task: Task, batch: Batch, progress: float) -> Terms:
        """Reconstruction, and after the first epochs the distance to a free code."""
        latent = self.encoder(batch.image)
        error = self.reconstruction(self.decoder(latent, self.told(batch.task)), batch.image).mean()
        terms = {"loss": error, "reconstruction": error}
        if progress * self.lengths.codes > self.free_epochs + 1e-6:
            code = self._nearest(task, latent.detach().float(), batch.index)
            distance = (latent - code).square().sum(1).mean()
            terms |= {"loss": error + self.code_weight * distance, "code_distance": distance}
        return terms

    def look_at(self, task: Task, batch: Batch, progress: float) -> Terms:
        """Keeps the latents of images."""
        self._latent[batch.index - task.first_index] = self.encoder(batch.image).float()
        return {}

    def choose(self, task: Task) -> None:
        """Gives every image its code, batch by batch in the order of the stream."""
        latent, free = summed(self._latent), self._codes_of(task)
        taken = torch.zeros(len(free), dtype=torch.bool, device=self.device)
        number = torch.zeros(len(free), dtype=torch.long, device=self.device)
        for first in range(0, len(free), self.batch_size):
            part = slice(first, first + self.batch_size)
            number[part] = self._take(latent[part], free, taken)
        self.own.number, self._latent = number, torch.zeros(0)

    def with_past(self, task: Task, batch: Batch) -> Pairs:
        """For several minibatches images of the task with their codes, and equally many of each past one,
        dealt out place after place.
        """
        now = task.index
        own = Pairs(self._codes_of(task)[self._number(task, batch.index)], batch.task, batch.image)
        if now == 0:
            return own
        repeats = self.repeats or 3 * max(5 - now, 1)
        each = max(1, self.batch_size // (now + 1))
        kept, parts = max(1, self.batch_size - now * each), []
        for number in range(repeats):
            rows = (number * kept + torch.arange(kept, device=self.device)) % batch.size
            code, of_task = self._past_codes(now, each)
            parts += [Pairs(*(part[rows] for part in own))]
            parts += [Pairs(code, of_task, self.decoder_before(code, self.told(of_task)))]
        return Pairs(*map(torch.cat, zip(*parts, strict=True)))

    def decoder_loss(self, pairs: Pairs, progress: float) -> Terms:
        error = self.reconstruction(self.decoder(pairs.code, self.told(pairs.task)), pairs.image).mean()
        return {"loss": error, "reconstruction": error}

    def shown(self, task: Task, batch: Batch) -> Batch:
        """What the classifier is shown of the task, and as many images of each past one, without labels."""
        image = batch.image
        if self.data == "generated":
            code = self._codes_of(task)[self._number(task, batch.index)]
            image = self.decoder(code, self.told(batch.task))
        elif self.data == "original_through_vae":
            image = self.reconstruct(batch)
        batch = batch._replace(image=image)
        if task.index == 0:
            return batch
        code, of_task = self._past_codes(task.index, batch.size)
        unknown = torch.full_like(of_task, -1)
        past = Batch(self.decoder(code, self.told(of_task)), unknown, of_task, unknown)
        return Batch(*(torch.cat(pair) for pair in zip(batch, past, strict=True)))

    def class_loss(self, batch: Batch, progress: float) -> Terms:
        """Squared error of class probabilities, as the authors': from the labels of the task's images, and
        from what the classifier before the task says of the others.
        """
        chances = self.classify(batch.image).softmax(1)
        target = F.one_hot(batch.label.clamp(min=0), self.spec.num_classes).float()
        is_past = batch.label < 0
        if is_past.any():
            with torch.no_grad():
                before = self.classifier_before.net.classify(batch.image).softmax(1)
            target = torch.where(is_past[:, None], before, target)
        right = (chances.argmax(1) == target.argmax(1)).float().mean()
        return {"loss": (chances - target).square().mean(), "accuracy": right}

    # --- codes and places

    def _codes_of(self, task: Task) -> Tensor:
        return self.codes(task.first_index + torch.arange(task.num_images, device=self.device))

    def _number(self, task: Task, index: Tensor) -> Tensor:
        return self.own.number[index - task.first_index]

    @torch.no_grad()
    def _decoded(self, decoder: nn.Module, place: Tensor, task: Tensor) -> Tensor:
        return decoder(self.codes(place), self.told(task))

    def _past_codes(self, now: int, each: int) -> tuple[Tensor, Tensor]:
        """Codes of the next places of every past task, this process's of `each`, and their tasks."""
        world, rank = processes()
        order = self.num_dealt + rank + world * torch.arange(each, device=self.device)
        self.num_dealt += world * each
        sizes = self.past.sizes[:now].long()
        place = (sizes.cumsum(0) - sizes)[:, None] + order % sizes[:, None]
        task = torch.arange(now, device=self.device).repeat_interleave(each)
        return self.codes(place.flatten()), task

    def _nearest(self, task: Task, latent: Tensor, index: Tensor) -> Tensor:
        """A code for each image that no other one of the epoch has; the same for any number of processes."""
        if self._in_epoch is None:
            taken = torch.zeros(task.num_images, dtype=torch.bool, device=self.device)
            self._in_epoch = self._codes_of(task), taken
        codes, taken = self._in_epoch
        # By their places, each once: batches of several processes may repeat an image.
        places, row = gathered(index).unique(return_inverse=True)
        first = torch.full_like(places, len(row)).scatter_reduce_(
            0, row, torch.arange(len(row), device=self.device), "amin"
        )
        number = self._take(gathered(latent)[first], codes, taken)
        return codes[number[torch.searchsorted(places, index)]]

    def _take(self, latent: Tensor, codes: Tensor, taken: Tensor) -> Tensor:
        """The numbers of the codes that these images get, which are then taken."""
        cost = latent.square().sum(1, keepdim=True) - 2 * latent @ codes.T + codes.shape[1]
        cost[:, taken] = torch.inf
        number = self.assign(cost)
        taken[number] = True
        return number

    # --- between phases

    def _begin(self, task: Task) -> None:
        self.past.note(task)
        self.decoder_before.refresh(self.decoder)

    def _free_codes(self, task: Task, look: Look) -> None:
        self._in_epoch = None

    def _forget(self, task: Task) -> None:
        self._in_epoch = None
        self._latent = torch.zeros(task.num_images, self.codes.num_bits, device=self.device)

    def _start_anew(self, task: Task) -> None:
        self.num_dealt.zero_()
        if task.index:
            for part in self.decoder.modules():
                if hasattr(part, "reset_parameters"):
                    part.reset_parameters()

    def _keep_classifier(self, task: Task) -> None:
        self.classifier_before.refresh(self.classifier)

    def _close(self, task: Task) -> None:
        self.own.number = self.own.number[:0].clone()
        self.past.close(task)
