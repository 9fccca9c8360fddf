"""At which times a model is trained: samplers of times, with weights that make up for their preferences.

With p the density of a draw, a weight is 1 / p relative to even times on the path, unless the preference is
meant (logit-normal, log-normal): then it is 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from lit_gen.core.types import Fraction, Positive
from lit_gen.diffusion.path import EDM, Path, Table


class Times(NamedTuple):
    """Drawn times and their weights, [B] each."""

    t: Tensor
    weight: Tensor


class TimeSampler(ABC):
    """Draws times from the global generator.

    Attributes:
        learns: whether it is told the losses of what it drew, by `note`.
    """

    learns: ClassVar[bool] = False

    def check(self, path: Path) -> None:
        """ValueError for a path whose times it does not draw."""
        return

    def note(self, t: Tensor, loss: Tensor) -> None:
        """Takes in the losses [B] of all processes' draws at times [B]."""
        return

    @abstractmethod
    def draw(self, count: int, path: Path, device: torch.device) -> Times:
        """As many times of the path, float32."""


@dataclass(frozen=True)
class Uniform(TimeSampler):
    """Evenly over the path.

    Args:
        stratified: one time in each of B equal parts of the path, all shifted together (Kingma et al. 2021,
            arXiv:2107.00630, appendix I.1): the same distribution with less noise between batches.
        least: the smallest part of a continuous path that is drawn, where levels could vanish.
    """

    stratified: bool = False
    least: Fraction = 1e-5

    def draw(self, count: int, path: Path, device: torch.device) -> Times:
        if self.stratified:
            part = (torch.rand((), device=device) + torch.arange(count, device=device) / count) % 1
        else:
            part = torch.rand(count, device=device)
        return Times(_on_path(part, path, self.least), torch.ones(count, device=device))


@dataclass(frozen=True)
class LogitNormal(TimeSampler):
    """Most often the middle of the path. Source: Esser et al. 2024, arXiv:2403.03206, eq. 19."""

    mean: float = 0.0
    spread: Annotated[float, Gt(0)] = 1.0

    def draw(self, count: int, path: Path, device: torch.device) -> Times:
        part = (self.mean + self.spread * torch.randn(count, device=device)).sigmoid()
        return Times(_on_path(part, path, 1e-5), torch.ones(count, device=device))


@dataclass(frozen=True)
class LogNormal(TimeSampler):
    """Noise levels of EDM: ln sigma ~ N(mean, spread^2). Source: Karras et al. 2022, table 1."""

    mean: float = -1.2
    spread: Annotated[float, Gt(0)] = 1.2

    def check(self, path: Path) -> None:
        if not isinstance(path, EDM):
            raise ValueError(
                f"times=LogNormal with path={type(path).__name__}: it draws standard deviations, the times "
                "of path=EDM; use Uniform or LogitNormal"
            )

    def draw(self, count: int, path: Path, device: torch.device) -> Times:
        level = (self.mean + self.spread * torch.randn(count, device=device)).exp()
        return Times(level, torch.ones(count, device=device))


@dataclass(frozen=True)
class FirstStep(TimeSampler):
    """Of a chain, its first step more often than the others: DAED's `dae_uniform`, and `only_dae`.

    Source: Deja et al. 2022, their code: the first step weighs beta_1 T, every other 1.

    Args:
        only: always the first step, which trains the denoiser alone.
    """

    only: bool = False

    def check(self, path: Path) -> None:
        if not isinstance(path, Table):
            raise ValueError(
                f"times=FirstStep with path={type(path).__name__}: only a chain (Table) has a first step"
            )

    def shares(self, path: Table) -> Tensor:
        """Probabilities [T] of the steps."""
        weight = torch.ones(path.num_steps, dtype=torch.float64)
        weight[0] = float(path.exact["beta"][1]) * path.num_steps
        return weight / weight.sum()

    def draw(self, count: int, path: Table, device: torch.device) -> Times:
        if self.only:
            return Times(torch.ones(count, device=device), torch.ones(count, device=device))
        return _by_shares(self.shares(path), count, device)


class LossAware(nn.Module, TimeSampler):
    """Of a chain, steps in proportion to the root mean square of their latest losses, after a start in which
    all are drawn alike. Source: Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 18.

    Args:
        num_steps: of the chain.
        history: latest losses that are kept for each step; until each has so many, all are drawn alike.
        even: part of the draws that stays even over the steps.
    """

    learns = True

    def __init__(
        self, num_steps: Positive, history: Positive = 10, even: Annotated[float, Ge(0)] = 0.001
    ) -> None:
        super().__init__()
        self.history, self.even = history, even
        self.register_buffer("losses", torch.zeros(num_steps, history))
        self.register_buffer("counts", torch.zeros(num_steps, dtype=torch.long))

    def check(self, path: Path) -> None:
        if not isinstance(path, Table) or path.num_steps != len(self.counts):
            raise ValueError(
                f"times=LossAware(num_steps={len(self.counts)}): needs a chain (Table) of as many steps"
            )

    def shares(self) -> Tensor:
        """Probabilities [T] of the steps."""
        even = torch.full_like(self.losses[:, 0], 1 / len(self.losses))
        if bool((self.counts < self.history).any()):
            return even
        size = self.losses.square().mean(dim=1).sqrt()
        return (1 - self.even) * size / size.sum() + self.even * even

    def draw(self, count: int, path: Path, device: torch.device) -> Times:
        return _by_shares(self.shares(), count, device)

    @torch.no_grad()
    def note(self, t: Tensor, loss: Tensor) -> None:
        for step, value in zip((t.long() - 1).tolist(), loss.tolist(), strict=True):
            self.losses[step] = self.losses[step].roll(-1)
            self.losses[step, -1] = value
            self.counts[step] += 1


def _on_path(part: Tensor, path: Path, least: float) -> Tensor:
    """Times at parts of the way, [B]; a chain's steps are equally long."""
    if isinstance(path, Table):
        return (part * path.num_steps).floor().clamp(max=path.num_steps - 1) + 1
    return path.at(part.clamp(least, 1.0))


def _by_shares(shares: Tensor, count: int, device: torch.device) -> Times:
    shares = shares.to(device, torch.float32)
    step = torch.multinomial(shares, count, replacement=True)
    return Times(step + 1.0, 1 / (len(shares) * shares[step]))
