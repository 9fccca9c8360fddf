"""Multiband GAN: a local GAN adapts to the task, then one global generator is aligned with it.

Source: Deja et al. 2023, "Adapt & Align: Continual Learning with Generative Models' Latent Space Alignment",
arXiv:2312.13699, and the authors' code.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from lit_gen.continual.multiband_gan_inversion import FoundNoise, find_noise, mean_squared_error
from lit_gen.continual.multiband_gan_local import ClassTables, LocalGAN
from lit_gen.core.frozen import FrozenCopy, copy_state
from lit_gen.core.module import LitGenerator, OptimizerFactory, ScheduleFactor
from lit_gen.core.schedules import Exponential
from lit_gen.core.types import (
    Batch,
    Fraction,
    ImageSpec,
    InputError,
    NonNegative,
    Phase,
    Positive,
    Task,
    Terms,
    Turn,
    do_nothing,
)
from lit_gen.losses.adversarial import AdversarialLoss, Wasserstein, game_terms
from lit_gen.nets.mlp import DenseDecoder, DenseEncoder
from lit_gen.nets.translator import Band, EmbeddingTranslator

log = logging.getLogger(__name__)
_WASSERSTEIN = Wasserstein()
_ADAM: OptimizerFactory = partial(torch.optim.Adam, lr=2e-4, betas=(0.0, 0.9))


@dataclass(frozen=True)
class Epochs:
    """Lengths of the phases; the defaults are the published ones.

    In the warm-up all batch norms are in training mode, as in the authors' code.
    """

    first: Positive = 320  # of the first task, which has no other phase
    local: Positive = 120
    align_warmup: NonNegative = 5  # only the translator learns
    align: Positive = 195


@dataclass(frozen=True)
class Decay:
    """Factors of the learning rate per epoch."""

    local: Fraction = 0.99
    align: Fraction = 0.99


class Pool(NamedTuple):
    """What the global generator is taught in one step: N draws, replayed ones first."""

    image: Tensor  # [N, C, S, S], targets
    noise: Tensor  # [N, Z]
    condition: Tensor  # int64 [N], tasks or classes
    is_replayed: Tensor  # bool [N]


class MultibandGAN(LitGenerator):
    """Multiband GAN.

    After the first task the global generator is the local one. A later task trains the local GAN, whose
    generator starts from the global one; then the global generator on draws of a frozen copy of itself for
    past tasks and on pairs of noise and image for the current task. A step of it takes
    int(batch_size * min(t, max_tasks) * replay_share) // t replayed draws of each of t past tasks.

    Under "inversion" the images are those of the data, whose pixels must not change from epoch to epoch:
    data.flip=false, and data.binarize not dynamic.

        >>> model = MultibandGAN(ImageSpec(1, 8, 10), num_tasks=5)
        >>> list(model.sample(3, task=torch.tensor([0, 4, 2])).shape)
        [3, 1, 8, 8]

    Args:
        num_tasks: length of the stream.
        generator: noise and condition -> image; None is a dense one.
        critic: image, and one-hot class or None -> one score per image; None is a dense one.
        batch_size: images of one optimizer step and process.
        condition: what generators are told. With "label" the critic is told it too, and replay draws the
            classes of each past task in proportion to their numbers of images.
        critic_steps: batches per step of the local generator, n_critic.
        penalty_weight: of the gradient penalty; 0 leaves it out.
        epochs: lengths of the phases.
        decay: learning rates fall by these factors per epoch.
        critic_optimizer: None takes `optimizer`, which is the local generator's.
        align_optimizer: of the global generator; None takes `optimizer`.
        new_critic_every_task: every task's critic begins with the same first weights instead of going on.
        replay_share: replayed images per image and past task.
        max_tasks: past tasks beyond which the number of replayed images does not grow.
        current_pairs: "only_generations" pairs fresh noise with the local generator's image, "inversion" a
            real image with the noise from which the local generator comes nearest to it.
        inversion_steps: of Adam, per image.
        inversion_rate: Adam's learning rate.
        max_images: training images of the largest task, for which "inversion" keeps the noise.
    """

    needs_every_task = True

    def __init__(
        self,
        spec: ImageSpec,
        num_tasks: Positive,
        generator: Band | None = None,
        critic: nn.Module | None = None,
        noise_size: Positive = 100,
        loss: AdversarialLoss = _WASSERSTEIN,
        batch_size: Positive = 64,
        condition: Literal["task", "label"] = "task",
        critic_steps: Positive = 5,
        penalty_weight: Annotated[float, Ge(0)] = 10.0,
        epochs: Epochs = Epochs(),
        decay: Decay = Decay(),
        new_critic_every_task: bool = False,
        replay_share: Annotated[float, Gt(0)] = 0.5,
        max_tasks: Positive = 3,
        current_pairs: Literal["only_generations", "inversion"] = "only_generations",
        inversion_steps: Positive = 1000,
        inversion_rate: Annotated[float, Gt(0)] = 0.1,
        max_images: Positive = 20_000,
        optimizer: OptimizerFactory = _ADAM,
        critic_optimizer: OptimizerFactory | None = None,
        align_optimizer: OptimizerFactory | None = None,
        schedule: ScheduleFactor | None = None,
    ) -> None:
        super().__init__(spec, optimizer, schedule)
        if condition == "label" and self.spec.num_classes == 0:
            raise InputError("model.condition=label: the data has no labels; model.condition=task needs none")
        num_classes = self.spec.num_classes if condition == "label" else 0
        self.conditions = frozenset({condition})
        self.batch_size, self.replay_share, self.max_tasks = batch_size, replay_share, max_tasks
        self.num_tasks = num_tasks
        self._check_replay()
        if generator is None:
            translator = EmbeddingTranslator(noise_size, num_classes or num_tasks, 4 * noise_size, noise_size)
            generator = Band(translator, DenseDecoder(*spec[:2], noise_size))
        if critic is None:
            critic = DenseEncoder(*spec[:2], 1, condition_size=num_classes, slope=0.2)
        self.local = LocalGAN(generator, critic, noise_size, loss, penalty_weight, num_classes)
        self.generator = copy.deepcopy(generator)
        self.previous = FrozenCopy(generator)
        self.first_critic = FrozenCopy(critic) if new_critic_every_task else None
        self.critic_steps, self.epochs, self.decay = critic_steps, epochs, decay
        self.critic_optimizer, self.align_optimizer = critic_optimizer, align_optimizer
        self.inverts = current_pairs == "inversion"
        self.inversion_steps, self.inversion_rate = inversion_steps, inversion_rate
        self.found = FoundNoise(max_images if self.inverts else 0, noise_size)
        self.classes = ClassTables(num_tasks, num_classes)
        self.register_buffer("tasks_seen", torch.zeros((), dtype=torch.long))

    def phases(self, task: Task) -> tuple[Phase, ...]:
        self._check_size(task)
        self.classes.check(task)
        epochs, decay = self.epochs, self.decay
        turns = (
            Turn("critic", self.local.critic_loss, (self.local.critic,), self.critic_optimizer),
            Turn("generator", self.local.generator_loss, (self.local.generator,), every=self.critic_steps),
        )
        if task.index == 0:
            schedule = Exponential(decay.local, epochs.first)
            return (Phase("local", turns, epochs.first, schedule, end=self._adopt_local),)
        prepare = partial(self.with_replay, task.index, task.first_index)
        shared = {"prepare": prepare, "optimizer": self.align_optimizer}
        table = (
            Phase("local", turns, epochs.local, Exponential(decay.local, epochs.local),
                  begin=self._start_from_global),
            Phase.single("invert", partial(self.invert, task.first_index), (),
                         begin=self.found.forget, end=self._report_inversion),
            Phase.single("align_warmup", self.align_loss, (self.generator.translator,), epochs.align_warmup,
                         schedule=Exponential(decay.align, epochs.align_warmup),
                         begin=self._freeze_global, keeps_statistics=(self.generator.decoder,), **shared),
            Phase.single("align", self.align_loss, (self.generator,), epochs.align,
                         schedule=Exponential(decay.align, epochs.align), end=self._close_task,
                         begin=self._freeze_global if epochs.align_warmup == 0 else do_nothing, **shared),
        )  # fmt: skip
        return tuple(p for p in table if p.epochs != 0 and (self.inverts or p.name != "invert"))

    def align_loss(self, pool: Pool, progress: float) -> Terms:
        """The error of the global generator, also apart for past tasks and for the current one."""
        error = mean_squared_error(self.generator(pool.noise, pool.condition), pool.image)
        # Not error[is_replayed]: a GPU would have to be waited for.
        past, now = pool.is_replayed.float(), (~pool.is_replayed).float()
        replayed, current = ((error.detach() * part).sum() / part.sum() for part in (past, now))
        return {"loss": error.mean(), "replayed": replayed, "current": current}

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Terms:
        """How well the critic, which knows the last task, tells images from the local generator's, and how
        far apart it scores images and what this model draws."""
        condition = self.local.condition(batch)
        images = (batch.image, self.local.generated(len(condition), condition), self._draw(condition))
        real, local, drawn = (self.local.score(image, condition) for image in images)
        return game_terms(self.local.loss, real, local) | {"gap_of_samples": real.mean() - drawn.mean()}

    def generate(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        """From the global generator where it has absorbed the task, or the class, and else from the local."""
        return self._draw((label if task is None else task).to(self.device))

    @torch.no_grad()
    def sample_local(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        return self.local.generated(n, (label if task is None else task).to(self.device))

    @torch.no_grad()
    def translated(self, task: Tensor) -> Tensor:
        """Draws of these tasks in the global generator's latent space, [B, D]."""
        condition = self.classes.draw(task.to(self.device))
        return self.generator.translator(self.local.noise(len(condition)), condition)

    @torch.no_grad()
    def decode_translated(self, code: Tensor) -> Tensor:
        return self.generator.decoder(code)

    def use_batches_of(self, size: int) -> None:
        self.batch_size = size
        self._check_replay()

    # --- what the phases call

    def num_replayed(self, num_past: int) -> int:
        """Replayed images of each past task in a step: 32, 32, 32, 24, ... of a batch of 64."""
        return int(self.batch_size * min(num_past, self.max_tasks) * self.replay_share) // num_past

    @torch.no_grad()
    def with_replay(self, num_past: int, first_index: int, batch: Batch) -> Pool:
        """Draws of past tasks, and pairs of noise and image for the current one."""
        past = torch.arange(num_past, device=self.device).repeat_interleave(self.num_replayed(num_past))
        condition, now = self.classes.draw(past), self.local.condition(batch)
        past_noise = self.local.noise(len(condition))
        if self.inverts:
            noise, image = self.found.noise[batch.index - first_index], batch.image
        else:
            noise = self.local.noise(len(now))
            image = self.local.generator(noise, now)
        return Pool(
            torch.cat([self.previous(past_noise, condition), image]),
            torch.cat([past_noise, noise]),
            torch.cat([condition, now]),
            torch.arange(len(past) + len(now), device=self.device) < len(past),
        )

    def invert(self, first_index: int, batch: Batch, progress: float) -> Terms:
        """A pass without training: the noise of the task's images, on every process that of all of them."""
        condition = self.local.condition(batch)
        draw = partial(self.local.generator, task=condition)
        start = self.local.noise(len(condition))
        found = find_noise(draw, batch.image, start, self.inversion_steps, self.inversion_rate)
        self.found.keep(batch.index - first_index, *found)
        return {}

    @torch.no_grad()
    def _draw(self, condition: Tensor) -> Tensor:
        is_absorbed = self.classes.are_seen(condition, int(self.tasks_seen))
        noise = self.local.noise(len(condition))
        if is_absorbed.all():
            return self.generator(noise, condition)
        return torch.where(
            is_absorbed[:, None, None, None],
            self.generator(noise, condition),
            self.local.generator(noise, condition),
        )

    def _start_from_global(self, task: Task) -> None:
        copy_state(self.generator, self.local.generator)
        if self.first_critic is not None:
            copy_state(self.first_critic.net, self.local.critic)

    def _freeze_global(self, task: Task) -> None:
        self.previous.refresh(self.generator)

    def _report_inversion(self, task: Task) -> None:
        error = float(self.found.error[: task.num_images].mean())
        log.info("task %s: %.5f per pixel is the mean squared error of inverted images", task.name, error)

    def _adopt_local(self, task: Task) -> None:
        copy_state(self.local.generator, self.generator)
        self._close_task(task)

    def _close_task(self, task: Task) -> None:
        self.classes.close(task)
        self.tasks_seen.fill_(task.index + 1)

    def _check_replay(self) -> None:
        for num_past in range(1, self.num_tasks):
            if self.num_replayed(num_past) == 0:
                raise InputError(
                    f"model.batch_size={self.batch_size} with model.replay_share={self.replay_share} and "
                    f"model.max_tasks={self.max_tasks} leaves no replayed image for each of {num_past} past "
                    f"tasks of num_tasks={self.num_tasks}; raise data.batch_size, model.replay_share or "
                    "model.max_tasks"
                )

    def _check_size(self, task: Task) -> None:
        if self.inverts and task.num_images > len(self.found.noise):
            raise InputError(
                f"model.max_images={len(self.found.noise)}: task {task.name} has {task.num_images} training "
                "images. Set it to the size of the largest task, or model.current_pairs=only_generations"
            )
