"""Sinkhorn divergence between two sets of points: optimal transport with entropy, without its bias.

Sources: Feydy et al. 2019, "Interpolating between optimal transport and MMD using Sinkhorn divergences",
arXiv:1810.08278 (divergence, symmetric updates, gradient); Feydy 2020, "Geometric data analysis, beyond
convolutions" (one update per temperature); Salimans et al. 2018, "Improving GANs using optimal transport",
arXiv:1803.05573, section 3 (minibatches of one distribution are held against each other).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from annotated_types import Gt, Lt
from torch import Tensor
from torch.autograd.function import once_differentiable

from lit_gen.losses.distances import squared_distances, widened

_FITS_THE_CACHE = 2**16  # entries of a matrix


@dataclass(frozen=True)
class SinkhornDivergence:
    """S(x, y) = OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2 with cost ||x - y||^2 / 2 and entropy weight blur^2.

    0 for equal sets; half the squared Wasserstein-2 distance as blur falls. It has one value per pair of
    sets, none per image, and can be slightly negative as long as the potentials have not converged.

    The potentials are updated once per temperature, from diameter^2 down to blur^2. The gradient is that of
    the last update alone, which at convergence is the gradient of S; it cannot be differentiated again.

    As a loss of minibatches S pulls inwards: a small set is nearest to another draw of its own distribution
    when it is contracted, and the more so in many dimensions (`benchmarks/contraction.py`). `unbiased` gives
    (OT(x1, y1) + OT(x2, y2) - OT(x1, x2) - OT(y1, y2)) / 2 of halves instead, which has no gradient on
    average where both sets have one distribution. It takes no longer, varies more and is often negative.

    Args:
        blur: length below which points are not told apart.
        scaling: the temperature falls by scaling^2 per update; nearer to 1 is slower and more exact.
        diameter: where annealing begins; None: the largest range of a coordinate. One below blur leaves two
            updates, which is too few for points that are further apart than that.
        unbiased: halves are every other point, whose order must not depend on where they are. Sets with a
            single point have no halves; they give S.
    """

    blur: Annotated[float, Gt(0)] = 0.05
    scaling: Annotated[float, Gt(0), Lt(1)] = 0.95
    diameter: Annotated[float, Gt(0)] | None = None
    unbiased: bool = False

    takes_samples: ClassVar[bool] = True

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Points of equal weight, [..., N, D] and [..., M, D] -> [...]. Unit: half a squared length."""
        if x.ndim < 2 or x.shape[:-2] != y.shape[:-2] or x.shape[-1] != y.shape[-1]:
            raise ValueError(
                f"SinkhornDivergence: points {list(x.shape)} against {list(y.shape)}; sets are [..., N, D] "
                "and [..., M, D]"
            )
        sets = (widened(points).reshape(-1, *points.shape[-2:]) for points in (x, y))
        return _Divergence.apply(*sets, self).reshape(x.shape[:-2])

    def temperatures(self, x: Tensor, y: Tensor) -> list[float]:
        """Weights of the entropy, falling; those of geomloss, which has the first one twice."""
        start = self.diameter
        if start is None:
            both = torch.cat([x, y], -2)
            widest = float((both.amax(-2) - both.amin(-2)).max())
            # Points that are not finite give no number of updates; the value will not be finite either.
            start = max(self.blur, widest) if math.isfinite(widest) else self.blur
        count = math.ceil(math.log(self.blur / start) / math.log(self.scaling) - 1e-9)
        falling = [(start * self.scaling**step) ** 2 for step in range(count)]
        return [start**2, *falling, self.blur**2]


class _Coupled(NamedTuple):
    """Two sets after the last update."""

    first: Tensor  # [B, N], potentials
    second: Tensor  # [B, M]
    seen_by_first: Tensor  # [B, N, D], for every point of the first set the mean of what it is coupled to
    seen_by_second: Tensor  # [B, M, D]


