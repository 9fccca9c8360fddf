"""What a critic and a generator pay: one value per image, from the critic's scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gen.core.types import Terms


class AdversarialLoss(Protocol):
    """A game between a critic and a generator."""

    boundary: float | None  # the critic takes images above it for real ones; None: its scores have no zero
    compares: ClassVar[bool]  # whether the generator is given how far its scores are above real images'

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Scores of as many real as generated images, [B] twice -> [B]."""

    def generator(self, fake: Tensor) -> Tensor:
        """Scores of generated images, or how far they are above real ones: [B] -> [B]."""


@dataclass(frozen=True)
class NonSaturating:
    """Cross-entropy in nats; the generator maximises log D(G(z)) instead of minimising log(1 - D(G(z))).

    Source: Goodfellow et al. 2014, arXiv:1406.2661, section 3.
    """

    boundary: float | None = 0.0
    compares: ClassVar[bool] = False

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(-real) + F.softplus(fake)

    def generator(self, fake: Tensor) -> Tensor:
        return F.softplus(-fake)


@dataclass(frozen=True)
class LeastSquares:
    """Half the squared distance of scores from 1 for real and 0 for generated images.

    Source: Mao et al. 2017, arXiv:1611.04076, eq. 9.
    """

    boundary: float | None = 0.5
    compares: ClassVar[bool] = False

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return 0.5 * ((real - 1).square() + fake.square())

    def generator(self, fake: Tensor) -> Tensor:
        return 0.5 * (fake - 1).square()


@dataclass(frozen=True)
class Hinge:
    """Scores beyond 1 on the right side cost the critic nothing.

    Source: Lim & Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957, eq. 16 and 17.
    """

    boundary: float | None = 0.0
    compares: ClassVar[bool] = False

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.relu(1 - real) + F.relu(1 + fake)

    def generator(self, fake: Tensor) -> Tensor:
        return -fake


@dataclass(frozen=True)
class Wasserstein:
    """Difference of scores; a critic that is 1-Lipschitz estimates the Wasserstein-1 distance by it.

    Source: Arjovsky et al. 2017, arXiv:1701.07875, algorithm 1.
    """

    boundary: float | None = None
    compares: ClassVar[bool] = False

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake - real

    def generator(self, fake: Tensor) -> Tensor:
        return -fake


@dataclass(frozen=True)
class Relativistic:
    """Only the difference between a real and a generated image counts, for both sides.

    Sources: Jolicoeur-Martineau 2018, arXiv:1807.00734; Huang et al. 2024 (R3GAN), arXiv:2501.05441, eq. 2.
    """

    boundary: float | None = None
    compares: ClassVar[bool] = True

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(fake - real)

    def generator(self, fake: Tensor) -> Tensor:
        return F.softplus(-fake)


def gradient_penalty(score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """(||gradient of the score|| - 1)^2 at a random point between a real and a generated image: [B].

    Computed in 32 bits also under mixed precision, where the square of a gradient's norm overflows.

    Source: Gulrajani et al. 2017, arXiv:1704.00028, eq. 3.

    Args:
        score: images -> one score each.
        real: [B, C, S, S].
        fake: as many, without gradient.
    """
    with torch.enable_grad(), torch.autocast(real.device.type, enabled=False):
        part = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
        between = torch.lerp(real.detach(), fake.detach().to(real.dtype), part).requires_grad_(True)
        (gradient,) = torch.autograd.grad(score(between).sum(), between, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square()


def centred_penalty(score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Half the squared norms of the gradients of the score at real and at generated images, R1 + R2: [B].

    In 32 bits, as `gradient_penalty`. With a weight gamma it is that of Mescheder et al. 2018,
    arXiv:1801.04406, eq. 9; R3GAN needs both.
    """
    with torch.enable_grad(), torch.autocast(real.device.type, enabled=False):
        images = torch.cat([real.detach(), fake.detach().to(real.dtype)]).requires_grad_(True)
        scores = [score(part).sum() for part in images.split(len(real))]
        (gradient,) = torch.autograd.grad(sum(scores), images, create_graph=True)
        return 0.5 * sum(gradient.flatten(1).square().sum(1).split(len(real)))


Penalty = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor]
"""(score, real images, generated ones) -> [B]."""


def critic_terms(
    loss: AdversarialLoss,
    score: Callable[[Tensor], Tensor],
    real_image: Tensor,
    fake_image: Tensor,
    penalty_weight: float = 0.0,
    drift_weight: float = 0.0,
    penalty: Penalty = gradient_penalty,
) -> Terms:
    """What a critic pays for one minibatch, and what `judged` says of its scores.

    Args:
        score: images -> one score each.
        fake_image: without gradient.
        penalty_weight: of the penalty; 0 leaves it out.
        drift_weight: of the mean square of the scores of real images, which keeps them near 0 (Karras et al.
            2018, arXiv:1710.10196, appendix A.1).
    """
    real, fake = score(real_image), score(fake_image)
    total = loss.critic(real, fake).mean()
    terms = judged(loss, real, fake)
    if drift_weight:
        terms["drift"] = real.square().mean()
        total = total + drift_weight * terms["drift"]
    if penalty_weight:
        terms["penalty"] = penalty(score, real_image, fake_image).mean()
        total = total + penalty_weight * terms["penalty"]
    return {"loss": total, **terms}


def game_terms(loss: AdversarialLoss, real: Tensor, fake: Tensor) -> Terms:
    """Both sides' losses without penalties, and what `judged` says: for evaluation. Scores [B] twice."""
    above = fake - real if loss.compares else fake
    sides = {"critic": loss.critic(real, fake).mean(), "generator": loss.generator(above).mean()}
    return sides | judged(loss, real, fake)


def judged(loss: AdversarialLoss, real: Tensor, fake: Tensor) -> Terms:
    """Of scores [B] twice: the shares of images taken for what they are, and the gap between the means."""
    real, fake = real.detach(), fake.detach()
    on_real, on_fake = accuracy(loss, real, fake)
    return {"accuracy_real": on_real, "accuracy_fake": on_fake, "gap": real.mean() - fake.mean()}


def accuracy(loss: AdversarialLoss, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """The shares of real and of generated images on the right side of the loss's boundary, or of the middle
    between both means where it has none: scores [B] twice -> two scalars."""
    middle = (real.mean() + fake.mean()) / 2 if loss.boundary is None else loss.boundary
    return (real > middle).float().mean(), (fake <= middle).float().mean()
