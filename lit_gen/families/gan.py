"""Generative adversarial networks: which one it is depends on the loss, the penalty and the networks.

Sources: Goodfellow et al. 2014, arXiv:1406.2661; Radford et al. 2016 (DCGAN), arXiv:1511.06434; Arjovsky et
al. 2017 (WGAN), arXiv:1701.07875; Gulrajani et al. 2017 (WGAN-GP), arXiv:1704.00028.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from lit_gen.core.module import OptimizerFactory
from lit_gen.core.types import Batch, Phase, Positive, Task, Terms, Turn
from lit_gen.families.base import ConditionalGenerator
from lit_gen.losses.adversarial import AdversarialLoss, critic_terms, game_terms


class GAN(ConditionalGenerator):
    """Two turns per minibatch: the critic's, and every few batches the generator's.

    Args:
        generator: noise [B, noise_size] and condition [B, K] or None -> image [B, C, S, S] in [-1, 1].
        critic: image and condition -> one score per image, higher for real ones.
        loss: of both, an object of `lit_gen.losses.adversarial`.
        critic_steps: minibatches per step of the generator, n_critic.
        penalty_weight: of the gradient penalty; 0 leaves it out.
        clip: weights of the critic are kept in [-clip, clip]; None leaves them free.
        critic_optimizer: None is the model's own.
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        noise_size: Positive,
        loss: AdversarialLoss,
        critic_steps: Positive = 1,
        penalty_weight: Annotated[float, Ge(0)] = 0.0,
        clip: Annotated[float, Gt(0)] | None = None,
        critic_optimizer: OptimizerFactory | None = None,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.generator, self.critic = generator, critic
        self.noise_size, self.critic_steps = noise_size, critic_steps
        self.loss, self.penalty_weight, self.clip = loss, penalty_weight, clip
        self.critic_optimizer = critic_optimizer

    def phases(self, task: Task) -> tuple[Phase, ...]:
        critic = Turn("critic", self.critic_loss, (self.critic,), self.critic_optimizer)
        generator = Turn("generator", self.generator_loss, (self.generator,), every=self.critic_steps)
        return (Phase("train", (critic, generator), end=self._close),)

    def critic_loss(self, batch: Batch, progress: float) -> Terms:
        """With the shares of images that the critic takes for what they are, and the gap between scores."""
        self.clip_critic()
        condition = self.one_hot(label=batch.label, task=batch.task)
        fake_image = self.draw(condition, len(batch.image))
        score = partial(self.score, condition=condition)
        return critic_terms(self.loss, score, batch.image, fake_image, self.penalty_weight)

    def generator_loss(self, batch: Batch, progress: float) -> Terms:
        self.clip_critic()
        condition = self.one_hot(label=batch.label, task=batch.task)
        fake = self.generator(self._noise(len(batch.image)), condition)
        return {"loss": self.loss.generator(self.score(fake, condition)).mean()}

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Terms:
        """Both losses, without the penalty, and how well the critic tells images apart."""
        condition = self.one_hot(label=batch.label, task=batch.task)
        fake = self.score(self.draw(condition, len(batch.image)), condition)
        real = self.score(batch.image, condition)
        return game_terms(self.loss, real, fake)

    @torch.no_grad()
    def sample(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        self.refuse(label=label, task=task)
        return self.draw(self.one_hot(label=label, task=task), n)

    @torch.no_grad()
    def draw(self, condition: Tensor | None, count: int) -> Tensor:
        """Generated images, [count, C, S, S]."""
        return self.generator(self._noise(count), condition)

    def score(self, image: Tensor, condition: Tensor | None = None) -> Tensor:
        """The critic's, one per image: [B]."""
        return self.critic(image, condition).flatten()

    @torch.no_grad()
    def clip_critic(self) -> None:
        """Weight clipping of WGAN; done before a loss needs the critic, which is after its last step."""
        if self.clip is not None:
            for parameter in self.critic.parameters():
                parameter.clamp_(-self.clip, self.clip)

    def _noise(self, count: int) -> Tensor:
        return torch.randn(count, self.noise_size, device=self.device)

    def _close(self, task: Task) -> None:
        self.clip_critic()
