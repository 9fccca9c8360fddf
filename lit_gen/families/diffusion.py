"""Diffusion models: a network learns what noisy images are made of, and takes the noise away in steps.

Which one it is depends on the path, what the network says, where its error is taken, at which times and with
which weights: DDPM (Ho et al. 2020, arXiv:2006.11239), improved DDPM (Nichol & Dhariwal 2021,
arXiv:2102.09672), EDM (Karras et al. 2022, arXiv:2206.00364), rectified flow (Liu et al. 2022,
arXiv:2209.03003) are configs.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from lit_gen.core.module import OptimizerFactory, ScheduleFactor
from lit_gen.core.processes import gathered
from lit_gen.core.random import forked_rng
from lit_gen.core.types import Batch, Fraction, ImageSpec, InputError, NonNegative, Phase, Task, Terms
from lit_gen.diffusion.bound import log_variance, prior_term, step_term
from lit_gen.diffusion.consistency import ConsistencyTuning
from lit_gen.diffusion.outputs import Output, Parts, error_ratio, noised, parts, scaled_input, target
from lit_gen.diffusion.path import EDM, Path, Table, linear
from lit_gen.diffusion.solvers import DDIM, Denoised, Denoiser, Place, Spacing, way
from lit_gen.diffusion.times import TimeSampler, Uniform
from lit_gen.diffusion.weights import Simple, Weight
from lit_gen.families.base import ADAM, ConditionalGenerator, ConditionKind
from lit_gen.nets.unet import UNet

Objective = Literal["error", "bound", "both"]
_BOUND_BESIDE = (
    1e-3  # weight of the bound's term where it trains the variance alone; Nichol & Dhariwal, eq. 16
)
_UNIFORM, _SIMPLE = Uniform(), Simple()


class Diffusion(ConditionalGenerator):
    """Takes noise away from images.

        >>> model = Diffusion(ImageSpec(channels=1, size=8, num_classes=10))
        >>> list(model.sample(3).shape)
        [3, 1, 8, 8]

    Without a sampler images are drawn by DDIM in 50 steps (fewer, where the chain has fewer).

    Args:
        net: x_t [B, C, S, S], what it is told of the time [B], condition [B, K] or None -> [B, C, S, S], or
            twice the channels with learned variances; None is a small U-Net.
        path: levels of image and noise over time; None is a linear chain of 1,000 steps.
        output: what the network says.
        space: in what the error is taken; None: in what the network says.
        times: at which the model is trained.
        weight: of the squared error at a time.
        learns_variance: the network also says the variances of a chain's steps, between the posterior's and
            beta.
        objective: "error" is the mean squared error over an image's numbers, "bound" the variational bound
            in nats per number of an image (a chain's only), "both" the error for the image, and the bound for
            the variances alone.
        drop_condition: part of the images whose condition is left out, for guidance without a classifier (Ho
            & Salimans 2022, arXiv:2207.12598).
        consistency: a second phase, after which two steps draw an image (sampler=consistency); EDM's path
            with its output F only.
    """

    def __init__(
        self,
        spec: ImageSpec,
        net: nn.Module | None = None,
        path: Path | None = None,
        output: Output = "eps",
        space: Output | None = None,
        times: TimeSampler = _UNIFORM,
        weight: Weight = _SIMPLE,
        learns_variance: bool = False,
        objective: Objective = "error",
        drop_condition: Fraction = 0.0,
        consistency: ConsistencyTuning | None = None,
        condition: ConditionKind = "none",
        condition_size: NonNegative | None = None,
        optimizer: OptimizerFactory = ADAM,
        schedule: ScheduleFactor | None = None,
    ) -> None:
        super().__init__(spec, condition, condition_size, optimizer, schedule)
        path = Table(linear(1000, 1e-4)) if path is None else path
        self.path = path
        self.output, self.space = output, space or output
        self.times, self.weight = times, weight
        self.learns_variance, self.objective = learns_variance, objective
        self.drop_condition, self.consistency = drop_condition, consistency
        self.net = self._small_net() if net is None else net
        self._check()

    def _small_net(self) -> UNet:
        channels = self.spec.channels * (2 if self.learns_variance else 1)
        levels = (1, 2) if self.spec.size % 2 == 0 else (1,)
        told = {"condition_size": self.condition_size, "out_channels": channels}
        return UNet(*self.spec[:2], 32, levels, 1, (len(levels),), **told)

    def _check(self) -> None:
        chain = isinstance(self.path, Table)
        if (self.learns_variance or self.objective != "error") and not chain:
            raise ValueError(
                f"learns_variance={self.learns_variance}, objective={self.objective}: only a chain "
                "(path=Table) has step variances and a bound of steps; take false and error"
            )
        if (self.objective, self.learns_variance) in (("both", False), ("error", True)):
            raise ValueError(
                f"objective={self.objective} with learns_variance={self.learns_variance}: the error "
                "says nothing of variances; learns_variance=true needs objective=bound or both, both needs it"
            )
        end = torch.tensor([self.path.end], dtype=torch.float64)
        if self.output == "eps" and float(self.path.levels(end).alpha) == 0:
            raise ValueError(
                f"output=eps with path={type(self.path).__name__}, at whose end x_t is the noise "
                "itself, which says nothing of the image. Take output=v, x0 or F"
            )
        if self.drop_condition and self.condition == "none":
            raise ValueError(
                f"drop_condition={self.drop_condition} with condition=none: there is none to drop"
            )
        self.times.check(self.path)
        if self.consistency is not None and not (isinstance(self.path, EDM) and self.output == "F"):
            raise ValueError(
                f"consistency with path={type(self.path).__name__} and output={self.output}: it tunes models "
                "whose image at no noise is x itself, path=EDM with output=F"
            )

    # --- training

    def phases(self, task: Task) -> tuple[Phase, ...]:
        main = Phase.single("train", self.step, (self,))
        if self.consistency is None:
            return (main,)
        tuning = self.consistency
        return (main, Phase.single("consistency", self.consistency_step, (self,), epochs=tuning.epochs))

    def consistency_step(self, batch: Batch, progress: float) -> Terms:
        """Images named at two noise levels of one way are to be the same. Source: Geng et al. 2024,
        arXiv:2406.14548, algorithm 1.
        """
        tuning, image = self.consistency, batch.image
        t, r = tuning.draw(batch.size, progress, image.device)
        condition = self.one_hot(label=batch.label, task=batch.task)
        noise, seed = torch.randn_like(image), int(torch.randint(2**31, ()))

        def named(level: Tensor) -> Tensor:
            # With the same dropout for both.
            with forked_rng(seed, device=image.device):
                x = noised(self.path, level, image, noise)
                return parts(self.said(x, level, condition)[0], "F", self.path, level, x).image

        with torch.no_grad():
            near = named(r.clamp(min=self.path.lowest))
            near = torch.where((r > 0).view(-1, 1, 1, 1), near, image)
        distance = (named(t) - near).float().flatten(1).norm(dim=1)
        return {"loss": (distance / (t - r)).mean(), "distance": distance.mean()}

    def distilled(self, batch: Batch, teacher: Diffusion) -> Terms:
        """In place of `step` where images were drawn from a frozen teacher: its noise is the target, at times
        even over the path. Source: Masip et al. 2023, arXiv:2311.14028.
        """
        t = Uniform().draw(batch.size, self.path, batch.image.device).t
        x = noised(self.path, t, batch.image, torch.randn_like(batch.image))
        condition = self.one_hot(label=batch.label, task=batch.task)
        said, _ = self.said(x, t, condition)
        with torch.no_grad():
            wanted, _ = teacher.said(x, t, condition)
        return {"loss": self.distance(said, wanted, t).mean()}

    def distance(self, said: Tensor, wanted: Tensor, t: Tensor) -> Tensor:
        """Of two outputs at times t, in the space of the loss: mean square over an image's numbers, [B]."""
        ratio = error_ratio(self.space, self.output, self.path, t).square()
        return ratio * (said - wanted).float().square().flatten(1).mean(1)

    def step(self, batch: Batch, progress: float) -> Terms:
        drawn = self.times.draw(batch.size, self.path, batch.image.device)
        noise = torch.randn_like(batch.image)
        condition = self.one_hot(label=batch.label, task=batch.task)
        if condition is not None and self.drop_condition and self.net.training:
            kept = torch.rand(batch.size, 1, device=condition.device) >= self.drop_condition
            condition = condition * kept
        x = noised(self.path, drawn.t, batch.image, noise)
        said, variance = self.said(x, drawn.t, condition)
        wanted = target(self.output, self.path, drawn.t, batch.image, noise)
        error = (said - wanted).float().square().flatten(1).mean(1)
        terms = {"error": error.mean()}
        ratio = error_ratio(self.space, self.output, self.path, drawn.t).square()
        loss = self.weight(self.path, self.space, drawn.t) * ratio * error
        if self.objective != "error":
            kept = said if self.objective == "bound" else said.detach()
            image = parts(kept, self.output, self.path, drawn.t, x).image
            bound = self.bound_at(drawn.t, batch.image, x, image, variance)
            terms["bound"] = (drawn.weight * bound).mean()
            loss = bound if self.objective == "bound" else loss + _BOUND_BESIDE * bound
        if self.times.learns and self.net.training:
            self.times.note(gathered(drawn.t), gathered(loss.detach()))
        return {"loss": (drawn.weight * loss).mean(), **terms}

    def bound_at(self, t: Tensor, image: Tensor, x: Tensor, guess: Tensor, variance: Tensor | None) -> Tensor:
        """The whole bound, without its first noise's term, as one step at t estimates it: nats per number of
        an image, [B].

        Args:
            image, x, guess: [B, C, S, S], the image, x_t, and what the network takes the image for.
            variance: see `said`.
        """
        nats = self.nats_at(t, image, x, guess, variance)
        return self.path.num_steps * nats / image[0].numel()

    def nats_at(self, t: Tensor, image: Tensor, x: Tensor, guess: Tensor, variance: Tensor | None) -> Tensor:
        """The bound's terms of steps t, nats per image: [B]."""
        log_var = log_variance(self.path, t, variance, "learned" if self.learns_variance else "large")
        return step_term(self.path, t, image.float(), x.float(), guess.float(), log_var)

    def said(self, x: Tensor, t: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The network's output at times [B], and between which variances it is (0 smallest, 1 largest)."""
        seen = scaled_input(x, self.output, self.path, t)
        out = self.network(seen, t, self.path.told(t), condition)
        if not self.learns_variance:
            return out, None
        out, variance = out.chunk(2, dim=1)
        return out, (variance + 1) / 2

    def network(self, x: Tensor, t: Tensor, told: Tensor, condition: Tensor | None) -> Tensor:
        """What the network says of x [B, C, S, S] at times [B], of which it is told `told` [B]."""
        return self.net(x, told, condition)

    # --- drawing

    def way(self, steps: int, spacing: Spacing = "even", start: float | None = None) -> list[Place]:
        """The places that a solver goes through, from the path's end or from `start` to the image."""
        return way(self.path, steps, spacing, start)

    def denoiser(
        self,
        guidance: float = 0.0,
        clip: bool = False,
        *,
        label: Tensor | None = None,
        task: Tensor | None = None,
    ) -> Denoiser:
        """(x_t, t) -> what x_t is made of, for solvers.

        Args:
            guidance: see `DiffusionSampler`.
            clip: images stay within [-1, 1], and the noise is what is left of x_t.
        """
        condition = self.one_hot(label=label, task=task)

        def says(x: Tensor, time: Tensor) -> tuple[Tensor, Tensor | None]:
            said, variance = self.said(x, time, condition)
            if guidance and condition is not None:
                untold, _ = self.said(x, time, torch.zeros_like(condition))
                said = said + guidance * (said - untold)
            return said, variance

        return self.denoiser_of(says, clip)

    def denoiser_of(
        self, says: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]], clip: bool
    ) -> Denoiser:
        """What `says`, which is called as `said` without a condition, means for solvers."""

        @torch.no_grad()
        def denoise(x: Tensor, t: float) -> Denoised:
            time = torch.full((len(x),), t, device=x.device)
            said, variance = says(x, time)
            image, noise = parts(said, self.output, self.path, time, x)
            if clip:
                image = image.clamp(-1, 1)
                noise = parts(image, "x0", self.path, time, x).noise
            return Denoised(Parts(image, noise), variance)

        return denoise

    @torch.no_grad()
    def denoised(
        self, x: Tensor, t: float, *, label: Tensor | None = None, task: Tensor | None = None
    ) -> Tensor:
        """x_t [B, C, S, S] without its noise, by the sampler that is set, or by DDIM in 50 steps."""
        if hasattr(self.sampler, "denoised"):
            return self.sampler.denoised(self, x, t, label=label, task=task)
        places = self.way(int(min(50, t)) if isinstance(self.path, Table) else 50, start=t)
        return DDIM().solve(self.denoiser(label=label, task=task), x, self.path, places)

    def generate(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        x = self.path.prior(n, self.spec.shape, self.device)
        return self.denoised(x, self.path.end, label=label, task=task).clamp(-1, 1)

    # --- representations

    @torch.no_grad()
    def features(self, batch: Batch, t: float) -> dict[str, Tensor]:
        """Means over the pixels of what the blocks on the way down and the middle make of x_t: [B, C_i]."""
        time = torch.full((batch.size,), t, device=batch.image.device)
        x = noised(self.path, time, batch.image, torch.randn_like(batch.image))
        condition = self.one_hot(label=batch.label, task=batch.task)
        if condition is not None:
            condition = torch.zeros_like(condition)  # a label must not tell a probe itself
        seen = scaled_input(x, self.output, self.path, time)
        return self.network_at(t).features(seen, self.path.told(time), condition).pooled()

    def network_at(self, t: float) -> nn.Module:
        """The network that x_t goes through."""
        return self.net

    def encode(self, batch: Batch) -> Tensor:
        """The middle's features at a tenth of the path, [B, C]."""
        t = self.path.at(torch.tensor(0.1, dtype=torch.float64))
        return self.features(batch, float(t))["middle"]

    # --- likelihood

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, draws: int) -> Tensor:
        """Minus the variational bound; lower than the likelihood.

        Args:
            draws: times per image, spread evenly over the chain; from the number of its steps on the sum over
                all of them, each with noise of its own.

        Raises:
            InputError: the path is no chain.
        """
        if not isinstance(self.path, Table):
            raise InputError(
                f"model.path={type(self.path).__name__}: the bound is that of a chain, as in model=ddpm"
            )
        steps, count = self.path.num_steps, min(draws, self.path.num_steps)
        condition = self.one_hot(label=batch.label, task=batch.task)
        total = torch.zeros(batch.size, device=batch.image.device)
        edges = [number * steps // count for number in range(count + 1)]
        for low, high in pairwise(edges):
            t = torch.randint(low + 1, high + 1, (batch.size,), device=total.device).float()
            x = noised(self.path, t, batch.image, torch.randn_like(batch.image))
            said, variance = self.said(x, t, condition)
            image = parts(said, self.output, self.path, t, x).image
            total += (high - low) * self.nats_at(t, batch.image, x, image, variance)
        return -(total + prior_term(self.path, batch.image))
