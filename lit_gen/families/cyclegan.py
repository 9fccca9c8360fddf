"""CycleGAN: translation between two domains of images of which no pairs are known.

Source: Zhu et al. 2017, arXiv:1703.10593.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from lit_gen.core.module import LitModel, OptimizerFactory, ScheduleFactor
from lit_gen.core.types import ImageSpec, NonNegative, PairBatch, Phase, Task, Terms, Turn
from lit_gen.losses.adversarial import LeastSquares, accuracy
from lit_gen.losses.reconstruction import absolute_error
from lit_gen.nets.cyclegan import PatchCritic, ResnetGenerator
from lit_gen.nets.image_pool import ImagePool

_GAME = LeastSquares()
_ADAM: OptimizerFactory = partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999))


class CycleGAN(LitModel):
    """A generator for each direction and a critic for each domain, in two turns per minibatch.

    The critics are shown translations of the generators as they are after their turn, where the authors'
    code keeps those from before it.

        >>> model = CycleGAN(ImageSpec(1, 8, 0))
        >>> list(model.translate(torch.zeros(3, 1, 8, 8), to="b").shape)
        [3, 1, 8, 8]

    Args:
        generator: makes a net, image [B, C, S, S] -> image in [-1, 1], each image alone; called for each
            direction. None: a `ResnetGenerator` for images of 28 and 32 pixels.
        critic: makes a net, image -> scores of its patches [B, 1, H, W]; called for each domain. None:
            a `PatchCritic` for images of these sizes.
        cycle_weight: lambda, of the way there and back (eq. 3).
        identity_weight: of leaving images of the target domain as they are, relative to lambda (section 5.2);
            0 leaves it out.
        pool_size: translations of each domain that are kept for its critic.
    """

    needs_pairs = True

    def __init__(
        self,
        spec: ImageSpec,
        generator: Callable[[], nn.Module] | None = None,
        critic: Callable[[], nn.Module] | None = None,
        cycle_weight: Annotated[float, Ge(0)] = 10.0,
        identity_weight: Annotated[float, Ge(0)] = 0.5,
        pool_size: NonNegative = 50,
        optimizer: OptimizerFactory = _ADAM,
        schedule: ScheduleFactor | None = None,
    ) -> None:
        super().__init__(spec, optimizer, schedule)
        if generator is None:
            generator = partial(ResnetGenerator, spec.channels, spec.size, width=16, num_blocks=3, halvings=1)
        if critic is None:
            critic = partial(PatchCritic, spec.channels, spec.size, width=32, num_strides=1)
        self.to_a, self.to_b = generator(), generator()
        self.critic_a, self.critic_b = critic(), critic()
        self.pool_a, self.pool_b = (
            ImagePool(pool_size, self.spec.channels, self.spec.size) for _ in range(2)
        )
        self.cycle_weight, self.identity_weight = cycle_weight, identity_weight

    def phases(self, task: Task) -> tuple[Phase, ...]:
        generators = Turn("generators", self.generators_loss, (self.to_a, self.to_b))
        critics = Turn("critics", self.critics_loss, (self.critic_a, self.critic_b))
        return (Phase("train", (generators, critics)),)

    def generators_loss(self, batch: PairBatch, progress: float) -> Terms:
        """Eq. 3 for both generators, and their identity loss."""
        a, b = batch.a.image, batch.b.image
        fake_a, same_a = self._with_identity(self.to_a, b, a)
        fake_b, same_b = self._with_identity(self.to_b, a, b)
        adversarial = fooling_error(self.critic_a(fake_a)) + fooling_error(self.critic_b(fake_b))
        cycle = pixel_distance(self.to_a(fake_b), a) + pixel_distance(self.to_b(fake_a), b)
        terms = {"adversarial": adversarial.mean(), "cycle": cycle.mean()}
        loss = terms["adversarial"] + self.cycle_weight * terms["cycle"]
        if self.identity_weight:
            identity = pixel_distance(same_a, a) + pixel_distance(same_b, b)
            terms["identity"] = identity.mean()
            loss = loss + self.cycle_weight * self.identity_weight * terms["identity"]
        return {"loss": loss, **terms}

    def critics_loss(self, batch: PairBatch, progress: float) -> Terms:
        """With the shares of patches that the critics take for what they are."""
        fake_a, fake_b = self._both(batch)
        return self._judged(batch, self.pool_a(fake_a), self.pool_b(fake_b))

    @torch.no_grad()
    def evaluate(self, batch: PairBatch) -> Terms:
        """Terms of both turns; the critics look at fresh translations only."""
        judged = self._judged(batch, *self._both(batch))
        critics = {"critics": judged.pop("loss"), **judged}
        terms = self.generators_loss(batch, 1.0)
        return {"generators": terms.pop("loss"), **terms, **critics}

    @torch.no_grad()
    def translate(self, image: Tensor, to: Literal["a", "b"]) -> Tensor:
        """Images of the other domain as images of this one, [B, C, S, S] in [-1, 1], without gradient."""
        if to not in ("a", "b"):
            raise ValueError(f"CycleGAN.translate: to={to!r}; the domains are 'a' and 'b'")
        return (self.to_a if to == "a" else self.to_b)(image)

    def _with_identity(self, generator: nn.Module, image: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Translations of images, and what becomes of the target domain's own (which nobody asks for without
        an identity weight).
        """
        if not self.identity_weight:
            return generator(image), own
        # One call for both is a seventh faster on a CPU.
        return generator(torch.cat((image, own))).split((len(image), len(own)))

    def _both(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        return self.translate(batch.b.image, "a"), self.translate(batch.a.image, "b")

    def _judged(self, batch: PairBatch, fake_a: Tensor, fake_b: Tensor) -> Terms:
        sides = ((self.critic_a, batch.a.image, fake_a), (self.critic_b, batch.b.image, fake_b))
        loss, shares = 0.0, {}
        for name, (critic, image, translated) in zip("ab", sides, strict=True):
            real, fake = critic(image), critic(translated)
            # Mao's loss has the factor 1/2 by which the paper slows its critics down (section 4).
            loss = loss + _GAME.critic(real, fake).flatten(1).mean(1).mean()
            on_real, on_fake = accuracy(_GAME, real.detach(), fake.detach())
            shares |= {f"accuracy_real_{name}": on_real, f"accuracy_fake_{name}": on_fake}
        return {"loss": loss, **shares}


def fooling_error(scores: Tensor) -> Tensor:
    """What a generator pays for its images' scores: [B, 1, H, W] -> [B]. Unit: (distance from 1)^2, mean over
    patches.

    Twice Mao's loss: the paper halves its critics' loss only.
    """
    return 2 * _GAME.generator(scores).flatten(1).mean(1)


def pixel_distance(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference: [B, C, S, S] twice -> [B]. Unit: pixel range 2, mean over pixels.

    A mean and no sum, as the weights of the paper are meant beside scores of patches.
    """
    return absolute_error(image, target) / image[0].numel()
