"""ProGAN: a generator and a critic that learn small images first and then grow.

Source: Karras et al. 2018, "Progressive growing of GANs for improved quality, stability, and variation",
arXiv:1710.10196, sections 2 and 4 and appendix A.1.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, NamedTuple, Protocol

import torch
from annotated_types import Ge
from torch import Tensor, nn

from lit_gen.core.module import OptimizerFactory
from lit_gen.core.types import Batch, InputError, NonNegative, Phase, Positive, Task, Terms, Turn
from lit_gen.families.base import ConditionalGenerator
from lit_gen.losses.adversarial import AdversarialLoss, critic_terms, game_terms
from lit_gen.nets.progan import enlarged, reduced, resolutions


class Growing(Protocol):
    """A network with a part for every size of images: a module that is called with `level` and `fade`."""

    sizes: tuple[int, ...]

    def up_to(self, level: int, fades: bool = False) -> nn.Module:
        """The part that is used at a level; with `fades` also what fades out there."""


class Growth(NamedTuple):
    """How far the networks have grown."""

    level: int  # place in ProGAN.sizes
    fade: float  # how much the level counts beside the one before, in [0, 1]


class ProGAN(ConditionalGenerator):
    """Two turns per minibatch, at one size of images after the other.

    Each size after the first begins with a phase that fades its layers in; `progress` is their weight. Every
    phase makes new optimizers. The task that opens a stream makes the networks grow; the later ones have the
    last phase only.

    Args:
        generator: noise [B, noise_size], condition [B, K] or None, level, fade -> image [B, C, s, s].
        critic: image, condition, level, fade -> one score per image, higher for real ones.
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
        generator: Growing,
        critic: Growing,
        noise_size: Positive,
        first_size: Positive,
        stable_epochs: Positive,
        fade_epochs: NonNegative,
        loss: AdversarialLoss,
        critic_steps: Positive = 1,
        penalty_weight: Annotated[float, Ge(0)] = 10.0,
        drift_weight: Annotated[float, Ge(0)] = 0.001,
        critic_optimizer: OptimizerFactory | None = None,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        if stable_epochs < 1 or fade_epochs < 0:
            raise InputError(
                f"model.stable_epochs={stable_epochs}, model.fade_epochs={fade_epochs}: stable phases need "
                "at least 1 epoch; 0 leaves fading out, and no number is below it"
            )
        self.sizes = resolutions(first_size, self.spec.size)
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
        fades = [(level, True) for level in range(1, last + 1) if self.fade_epochs > 0]
        stables = [(level, False) for level in range(last + 1)]
        return tuple(self._phase(*where) for where in sorted(fades + stables, key=lambda w: (w[0], not w[1])))

    def _phase(self, level: int, fades: bool) -> Phase:
        critic = Turn(
            "critic",
            partial(self.critic_loss, level=level, fades=fades),
            (self.critic.up_to(level, fades),),
            self.critic_optimizer,
        )
        generator = Turn(
            "generator",
            partial(self.generator_loss, level=level, fades=fades),
            (self.generator.up_to(level, fades),),
            every=self.critic_steps,
        )
        return Phase(
            f"{'fade' if fades else 'stable'}_{self.sizes[level]}",
            (critic, generator),
            self.fade_epochs if fades else self.stable_epochs,
            begin=lambda task: self._grow(Growth(level, 0.0 if fades else 1.0)),
            end=lambda task: self._grow(Growth(level, 1.0)),
        )

    def critic_loss(self, batch: Batch, progress: float, *, level: int, fades: bool) -> Terms:
        """With the shares of images that the critic takes for what they are, and the gap between scores."""
        growth = self._grow(Growth(level, progress if fades else 1.0))
        condition = self.one_hot(label=batch.label, task=batch.task)
        real_image = self.at(growth, batch.image)
        with torch.no_grad():
            fake_image = self._generated(growth, condition, len(real_image))
        score = partial(self.score, growth=growth, condition=condition)
        return critic_terms(self.loss, score, real_image, fake_image, self.penalty_weight, self.drift_weight)

    def generator_loss(self, batch: Batch, progress: float, *, level: int, fades: bool) -> Terms:
        growth = self._grow(Growth(level, progress if fades else 1.0))
        condition = self.one_hot(label=batch.label, task=batch.task)
        image = self._generated(growth, condition, len(batch.image))
        return {"loss": self.loss.generator(self.score(image, growth, condition)).mean()}

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Terms:
        """Both losses at the size reached, without penalty and drift, and how well the critic tells images
        apart."""
        growth, condition = self.growth(), self.one_hot(label=batch.label, task=batch.task)
        fake = self.score(self._generated(growth, condition, len(batch.image)), growth, condition)
        real = self.score(self.at(growth, batch.image), growth, condition)
        return game_terms(self.loss, real, fake)

    @torch.no_grad()
    def sample(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        self.refuse(label=label, task=task)
        growth = self.growth()
        image = self._generated(growth, self.one_hot(label=label, task=task), n)
        return enlarged(image, self.spec.size // self.sizes[growth.level]).clamp(-1, 1)

    def growth(self) -> Growth:
        """How far the networks have grown, also in a loaded checkpoint."""
        return Growth(int(self.level), float(self.fade))

    def at(self, growth: Growth, image: Tensor) -> Tensor:
        """Images of full size as the critic sees them: averaged down to the level, and mixed with the level
        before while it fades in, [B, C, S, S] -> [B, C, s, s]."""
        image = reduced(image, self.spec.size // self.sizes[growth.level])
        if growth.level == 0 or growth.fade >= 1:
            return image
        return torch.lerp(enlarged(reduced(image)), image, growth.fade)

    def score(self, image: Tensor, growth: Growth, condition: Tensor | None = None) -> Tensor:
        """The critic's, one per image of the level's size: [B]."""
        return self.critic(image, condition, *growth).flatten()

    def _generated(self, growth: Growth, condition: Tensor | None, count: int) -> Tensor:
        noise = torch.randn(count, self.noise_size, device=self.device)
        return self.generator(noise, condition, *growth)

    @torch.no_grad()
    def _grow(self, growth: Growth) -> Growth:
        self.level.fill_(growth.level)
        self.fade.fill_(growth.fade)
        return growth
