"""Generative adversarial networks: which one it is depends on the loss, the penalty and the networks.

Sources: Goodfellow et al. 2014, arXiv:1406.2661; Radford et al. 2016 (DCGAN), arXiv:1511.06434; Arjovsky et
al. 2017 (WGAN), arXiv:1701.07875; Gulrajani et al. 2017 (WGAN-GP), arXiv:1704.00028; Huang et al. 2024
(R3GAN), arXiv:2501.05441.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from lit_gen.core.module import OptimizerFactory, ScheduleFactor
from lit_gen.core.types import (
    Batch,
    ImageSpec,
    NonNegative,
    Phase,
    Positive,
    Task,
    Turn,
    do_nothing,
)
from lit_gen.families.base import Adversaries, ConditionalGenerator, ConditionKind
from lit_gen.losses.adversarial import AdversarialLoss, NonSaturating, Penalty, gradient_penalty
from lit_gen.nets import dcgan
from lit_gen.nets.mlp import DenseDecoder, DenseEncoder

_NON_SATURATING = NonSaturating()
_ADAM: OptimizerFactory = partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999))


class GAN(Adversaries, ConditionalGenerator):
    """Two turns per minibatch: the critic's, and every few batches the generator's.

        >>> model = GAN(ImageSpec(1, 8, 10), loss=NonSaturating())
        >>> image = torch.rand(4, 1, 8, 8) * 2 - 1
        >>> batch = Batch(image, *torch.zeros(3, 4, dtype=torch.long))
        >>> sorted(model.critic_loss(batch, progress=0.0))
        ['accuracy_fake', 'accuracy_real', 'gap', 'loss']
        >>> list(model.sample(3).shape)
        [3, 1, 8, 8]

    Args:
        generator: noise [B, noise_size] and condition [B, K] or None -> image [B, C, S, S] in [-1, 1];
            None is DCGAN's for images of 28, 32 and 64 pixels, and else a dense one.
        critic: image and condition -> one score per image, higher for real ones; None likewise.
        loss: of both, an object of `lit_gen.losses.adversarial`.
        critic_steps: minibatches per step of the generator, n_critic.
        penalty_weight: of the penalty; 0 leaves it out.
        penalty: of the critic's gradients, a function of `lit_gen.losses.adversarial`.
        clip: weights of the critic are kept in [-clip, clip]; None leaves them free.
        critic_optimizer: None is the model's own.
    """

    def __init__(
        self,
        spec: ImageSpec,
        generator: nn.Module | None = None,
        critic: nn.Module | None = None,
        noise_size: Positive = 100,
        loss: AdversarialLoss = _NON_SATURATING,
        critic_steps: Positive = 1,
        penalty_weight: Annotated[float, Ge(0)] = 0.0,
        penalty: Penalty = gradient_penalty,
        clip: Annotated[float, Gt(0)] | None = None,
        condition: ConditionKind = "none",
        condition_size: NonNegative | None = None,
        optimizer: OptimizerFactory = _ADAM,
        critic_optimizer: OptimizerFactory | None = None,
        schedule: ScheduleFactor | None = None,
    ) -> None:
        super().__init__(spec, condition, condition_size, optimizer, schedule)
        image, told = spec[:2], {"condition_size": self.condition_size}
        is_convolutional = spec.size in dcgan.SIZES
        if generator is None:
            make = dcgan.ConvGenerator if is_convolutional else DenseDecoder
            generator = make(*image, noise_size, **told)
        if critic is None and is_convolutional:
            critic = dcgan.ConvCritic(*image, norm="batch", **told)
        elif critic is None:
            critic = DenseEncoder(*image, 1, slope=0.2, **told)
        self.generator, self.critic = generator, critic
        self.noise_size, self.critic_steps = noise_size, critic_steps
        self.loss, self.penalty_weight, self.clip = loss, penalty_weight, clip
        self.penalty = penalty
        self.critic_optimizer = critic_optimizer

    def phases(self, task: Task) -> tuple[Phase, ...]:
        clip = None if self.clip is None else self.clip_critic
        turns = (
            Turn("critic", self.critic_loss, (self.critic,), self.critic_optimizer, after_step=clip),
            Turn("generator", self.generator_loss, (self.generator,), every=self.critic_steps),
        )
        return (Phase("train", turns, begin=do_nothing if clip is None else clip),)

    def told(self, batch: Batch, progress: float) -> tuple[Tensor | None]:
        return (self.one_hot(label=batch.label, task=batch.task),)

    @torch.no_grad()
    def generate(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        return self.generated(n, self.one_hot(label=label, task=task))

    def sample_codes(
        self, n: int, temperature: float = 1.0, *, label: Tensor | None = None, task: Tensor | None = None
    ) -> Tensor:
        """Noise for the generator, [n, noise_size]."""
        return temperature * self.noise(n)

    @torch.no_grad()
    def decode(self, codes: Tensor, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        return self.generator(codes, self.one_hot(label=label, task=task))

    @torch.no_grad()
    def clip_critic(self, task: Task | None = None) -> None:
        """Weight clipping of WGAN, before the first step of a phase and after each."""
        for parameter in self.critic.parameters():
            parameter.clamp_(-self.clip, self.clip)
