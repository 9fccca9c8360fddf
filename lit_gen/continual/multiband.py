"""Multiband VAE: a local VAE learns the task, then one global decoder, the band, absorbs it.

Source: Deja et al. 2022, "Multiband VAE: Latent Space Alignment for Knowledge Consolidation in Continual
Learning", arXiv:2106.12196, and the authors' code.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Gt, Le
from torch import Tensor

from lit_gen.continual.multiband_local import MultibandLocal
from lit_gen.core.frozen import FrozenCopy, copy_state
from lit_gen.core.module import OptimizerFactory, ScheduleFactor
from lit_gen.core.random import processes
from lit_gen.core.schedules import Exponential
from lit_gen.core.types import (
    Batch,
    Fraction,
    ImageSpec,
    Look,
    NonNegative,
    Phase,
    Positive,
    Task,
    Terms,
    do_nothing,
)
from lit_gen.families.base import ADAM, Reconstruction
from lit_gen.losses.reconstruction import squared_error
from lit_gen.nets.binary import BinaryEncoder, gaussian_code, thresholded
from lit_gen.nets.translator import Band

LOOK_SIZE = 1000  # real images of the task that controlled forgetting compares with


@dataclass(frozen=True)
class Epochs:
    """Lengths of the phases. The published ones are 210, 7 + 63 and 5 + 135.

    In warm-ups batch norms are in training mode everywhere, as in the authors' code.
    """

    first: Positive = 210  # of the first task, which has no other phase
    local_warmup: NonNegative = 7  # only the encoder learns, with a tenth of the rate
    local: Positive = 63
    band_warmup: NonNegative = 5  # only the translator learns
    band: Positive = 135


@dataclass(frozen=True)
class Decay:
    """Factors of the learning rate per epoch."""

    first: Fraction = 0.99
    local: Fraction = 0.98
    band: Fraction = 0.98


class Pool(NamedTuple):
    """Minibatches of the band are cut from it: real images with their codes, and replayed ones."""

    image: Tensor  # [N, C, S, S], targets
    code: Tensor  # [N, Z + bits]
    task: Tensor  # int64 [N]
    is_replaced: Tensor  # float32 [N], 1 where a replayed target gave way to a real image


class MultibandVAE(MultibandLocal):
    """A local VAE, and the band that absorbs what it learned.

    Samples come from the band, and those of a task that it has not absorbed from the local VAE.

    After the first task the band is the local VAE's. A later task trains the local VAE, which starts from the
    band and from the encoder of the task before; then the band on a pool of real images, coded by the local
    encoder, and of images that a frozen copy of the band draws of past tasks. A pool of a batch of B images
    holds int(B * min(t, max_tasks) * replay_share) replayed ones at task t.

        >>> model = MultibandVAE(ImageSpec(1, 8, 10), num_tasks=5)
        >>> list(model.sample(3, task=torch.tensor([0, 4, 2])).shape)
        [3, 1, 8, 8]

    Args:
        num_tasks: length of the stream.
        encoder: image -> BinaryPosterior; None is a dense one.
        band: code and task -> image; None is a dense one for the encoder's codes.
        batch_size: images of one optimizer step and process, also of those that a pool is cut into.
        epochs: lengths of the phases.
        decay: learning rates fall by these factors per epoch.
        band_optimizer: None takes `optimizer`, which is the local VAE's.
        reconstruction: (image, target) -> one value per image.
        reconstruction_weight: of the local VAE's reconstruction term beside a KL of weight 1.
        replay_share: replayed images per image and past task.
        max_tasks: past tasks beyond which the number of replayed images does not grow.
        similarity: gamma of controlled forgetting: a replayed image whose translated code has a cosine
            similarity above it to that of one of 1,000 real images, others in every epoch, gives way to that
            image; from the second epoch after the band's warm-up on. 1 turns it off.
        band_bits: "matched" draws the bits of real images with the probability sigmoid(2 a) that they have in
            the local VAE, "published" with the authors' sigmoid(a).
        band_reduction: of the band's loss over a minibatch; the authors' "sum" is B times the mean, which a
            clipped gradient feels.
    """

    needs_every_task = True

    def __init__(
        self,
        spec: ImageSpec,
        num_tasks: Positive,
        encoder: BinaryEncoder | None = None,
        band: Band | None = None,
        batch_size: Positive = 64,
        epochs: Epochs = Epochs(),
        decay: Decay = Decay(),
        reconstruction: Reconstruction = squared_error,
        reconstruction_weight: Annotated[float, Gt(0)] = 1.0,
        replay_share: Annotated[float, Gt(0)] = 0.5,
        max_tasks: Positive = 3,
        similarity: Annotated[float, Gt(0), Le(1)] = 1.0,
        band_bits: Literal["matched", "published"] = "matched",
        band_reduction: Literal["mean", "sum"] = "mean",
        optimizer: OptimizerFactory = ADAM,
        band_optimizer: OptimizerFactory | None = None,
        schedule: ScheduleFactor | None = None,
    ) -> None:
        super().__init__(
            spec, num_tasks, encoder, band, epochs.first, reconstruction, reconstruction_weight, optimizer,
            schedule,
        )  # fmt: skip
        self.previous_band = FrozenCopy(self.local.band)
        self.band = copy.deepcopy(self.local.band)
        self.register_buffer("tasks_seen", torch.zeros((), dtype=torch.long))
        self.lengths, self.decay, self.batch_size = epochs, decay, batch_size
        self.band_optimizer = band_optimizer
        self.replay_share, self.max_tasks = replay_share, max_tasks
        self.similarity, self.band_bits, self.band_reduction = similarity, band_bits, band_reduction
        self._looked_at: Pool | None = None  # real images and their codes, for one epoch

    def phases(self, task: Task) -> tuple[Phase, ...]:
        epochs, decay, now = self.lengths, self.decay, task.index
        if now == 0:
            loss = partial(self.local.loss, num_epochs=epochs.first)
            schedule = Exponential(decay.first, epochs.first)
            return (
                Phase.single("local", loss, (self.local,), epochs.first, schedule=schedule),
                Phase.single("bits", self.count_bits, (), begin=self._recount, end=self._adopt_local),
            )
        in_all = epochs.local_warmup + epochs.local
        loss = partial(self.local.loss, num_epochs=in_all)
        border = epochs.local_warmup / in_all
        full = Exponential(decay.local, epochs.local_warmup)
        prepare, look = partial(self.with_replay, now), self.look_around if self.similarity < 1 else None
        replay = {"prepare": prepare, "chunk": self.batch_size, "optimizer": self.band_optimizer}
        table = (
            Phase.single("local_warmup", loss, (self.local.encoder,), epochs.local_warmup,
                         schedule=lambda part: 0.1 * full(part), span=(0.0, border),
                         begin=self._start_from_band, keeps_statistics=(self.local.band,)),
            Phase.single("local", loss, (self.local,), epochs.local,
                         schedule=Exponential(decay.local, epochs.local), span=(border, 1.0),
                         begin=self._start_from_band),  # which the warm-up, if there is one, left as it is
            Phase.single("bits", self.count_bits, (), begin=self._recount),
            Phase.single("band_warmup", self.band_loss, (self.band.translator,), epochs.band_warmup,
                         schedule=Exponential(decay.band, epochs.band_warmup), begin=self._freeze_band,
                         keeps_statistics=(self.band.decoder,), **replay),
            Phase.single("band", self.band_loss, (self.band,), epochs.band,
                         schedule=Exponential(decay.band, epochs.band), each_epoch=look,
                         begin=self._freeze_band if epochs.band_warmup == 0 else do_nothing,
                         end=self._close_task, **replay),
        )  # fmt: skip
        return tuple(phase for phase in table if phase.epochs != 0)

    def use_batches_of(self, size: int) -> None:
        self.batch_size = size

    def band_loss(self, pool: Pool, progress: float) -> Terms:
        error = self.local.reconstruction(self.band(pool.code, pool.task), pool.image)
        # Over the images of all processes, whose gradients are averaged.
        loss = error.mean() if self.band_reduction == "mean" else error.sum() * processes()[0]
        return {"loss": loss, "reconstruction": error.mean(), "replaced": pool.is_replaced.mean()}

    def evaluate(self, batch: Batch) -> Terms:
        """Of the local VAE, whose encoder knows the last task, and of what this model reconstructs."""
        terms = self.local.loss(batch, 1.0)
        error = self.local.reconstruction(self.reconstruct(batch), batch.image)
        return terms | {"band_reconstruction": error.mean()}

    @torch.no_grad()
    def decode(self, codes: Tensor, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        task = task.to(self.device)
        is_absorbed = task < self.tasks_seen
        if is_absorbed.all():
            return self.band(codes, task)
        return torch.where(
            is_absorbed[:, None, None, None], self.band(codes, task), self.local.band(codes, task)
        )

    @torch.no_grad()
    def sample_local(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        task = task.to(self.device)
        return self.local.band(self.prior.draw(task), task)

    @torch.no_grad()
    def translated(self, task: Tensor) -> Tensor:
        """Draws of these tasks in the band's latent space, [B, D]."""
        task = task.to(self.device)
        return self.band.translator(self.prior.draw(task), task)

    @torch.no_grad()
    def decode_translated(self, code: Tensor) -> Tensor:
        return self.band.decoder(code)

    # --- what the phases call

    def num_replayed(self, num_past: int) -> int:
        """Replayed images in a pool: 32, 64, 96, 96, ... of a batch of 64 with the defaults."""
        return int(self.batch_size * min(num_past, self.max_tasks) * self.replay_share)

    @torch.no_grad()
    def with_replay(self, num_past: int, batch: Batch) -> Pool:
        """The batch with its codes and images of past tasks, shuffled."""
        past_code, past_task = self.prior.draw_shared(self.num_replayed(num_past), num_past)
        past, is_replaced = self._forget(past_code, past_task, self.previous_band(past_code, past_task))
        order = torch.randperm(len(past) + len(batch.image), device=past.device)
        return Pool(
            torch.cat([past, batch.image])[order],
            torch.cat([past_code, self._current_code(batch.image)])[order],
            torch.cat([past_task, batch.task])[order],
            torch.cat([is_replaced, is_replaced.new_zeros(len(batch.image))])[order],
        )

    @torch.no_grad()
    def look_around(self, task: Task, look: Look) -> None:
        """Keeps real images of the task and their codes for one epoch of controlled forgetting.

        Not for the first epoch of the phase: the authors forget in epochs beyond the number of the warm-up's.
        """
        if self.course.batches_done == 0:
            return
        batches = look(LOOK_SIZE)
        self._looked_at = Pool(
            torch.cat([batch.image for batch in batches]),
            torch.cat([self._current_code(batch.image) for batch in batches]),
            torch.cat([batch.task for batch in batches]),
            torch.zeros(()),
        )

    def _forget(self, code: Tensor, task: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Controlled forgetting: targets, of which some are now real images, and which these are."""
        if self._looked_at is None:
            return target, torch.zeros(len(target), device=target.device)
        real = F.normalize(self.band.translator(self._looked_at.code, self._looked_at.task), dim=1)
        replayed = F.normalize(self.band.translator(code, task), dim=1)
        nearest, place = (replayed @ real.T).max(1)
        is_replaced = nearest > self.similarity
        target = torch.where(is_replaced[:, None, None, None], self._looked_at.image[place], target)
        return target, is_replaced.float()

    def _current_code(self, image: Tensor) -> Tensor:
        """Draws codes of real images from the frozen local encoder."""
        posterior = self.local.encoder(image)
        chance = torch.sigmoid(posterior.logits * (2 if self.band_bits == "matched" else 1))
        return torch.cat([gaussian_code(posterior), thresholded(torch.rand_like(chance), chance)], 1)

    def _recount(self, task: Task) -> None:
        self.prior.reset(task.index, task.index + 1)

    def _adopt_local(self, task: Task) -> None:
        copy_state(self.local.band, self.band)
        self._close_task(task)

    def _start_from_band(self, task: Task) -> None:
        copy_state(self.band, self.local.band)

    def _freeze_band(self, task: Task) -> None:
        self.previous_band.refresh(self.band)
        self._looked_at = None

    def _close_task(self, task: Task) -> None:
        self.tasks_seen.fill_(task.index + 1)
        self._looked_at = None
