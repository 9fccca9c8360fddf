"""ProGAN: a generator and a critic that learn small images first and then grow.

Source: Karras et al. 2018, "Progressive growing of GANs for improved quality, stability, and variation",
arXiv:1710.10196, sections 2 and 4 and appendix A.1.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge
from torch import Tensor, nn

from lit_gen.core.module import OptimizerFactory, ScheduleFactor
from lit_gen.core.types import Batch, ImageSpec, InputError, NonNegative, Phase, Positive, Task, Turn
from lit_gen.families.base import Adversaries, ConditionalGenerator, ConditionKind
from lit_gen.losses.adversarial import AdversarialLoss, Wasserstein
from lit_gen.nets.progan import GrowingCritic, GrowingGenerator, enlarged, reduced, resolutions

_WASSERSTEIN = Wasserstein()
_ADAM: OptimizerFactory = partial(torch.optim.Adam, lr=1e-3, betas=(0.0, 0.99))


class Growth(NamedTuple):
    """How far the networks have grown."""

    level: int  # place in ProGAN.sizes
    fade: float  # how much the level counts beside the one before, in [0, 1]


class ProGAN(Adversaries, ConditionalGenerator):
    """Two turns per minibatch, at one size of images after the other.

    Each size after the first begins with a phase that fades its layers in; `progress` is their weight. Every
    phase makes new optimizers. The task that opens a stream makes the networks grow; the later ones have the
    last phase only.

        >>> model = ProGAN(ImageSpec(3, 32, 0), first_size=8)
        >>> model.sizes, list(model.sample(2).shape)
        ((8, 16, 32), [2, 3, 32, 32])

    Args:
        generator: noise [B, noise_size], condition [B, K] or None, level, fade -> image [B, C, s, s];
            has `sizes` and `up_to` as a `GrowingGenerator`, which None is.
        critic: image, condition, level, fade -> one score per image, higher for real ones; None is
            a `GrowingCritic`.
        first_size: of the first images; doubled until it is `spec.size`.
        stable_epochs: of a phase at one size.
        fade_epochs: of a phase that fades the next size in; 0 leaves these phases out.
        loss: of both, an object of `lit_gen.losses.adversarial`.
        critic_steps: minibatches per step of the generator, n_critic.
        penalty_weight: of the gradient penalty; 0 leaves it out.
        drift_weight: of the mean square of the scores of real images, which keeps them near 0.
        critic_optimizer: None is the model's own.
    """

    def __init__(
        self,
        spec: ImageSpec,
        generator: nn.Module | None = None,
        critic: nn.Module | None = None,
        noise_size: Positive = 128,
        first_size: Positive = 4,
        stable_epochs: Positive = 4,
        fade_epochs: NonNegative = 4,
        loss: AdversarialLoss = _WASSERSTEIN,
        critic_steps: Positive = 1,
        penalty_weight: Annotated[float, Ge(0)] = 10.0,
        drift_weight: Annotated[float, Ge(0)] = 0.001,
        condition: ConditionKind = "none",
        condition_size: NonNegative | None = None,
        optimizer: OptimizerFactory = _ADAM,
        critic_optimizer: OptimizerFactory | None = None,
        schedule: ScheduleFactor | None = None,
    ) -> None:
        super().__init__(spec, condition, condition_size, optimizer, schedule)
        self.sizes = resolutions(first_size, self.spec.size)
        told = {"condition_size": self.condition_size}
        if generator is None:
            generator = GrowingGenerator(*spec[:2], noise_size, first_size, **told)
        if critic is None:
            critic = GrowingCritic(*spec[:2], first_size, **told)
        for name, net in (("generator", generator), ("critic", critic)):
            if tuple(net.sizes) != self.sizes:
                raise InputError(
                    f"model.{name} has levels for images of {', '.join(map(str, net.sizes))} pixels; "
                    f"model.first_size={first_size} and data.spec.size={self.spec.size} need "
                    f"{', '.join(map(str, self.sizes))}. Set its size and first_size to theirs"
                )
        self.generator, self.critic = generator, critic
        self.noise_size, self.critic_steps = noise_size, critic_steps
        self.stable_epochs, self.fade_epochs = stable_epochs, fade_epochs
        self.loss, self.penalty_weight, self.drift_weight = loss, penalty_weight, drift_weight
        self.critic_optimizer = critic_optimizer
        # How far a checkpoint's weights have grown.
        self.register_buffer("level", torch.zeros((), dtype=torch.long))
        self.register_buffer("fade", torch.ones(()))

    def phases(self, task: Task) -> tuple[Phase, ...]:
        last = len(self.sizes) - 1
        if task.first_index > 0:
            return (self._phase(last, fades=False),)
        return tuple(
            self._phase(level, fades)
            for level in range(last + 1)
            for fades in (True, False)
            if not fades or (level > 0 and self.fade_epochs > 0)
        )

    def _phase(self, level: int, fades: bool) -> Phase:
        now = {"level": level, "fades": fades}
        critic, generator = ((net.up_to(**now),) for net in (self.critic, self.generator))
        turns = (
            Turn("critic", partial(self.critic_loss, **now), critic, self.critic_optimizer),
            Turn("generator", partial(self.generator_loss, **now), generator, every=self.critic_steps),
        )
        return Phase(
            f"{'fade' if fades else 'stable'}_{self.sizes[level]}",
            turns,
            self.fade_epochs if fades else self.stable_epochs,
            begin=lambda task: self._grow(Growth(level, 0.0 if fades else 1.0)),
            end=lambda task: self._grow(Growth(level, 1.0)),
        )

    def told(
        self, batch: Batch, progress: float, level: int | None = None, fades: bool = False
    ) -> tuple[Tensor | None, int, float]:
        """Outside of a phase, without a level, what the networks have grown to."""
        growth = self.growth() if level is None else self._grow(Growth(level, progress if fades else 1.0))
        return (self.one_hot(label=batch.label, task=batch.task), *growth)

    def real(self, image: Tensor, condition: Tensor | None, level: int, fade: float) -> Tensor:
        """Averaged down to the level, and mixed with the level before while it fades in: [B, C, S, S] ->
        [B, C, s, s]."""
        image = reduced(image, self.spec.size // self.sizes[level])
        if level == 0 or fade >= 1:
            return image
        return torch.lerp(enlarged(reduced(image)), image, fade)

    def generate(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        growth = self.growth()
        image = self.generated(n, self.one_hot(label=label, task=task), *growth)
        return enlarged(image, self.spec.size // self.sizes[growth.level]).clamp(-1, 1)

    def growth(self) -> Growth:
        """How far the networks have grown, also in a loaded checkpoint."""
        return Growth(int(self.level), float(self.fade))

    @torch.no_grad()
    def _grow(self, growth: Growth) -> Growth:
        self.level.fill_(growth.level)
        self.fade.fill_(growth.fade)
        return growth
