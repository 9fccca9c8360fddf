"""What families have in common: conditions, codes and their decoders, a latent distribution of their own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gen.core.module import LitGenerator, OptimizerFactory, ScheduleFactor
from lit_gen.core.types import Batch, ImageSpec, NonNegative, Phase, Positive, Task, Terms
from lit_gen.families.density import ExPost, LatentDensity
from lit_gen.losses.adversarial import (
    AdversarialLoss,
    Penalty,
    critic_terms,
    game_terms,
    gradient_penalty,
)
from lit_gen.losses.distances import widened
from lit_gen.losses.latent_penalties import LatentPenalty
from lit_gen.losses.reconstruction import squared_error
from lit_gen.nets.mlp import DenseDecoder, DenseEncoder
from lit_gen.nets.priors import STANDARD_NORMAL, Prior

ConditionKind = Literal["none", "task", "label"]
Reconstruction = Callable[[Tensor, Tensor], Tensor]  # (image, target) -> one value per image

ADAM: OptimizerFactory = partial(torch.optim.Adam, lr=1e-3)


class ConditionalGenerator(LitGenerator):
    """Knows its condition as a one-hot vector.

    Args:
        condition: what the networks are told.
        condition_size: K: number of tasks, number of classes, or 0; None takes the number of classes from the
            spec, where the condition is "label".
    """

    def __init__(
        self,
        spec: ImageSpec,
        condition: ConditionKind = "none",
        condition_size: NonNegative | None = None,
        optimizer: OptimizerFactory = ADAM,
        schedule: ScheduleFactor | None = None,
    ) -> None:
        super().__init__(spec, optimizer, schedule)
        if condition_size is None:
            condition_size = spec.num_classes if condition == "label" else 0
        if (condition == "none") != (condition_size == 0):
            raise ValueError(
                f"{type(self).__name__}: condition={condition!r} with condition_size={condition_size}; a "
                "condition needs the number of its values (condition=label needs data with labels), and "
                "condition=none needs 0"
            )
        self.condition, self.condition_size = condition, condition_size

    @property
    def conditions(self) -> frozenset[str]:
        return frozenset() if self.condition == "none" else frozenset({self.condition})

    def one_hot(self, **conditions: Tensor | None) -> Tensor | None:
        """float32 [B, K] of the condition that this model takes; an unlabelled image (-1) gives zeros.

        Args:
            conditions: `label` and `task`, int64 [B]; None where it is not taken.
        """
        if self.condition == "none":
            return None
        value = conditions[self.condition].to(self.device)
        known = F.one_hot(value.clamp(min=0), self.condition_size).float()
        return known * (value >= 0).unsqueeze(1)


class Adversaries:
    """The two losses of a generator and a critic, whatever else both are told: a mixin of modules.

    A class writes `told(batch, progress, **where)`, what follows noise and image when its networks are called
    (a condition, how far they have grown); `where` is what a phase binds the losses to.

    Attributes:
        generator: noise [B, noise_size], *told -> image.
        critic: image, *told -> one score per image.
        drift_weight: of the mean square of the scores of real images.
        penalty: of the critic's gradients.
    """

    generator: nn.Module
    critic: nn.Module
    noise_size: int
    loss: AdversarialLoss
    penalty_weight: float
    drift_weight: float = 0.0
    penalty: Penalty = staticmethod(gradient_penalty)

    def noise(self, count: int) -> Tensor:
        return torch.randn(count, self.noise_size, device=self.device)

    def real(self, image: Tensor, *told: Any) -> Tensor:
        """Images of the data as the critic sees them."""
        return image

    def generated(self, count: int, *told: Any) -> Tensor:
        """Images [count, C, S, S], with gradient."""
        return self.generator(self.noise(count), *told)

    def score(self, image: Tensor, *told: Any) -> Tensor:
        """The critic's, one per image, higher for real ones: [B]."""
        return self.critic(image, *told).flatten()

    def critic_loss(self, batch: Batch, progress: float, **where: Any) -> Terms:
        """With the shares of images that the critic takes for what they are, and the gap between scores."""
        told = self.told(batch, progress, **where)
        real = self.real(batch.image, *told)
        with torch.no_grad():
            fake = self.generated(len(real), *told)
        how = (self.penalty_weight, self.drift_weight, self.penalty)
        return critic_terms(self.loss, lambda image: self.score(image, *told), real, fake, *how)

    def generator_loss(self, batch: Batch, progress: float, **where: Any) -> Terms:
        told = self.told(batch, progress, **where)
        score = self.score(self.generated(len(batch.image), *told), *told)
        if self.loss.compares:
            score = score - self.score(self.real(batch.image, *told), *told)
        return {"loss": self.loss.generator(score).mean()}

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Terms:
        """Both losses, without penalties, and how well the critic tells images apart."""
        told = self.told(batch, 1.0)
        fake = self.score(self.generated(len(batch.image), *told), *told)
        return game_terms(self.loss, self.score(self.real(batch.image, *told), *told), fake)