class _Divergence(torch.autograd.Function):
    """[B, N, D] and [B, M, D] -> [B]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, settings: SinkhornDivergence) -> Tensor:
        temperatures = settings.temperatures(x, y)
        with torch.autocast(x.device.type, enabled=False):
            if settings.unbiased and min(x.shape[-2], y.shape[-2]) > 1:
                value, *gradients = _between_halves(x, y, temperatures)
            else:
                value, *gradients = _debiased(x, y, temperatures)
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        to_x, to_y = ctx.saved_tensors
        return gradient[:, None, None] * to_x, gradient[:, None, None] * to_y, None


# The gradient of a potential is the point minus what it is coupled to, and the point itself cancels.


def _debiased(x: Tensor, y: Tensor, temperatures: list[float]) -> tuple[Tensor, Tensor, Tensor]:
    """OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2, [B], and its gradients."""
    xy, xx, yy = _couple([(x, y), (x, x), (y, y)], temperatures)
    return (
        (xy.first - xx.first).mean(-1) + (xy.second - yy.second).mean(-1),
        (xx.seen_by_first - xy.seen_by_first) / x.shape[1],
        (yy.seen_by_second - xy.seen_by_second) / y.shape[1],
    )


def _between_halves(x: Tensor, y: Tensor, temperatures: list[float]) -> tuple[Tensor, Tensor, Tensor]:
    """(OT(x1, y1) + OT(x2, y2) - OT(x1, x2) - OT(y1, y2)) / 2, [B], and its gradients."""
    value, to_x, to_y = x.new_zeros(len(x)), torch.empty_like(x), torch.empty_like(y)
    (x1, x2), (y1, y2) = ((points[:, ::2], points[:, 1::2]) for points in (x, y))
    one, two, of_x, of_y = _couple([(x1, y1), (x2, y2), (x1, x2), (y1, y2)], temperatures)
    for whole, start, potential, among, seen, seen_among in (
        (to_x, 0, one.first, of_x.first, one.seen_by_first, of_x.seen_by_first),
        (to_x, 1, two.first, of_x.second, two.seen_by_first, of_x.seen_by_second),
        (to_y, 0, one.second, of_y.first, one.seen_by_second, of_y.seen_by_first),
        (to_y, 1, two.second, of_y.second, two.seen_by_second, of_y.seen_by_second),
    ):
        value += (potential - among).mean(-1) / 2
        whole[:, start::2] = (seen_among - seen) / (2 * potential.shape[-1])
    return value, to_x, to_y


def _couple(pairs: list[tuple[Tensor, Tensor]], temperatures: list[float]) -> list[_Coupled]:
    """Couples each pair of sets; all of them in the same calls where they have one shape and are small."""
    x, y = pairs[0]
    entries = x.shape[0] * x.shape[1] * y.shape[1]
    if len({points.shape for pair in pairs for points in pair}) > 1 or (
        x.device.type == "cpu" and entries > _FITS_THE_CACHE
    ):
        return [_solve(*pair, temperatures) for pair in pairs]
    parts = _solve(*(torch.cat(sets) for sets in zip(*pairs, strict=True)), temperatures)
    return [_Coupled(*part) for part in zip(*(tensor.chunk(len(pairs)) for tensor in parts), strict=True)]


def _solve(x: Tensor, y: Tensor, temperatures: list[float]) -> _Coupled:
    cost = squared_distances(x, y).div_(2)
    coupled = _by_exponentials(cost, x, y, temperatures)
    return _by_logarithms(cost, x, y, temperatures) if coupled is None else coupled


def _by_exponentials(cost: Tensor, x: Tensor, y: Tensor, temperatures: list[float]) -> _Coupled | None:
    """One matrix of exp((f_i + g_j - C_ij) / t) updates both potentials.

    Where potentials and temperature belong together it is the coupling times N M, and so of good size. Where
    they do not, since points are much further apart than the temperature before said, a row or column may
    hold nothing but zeros. The answer is None then.
    """
    batch, n, m = cost.shape
    floor = _least_exponent(cost)
    weights, sums = torch.empty_like(cost), cost.new_empty(batch, n + m)
    least = torch.full_like(sums, torch.inf)
    log_counts = torch.log(torch.cat([sums.new_full((n,), m), sums.new_full((m,), n)]))
    potentials = torch.zeros_like(sums)  # f and g in one tensor: half the calls
    for temperature, share in _updates(temperatures):
        scaled = potentials / temperature
        torch.sub(scaled[:, :n, None], cost, alpha=1 / temperature, out=weights)
        weights.add_(scaled[:, None, n:]).clamp_(min=floor).exp_()
        torch.sum(weights, -1, out=sums[:, :n])
        torch.sum(weights, -2, out=sums[:, n:])
        torch.minimum(least, sums, out=least)
        potentials.add_(sums.log().sub_(log_counts), alpha=-share * temperature)
    # What was raised to the floor must not count. A least sum of NaN is none that is large enough.
    enough = least.min() * torch.finfo(cost.dtype).eps > math.exp(floor) * max(n, m)
    if not (enough & potentials.isfinite().all()):
        return None
    return _Coupled(
        potentials[:, :n],
        potentials[:, n:],
        weights @ y / sums[:, :n, None],
        weights.mT @ x / sums[:, n:, None],
    )


def _by_logarithms(cost: Tensor, x: Tensor, y: Tensor, temperatures: list[float]) -> _Coupled:
    """The same at any temperature, three times as slow."""
    floor = _least_exponent(cost)

    def weigh(potential: Tensor, temperature: float, dim: int) -> tuple[Tensor, Tensor]:
        """exp((g_j - C_ij) / t), divided by its mean over a row (or column); the mean's logarithm."""
        exponents = (potential.unsqueeze(-dim - 3) - cost) / temperature
        largest = exponents.amax(dim, keepdim=True)
        weights = (exponents - largest).clamp_(min=floor).exp_()
        mean = weights.mean(dim, keepdim=True)
        return weights / mean, (mean.log() + largest).squeeze(dim)

    f, g = cost.new_zeros(cost.shape[:-1]), cost.new_zeros(cost.shape[0], cost.shape[-1])
    for temperature, share in _updates(temperatures):
        of_rows, row_means = weigh(g, temperature, -1)
        of_columns, column_means = weigh(f, temperature, -2)
        f = f + share * (-temperature * row_means - f)
        g = g + share * (-temperature * column_means - g)
    return _Coupled(f, g, of_rows @ y / cost.shape[-1], of_columns.mT @ x / cost.shape[-2])


def _updates(temperatures: list[float]) -> Iterator[tuple[float, float]]:
    """Temperature and step size of all updates. Those between the first and the last are averaged with what
    was before, so that both sets can be updated at once."""
    yield temperatures[0], 1.0
    yield from ((temperature, 0.5) for temperature in temperatures)
    yield temperatures[-1], 1.0


def _least_exponent(cost: Tensor) -> float:
    """Of exponentials that are normal numbers: others take a hundred times as long on a CPU."""
    return math.log(torch.finfo(cost.dtype).tiny) + 2
