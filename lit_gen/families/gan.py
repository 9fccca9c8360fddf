"""Generative adversarial networks: which one it is depends on the loss, the penalty and the networks.

Sources: Goodfellow et al. 2014, arXiv:1406.2661; Radford et al. 2016 (DCGAN), arXiv:1511.06434; Arjovsky et
al. 2017 (WGAN), arXiv:1701.07875; Gulrajani et al. 2017 (WGAN-GP), arXiv:1704.00028.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from lit_gen.core.module import OptimizerFactory, ScheduleFactor
from lit_gen.core.types import Batch, ImageSpec, NonNegative, Phase, Positive, Task, Terms, Turn
from lit_gen.families.base import Adversaries, ConditionalGenerator, ConditionKind, default_decoder
from lit_gen.losses.adversarial import AdversarialLoss, NonSaturating
from lit_gen.nets import dcgan
from lit_gen.nets.mlp import DenseEncoder

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
        penalty_weight: of the gradient penalty; 0 leaves it out.
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
        clip: Annotated[float, Gt(0)] | None = None,
        condition: ConditionKind = "none",
        condition_size: NonNegative | None = None,
        optimizer: OptimizerFactory = _ADAM,
        critic_optimizer: OptimizerFactory | None = None,
        schedule: ScheduleFactor | None = None,
    ) -> None:
        super().__init__(spec, condition, condition_size, optimizer, schedule)
        self.generator = self._default_generator(noise_size) if generator is None else generator
        self.critic = self._default_critic() if critic is None else critic
        self.noise_size, self.critic_steps = noise_size, critic_steps
        self.loss, self.penalty_weight, self.clip = loss, penalty_weight, clip
        self.critic_optimizer = critic_optimizer

    def phases(self, task: Task) -> tuple[Phase, ...]:
        critic = Turn("critic", self.critic_loss, (self.critic,), self.critic_optimizer)
        generator = Turn("generator", self.generator_loss, (self.generator,), every=self.critic_steps)
        return (Phase("train", (critic, generator), end=self._close),)

    def told(self, batch: Batch, progress: float) -> tuple[Tensor | None]:
        return (self.one_hot(label=batch.label, task=batch.task),)

    def critic_loss(self, batch: Batch, progress: float) -> Terms:
        self.clip_critic()
        return super().critic_loss(batch, progress)

    def generator_loss(self, batch: Batch, progress: float) -> Terms:
        self.clip_critic()
        return super().generator_loss(batch, progress)

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
    def clip_critic(self) -> None:
        """Weight clipping of WGAN; done before a loss needs the critic, which is after its last step."""
        if self.clip is not None:
            for parameter in self.critic.parameters():
                parameter.clamp_(-self.clip, self.clip)

    def _default_generator(self, noise_size: int) -> nn.Module:
        if self.spec.size not in dcgan.SIZES:
            return default_decoder(self.spec, noise_size, self.condition_size)
        return dcgan.ConvGenerator(*self.spec[:2], noise_size, condition_size=self.condition_size)

    def _default_critic(self) -> nn.Module:
        told = self.condition_size
        if self.spec.size not in dcgan.SIZES:
            return DenseEncoder(*self.spec[:2], 1, condition_size=told, slope=0.2)
        return dcgan.ConvCritic(*self.spec[:2], norm="batch", condition_size=told)

    def _close(self, task: Task) -> None:
        self.clip_critic()
