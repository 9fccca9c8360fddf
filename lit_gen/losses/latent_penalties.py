"""How far a minibatch of codes is from a prior: one value per minibatch, since no code has a distance alone.

Every penalty is called with codes [N, Z] and as many points of the prior [N, Z]; `takes_samples` says
whether it looks at the latter. One that does not is made for N(0, I). `SinkhornDivergence` is another one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol

import torch
from annotated_types import Gt, MinLen
from torch import Tensor

from lit_gen.core.types import Positive
from lit_gen.losses.distances import squared_distances


class LatentPenalty(Protocol):
    """A distance of codes from a prior."""

    takes_samples: bool

    def __call__(self, codes: Tensor, drawn: Tensor | None) -> Tensor:
        """Codes [N, Z] and points of the prior [M, Z] -> scalar."""


@dataclass(frozen=True)
class MMD:
    """Squared maximum mean discrepancy under a sum of inverse multiquadric kernels C / (C + ||x - y||^2).

    The means over pairs within a set leave out the pairs of a point with itself, and the mean over pairs of
    both sets is over all of them; the value may be negative.

    Source: Tolstikhin et al. 2018, "Wasserstein auto-encoders", arXiv:1711.01558, section 4: C = 2 Z sigma^2
    is what ||x - y||^2 is on average for two points of N(0, sigma^2 I).

    Args:
        sigma: standard deviation of the prior.
        scales: factors of C, one kernel each.
    """

    sigma: Annotated[float, Gt(0)] = 1.0
    scales: Annotated[Sequence[Annotated[float, Gt(0)]], MinLen(1)] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

    takes_samples: ClassVar[bool] = True

    def __call__(self, codes: Tensor, drawn: Tensor) -> Tensor:
        base = 2 * codes.shape[1] * self.sigma**2
        between = self._kernel(squared_distances(codes, drawn), base).mean()
        return self._mean_within(codes, base) + self._mean_within(drawn, base) - 2 * between

    def _mean_within(self, points: Tensor, base: float) -> Tensor:
        """Over pairs of different points; 0 for a single one."""
        count = len(points)
        kernel = self._kernel(squared_distances(points, points), base)
        return (kernel.sum() - kernel.diagonal().sum()) / max(count * (count - 1), 1)

    def _kernel(self, squared: Tensor, base: float) -> Tensor:
        return sum(base * scale / (base * scale + squared) for scale in self.scales)


@dataclass(frozen=True)
class SlicedWasserstein:
    """Mean squared Wasserstein-2 distance of projections to random lines: [N, Z] twice -> scalar.

    For two Gaussians that differ by a shift it is ||shift||^2 / Z on average over the lines.

    Source: Kolouri et al. 2018, "Sliced-Wasserstein autoencoder", arXiv:1804.01947, algorithm 1.

    Args:
        num_projections: lines, drawn anew at every call.
    """

    num_projections: Positive = 50

    takes_samples: ClassVar[bool] = True

    def __call__(self, codes: Tensor, drawn: Tensor) -> Tensor:
        if codes.shape != drawn.shape:
            raise ValueError(
                f"SlicedWasserstein: codes {list(codes.shape)} against {list(drawn.shape)} points; it pairs "
                "them off, so take as many of one as of the other"
            )
        lines = torch.randn(codes.shape[1], self.num_projections, dtype=codes.dtype, device=codes.device)
        lines = lines / lines.norm(dim=0)
        # Rows are sorted faster than columns.
        first, second = ((points @ lines).T.sort(dim=1).values for points in (codes, drawn))
        return (first - second).square().mean()


@dataclass(frozen=True)
class CramerWold:
    """Squared Cramer-Wold distance of codes from N(0, I), times 2 sqrt(pi): [N, Z] -> scalar.

    The mean over all lines of the squared L2 distance between the smoothed projections of the codes and of
    N(0, I), in closed form. Exact in one and two dimensions; above, the kernel is approximated, as published,
    to within 0.09 in three dimensions, 0.023 in eight and 0.003 in 64, where 1 is its largest value. The
    distance may then be slightly negative.

    Source: Knop et al. 2020, "Cramer-Wold auto-encoder", arXiv:1805.09235, theorem 3.1; smoothing by
    Silverman's rule, gamma = (4 / (3 N))^(2/5), which asks for minibatches of at least 64.
    """

    takes_samples: ClassVar[bool] = False

    def __call__(self, codes: Tensor, drawn: Tensor | None = None) -> Tensor:
        count, size = codes.shape
        gamma = (4 / (3 * count)) ** 0.4
        among_codes = _profile(squared_distances(codes, codes) / (4 * gamma), size).mean() / math.sqrt(gamma)
        to_prior = _profile(codes.square().sum(1) / (2 + 4 * gamma), size).mean() / math.sqrt(gamma + 0.5)
        return 1 / math.sqrt(1 + gamma) + among_codes - 2 * to_prior


def _profile(s: Tensor, size: int) -> Tensor:
    """Kummer's 1F1(1/2; size/2; -s) for s >= 0: exact for one and two dimensions."""
    if size == 1:
        return (-s).exp()
    if size == 2:
        return torch.special.i0e(s / 2)
    return (1 + 4 * s / (2 * size - 3)).rsqrt()


@dataclass(frozen=True)
class Logarithm:
    """log(penalty + floor): the same pull on codes that are near the prior as on those that are far.

    Source: Knop et al. 2020, section 4; the floor, and 0 in place of a negative distance, keep it finite.

    Args:
        of: the penalty.
    """

    of: LatentPenalty
    floor: Annotated[float, Gt(0)] = 1e-7

    @property
    def takes_samples(self) -> bool:
        return self.of.takes_samples

    def __call__(self, codes: Tensor, drawn: Tensor | None = None) -> Tensor:
        return (self.of(codes, drawn).clamp(min=0) + self.floor).log()