class CodedGenerator(ConditionalGenerator):
    """Has a decoder of codes, and keeps the promises `HasCodes` and `Restores`.

    A family writes `encode(batch)` and `sample_codes(n, temperature, label, task)`: [n, Z], to be decoded
    into samples; `temperature` is a factor of their spread.

    Attributes:
        nets_are_told: whether encoder and decoder get the condition.
        decoder: code [B, Z] and condition [B, K] or None -> image [B, C, S, S] in [-1, 1].
    """

    nets_are_told: bool = True
    decoder: nn.Module

    @torch.no_grad()
    def decode(self, codes: Tensor, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        return self.decoder(codes, self.told(label=label, task=task))

    def generate(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        return self.decode(self.sample_codes(n, label=label, task=task), label=label, task=task)

    @torch.no_grad()
    def reconstruct(self, batch: Batch) -> Tensor:
        return self.decode(self.encode(batch), label=batch.label, task=batch.task)

    def told(self, **conditions: Tensor | None) -> Tensor | None:
        """What encoder and decoder get beside image and code."""
        return self.one_hot(**conditions) if self.nets_are_told else None


class LatentGenerator(CodedGenerator):
    """Gives every image one code, without noise, and decodes codes that it draws.

    A family writes what trains: `step`, or `training_phases`.

    Args:
        encoder: image [B, C, S, S] and condition [B, K] or None -> code [B, latent_size]; None is a dense
            one.
        decoder: code [B, latent_size] and condition -> image [B, C, S, S] in [-1, 1]; None is a dense one.
        reconstruction: (image, target) -> one value per image.
        ex_post: samples come from a density that is fitted to the codes of the training images after
            training, instead of from the family's own distribution.
        num_components: of ex_post=mixture.

    Attributes:
        prior: that codes are drawn from, (n, size, device) -> [n, size].
    """

    prior: Prior = STANDARD_NORMAL

    def __init__(
        self,
        spec: ImageSpec,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        latent_size: Positive = 8,
        reconstruction: Reconstruction = squared_error,
        condition: ConditionKind = "none",
        condition_size: NonNegative | None = None,
        ex_post: ExPost = "none",
        num_components: Positive = 10,
        optimizer: OptimizerFactory = ADAM,
        schedule: ScheduleFactor | None = None,
    ) -> None:
        super().__init__(spec, condition, condition_size, optimizer, schedule)
        if ex_post != "none" and self.condition != "none":
            raise ValueError(
                f"{type(self).__name__}: ex_post={ex_post!r} with condition={self.condition!r}; the density "
                "of all codes knows no condition. Set ex_post=none or condition=none"
            )
        told = self.condition_size if self.nets_are_told else 0
        sizes = (*spec[:2], latent_size)
        self.encoder = DenseEncoder(*sizes, condition_size=told) if encoder is None else encoder
        self.decoder = DenseDecoder(*sizes, condition_size=told) if decoder is None else decoder
        self.latent_size = latent_size
        self.reconstruction = reconstruction
        self.density = LatentDensity(latent_size, ex_post, num_components)

    def draw_codes(self, n: int, condition: Tensor | None) -> Tensor:
        """[n, Z], from the family's own distribution."""
        return self.prior(n, self.latent_size, self.device)

    def training_phases(self, task: Task) -> tuple[Phase, ...]:
        """The phases before the density's."""
        return super().phases(task)

    def phases(self, task: Task) -> tuple[Phase, ...]:
        return (*self.training_phases(task), *self.density.phases(self.encode))

    def penalised(self, batch: Batch, penalty: LatentPenalty, weight: float, condition_scale: float) -> Terms:
        """The terms of a reconstruction and of a penalty between codes and as many drawn ones.

        Both are compared with the condition behind them, two conditions sqrt(2) * condition_scale apart.
        Their distance is then one between joint distributions, and codes are held against drawn ones of the
        same condition. A penalty that takes no drawn codes does not look at the condition either. Computed in
        32 bits whatever the precision around it.
        """
        condition = self.one_hot(label=batch.label, task=batch.task)
        told = condition if self.nets_are_told else None
        code = self.encoder(batch.image, told)
        error = self.reconstruction(self.decoder(code, told), batch.image).mean()
        drawn = self.draw_codes(len(code), condition) if penalty.takes_samples else None
        with torch.autocast(code.device.type, enabled=False):
            if drawn is None:
                distance = penalty(widened(code), None)
            else:
                behind = () if condition is None else (condition_scale * condition,)
                distance = penalty(*(torch.cat([widened(points), *behind], 1) for points in (code, drawn)))
        return {"loss": error + weight * distance, "reconstruction": error, "penalty": distance}

    @torch.no_grad()
    def sample_codes(
        self, n: int, temperature: float = 1.0, *, label: Tensor | None = None, task: Tensor | None = None
    ) -> Tensor:
        if self.density.num_fitted:
            return self.density.sample(n, temperature)
        return temperature * self.draw_codes(n, self.one_hot(label=label, task=task))

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        return self.encoder(batch.image, self.told(label=batch.label, task=batch.task))
