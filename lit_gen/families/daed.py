"""DAED: a denoising autoencoder for the first step of a chain, a diffusion model for all others.

Source: Deja et al. 2022, "On analyzing generative and denoising capabilities of diffusion-based deep
generative models", arXiv:2206.00070, section 5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lit_gen.core.module import OptimizerFactory, ScheduleFactor
from lit_gen.core.types import Batch, Fraction, ImageSpec, NonNegative, Terms
from lit_gen.diffusion.bound import discretised_gaussian
from lit_gen.diffusion.outputs import Output, noised, parts
from lit_gen.diffusion.path import Table, linear_combine
from lit_gen.diffusion.solvers import Place, Spacing, way
from lit_gen.diffusion.times import FirstStep, TimeSampler
from lit_gen.diffusion.weights import Simple, Weight
from lit_gen.families.base import ADAM, ConditionKind
from lit_gen.families.diffusion import Diffusion, Objective

_FIRST_STEP, _SIMPLE = FirstStep(), Simple()


class DAED(Diffusion):
    """Routes x_1 to a denoiser of its own, and x_2 to x_T to the diffusion model; both learn in one phase.

    The last step of any solver is the denoiser's, without noise.

        >>> model = DAED(ImageSpec(channels=1, size=8, num_classes=10))
        >>> list(model.sample(3).shape)
        [3, 1, 8, 8]

    Args:
        denoiser_net: the network of the first step, as `net`; None is a small U-Net.
        path: a chain whose first step is the denoiser's noise; None is of 900 steps with beta_1 = 0.1.

    The other arguments are those of `Diffusion`. With objective=bound the first step's term is the mean
    squared error of the image, as published.
    """

    def __init__(
        self,
        spec: ImageSpec,
        net: nn.Module | None = None,
        denoiser_net: nn.Module | None = None,
        path: Table | None = None,
        output: Output = "eps",
        space: Output | None = None,
        times: TimeSampler = _FIRST_STEP,
        weight: Weight = _SIMPLE,
        learns_variance: bool = False,
        objective: Objective = "error",
        drop_condition: Fraction = 0.0,
        condition: ConditionKind = "none",
        condition_size: NonNegative | None = None,
        optimizer: OptimizerFactory = ADAM,
        schedule: ScheduleFactor | None = None,
    ) -> None:
        path = Table(linear_combine(900, 0.1)) if path is None else path
        super().__init__(
            spec, net, path, output, space, times, weight, learns_variance, objective, drop_condition,
            None, condition, condition_size, optimizer, schedule,
        )  # fmt: skip
        if path.num_steps < 2:
            raise ValueError(
                f"path with {path.num_steps} step: the denoiser's is the first, so two are the least"
            )
        self.denoiser_net = self._small_net() if denoiser_net is None else denoiser_net

    def network(self, x: Tensor, t: Tensor, told: Tensor, condition: Tensor | None) -> Tensor:
        said, places = [], []
        for net, mine in ((self.denoiser_net, t == 1), (self.net, t != 1)):
            rows = mine.nonzero()[:, 0]
            if len(rows) == 0 and not self.training:
                continue
            # A network without images has a guest that leaves again: every process has gradients for both.
            seen = rows if len(rows) else rows.new_zeros(1)
            said.append(net(x[seen], told[seen], None if condition is None else condition[seen])[: len(rows)])
            places.append(rows)
        return torch.cat(said)[torch.cat(places).argsort()]

    def network_at(self, t: float) -> nn.Module:
        return self.denoiser_net if t == 1 else self.net

    def way(self, steps: int, spacing: Spacing = "even", start: float | None = None) -> list[Place]:
        """The last step of every way is the denoiser's, from x_1."""
        if start == 1:
            return way(self.path, 1, spacing, start)
        return way(self.path, steps, spacing, start, last=1.0)

    def bound_at(self, t: Tensor, image: Tensor, x: Tensor, guess: Tensor, variance: Tensor | None) -> Tensor:
        later = super().bound_at(t.clamp(min=2), image, x, guess, variance) / self.path.num_steps
        squared = (guess - image).float().square().flatten(1).mean(1)
        return (self.path.num_steps - 1) * torch.where(t == 1, squared, later)

    def nats_at(self, t: Tensor, image: Tensor, x: Tensor, guess: Tensor, variance: Tensor | None) -> Tensor:
        """The first step's is that of a Gaussian around the denoiser's image with variance beta_1."""
        later = super().nats_at(t.clamp(min=2), image, x, guess, variance)
        log_spread = image.new_tensor(0.5 * math.log(self.path.exact["beta"][1]))
        first = -discretised_gaussian(image.float(), guess.float(), log_spread)
        return torch.where(t == 1, first.flatten(1).sum(1), later)

    @torch.no_grad()
    def reconstruct(self, batch: Batch) -> Tensor:
        """What the denoiser makes of the images with its noise on them."""
        t = torch.ones(batch.size, device=batch.image.device)
        x = noised(self.path, t, batch.image, torch.randn_like(batch.image))
        said, _ = self.said(x, t, self.one_hot(label=batch.label, task=batch.task))
        return parts(said, self.output, self.path, t, x).image.clamp(-1, 1)

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Terms:
        """With the mean absolute error of the denoiser."""
        error = (self.reconstruct(batch) - batch.image).abs().mean()
        return super().evaluate(batch) | {"denoiser_mae": error}
