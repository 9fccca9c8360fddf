"""Precision and recall of distributions from clusters of features. Source: Sajjadi et al. 2018
(arXiv:1806.00035).
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from lit_gen.core.types import NonNegative, Positive
from lit_gen.metrics.base import GatheringMetric

_TINY = 1e-10


class PRD(GatheringMetric):
    """The curve's two summaries, both in [0, 1]: prd_precision = max F_(1/beta), prd_recall = max F_beta.

    The union of both sets is clustered (mini-batch k-means), and the histograms over clusters are compared:
    real is the paper's reference P, generated its Q. The curve is the mean over `num_runs` clusterings. Both
    sets must be equally large, so the larger is thinned out evenly, in the order of the images.

        >>> metric = PRD()
        >>> metric.update(torch.randn(200, 4), real=True)
        >>> metric.update(torch.randn(200, 4), real=False)
        >>> sorted(metric.compute())
        ['prd_precision', 'prd_recall']

    Args:
        beta: weight of recall against precision in F_beta.
        seed: of the clusterings; the global generators are left alone.
    """

    names = {"prd_precision": "higher", "prd_recall": "higher"}
    one_sided = frozenset({"prd_recall"})

    def __init__(
        self,
        num_features: int | None = None,
        num_clusters: Annotated[int, Ge(2)] = 20,
        num_runs: Positive = 10,
        num_angles: Annotated[int, Ge(3), Le(1_000_000)] = 1001,
        beta: Annotated[float, Gt(0)] = 8.0,
        seed: NonNegative = 0,
    ) -> None:
        super().__init__(num_features)
        if num_clusters < 2 or num_angles < 3:  # would give numbers that mean nothing
            raise ValueError(
                f"PRD: num_clusters={num_clusters}, num_angles={num_angles}; 2 and 3 are the least"
            )
        self.num_clusters, self.num_runs, self.num_angles = num_clusters, num_runs, num_angles
        self.beta, self.seed = beta, seed

    def score(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        count = min(len(real), len(fake))
        if count < self.num_clusters:
            return self._nothing(
                f"{self.num_clusters} images are the least (num_clusters), "
                f"got {len(real)} real and {len(fake)} generated"
            )
        # Distances to centres lose digits when all features are far from zero.
        union = torch.cat((_thinned(real, count), _thinned(fake, count)))
        union -= union.mean(dim=0)
        points = union.cpu().numpy()
        curves = torch.stack([self._curve(points, run) for run in range(self.num_runs)]).mean(dim=0)
        return {"prd_precision": best_f(curves, 1 / self.beta), "prd_recall": best_f(curves, self.beta)}

    def _curve(self, points: np.ndarray, run: int) -> Tensor:
        # Imported here, since it takes a second and half of the command line never needs it.
        from sklearn.cluster import MiniBatchKMeans

        clustering = MiniBatchKMeans(
            n_clusters=self.num_clusters,
            init=spread_centres,
            n_init=10,
            batch_size=1024,
            random_state=self.seed + run,
        )
        cluster = torch.from_numpy(clustering.fit(points).labels_).long()
        real, fake = (part.bincount(minlength=self.num_clusters).double() for part in cluster.chunk(2))
        return prd_curve(real / real.sum(), fake / fake.sum(), self.num_angles)


def spread_centres(points: np.ndarray, count: int, random_state: np.random.RandomState) -> np.ndarray:
    """Greedy k-means++ as scikit-learn's, which spends ten times as long on checks and float64: [N, D] ->
    [count, D].

    Each centre is drawn with probability proportional to the squared distance to the nearest centre so far,
    and the best of a few draws is kept. Source: Arthur & Vassilvitskii 2007, section 2.2 and the end of
    section 5.
    """
    num_draws = 2 + int(math.log(count))
    square = np.einsum("nd,nd->n", points, points)

    def squared_distances(rows: np.ndarray) -> np.ndarray:  # [R, N]
        return np.maximum(square[rows, None] + square - 2 * points[rows] @ points.T, 0)

    chosen = [random_state.randint(len(points))]
    nearest = squared_distances(np.array(chosen))[0]
    while len(chosen) < count:
        weight = nearest.cumsum(dtype=np.float64)
        draws = np.searchsorted(weight, random_state.random_sample(num_draws) * weight[-1])
        draws = np.minimum(draws, len(points) - 1)
        candidates = np.minimum(nearest, squared_distances(draws))
        best = candidates.sum(axis=1).argmin()
        chosen.append(draws[best])
        nearest = candidates[best]
    return points[chosen]


def prd_curve(reference: Tensor, evaluated: Tensor, num_angles: int) -> Tensor:
    """Precision and recall at slopes spread evenly over the angles in (0, pi / 2): two histograms [W] -> [2,
    num_angles].

    Source: eq. 7 and algorithm 1.
    """
    slope = torch.linspace(_TINY, math.pi / 2 - _TINY, num_angles, dtype=torch.float64).tan()[:, None]
    precision = torch.minimum(reference.double() * slope, evaluated.double()).sum(dim=1)
    return torch.stack((precision, precision / slope[:, 0])).clamp(0, 1)


def best_f(curve: Tensor, beta: float) -> Tensor:
    """Largest F_beta along a curve [2, num_angles] of precision and recall; beta > 1 weighs recall more."""
    precision, recall = curve
    weight = beta**2
    return ((1 + weight) * precision * recall / (weight * precision + recall + _TINY)).max()


def _thinned(features: Tensor, count: int) -> Tensor:
    if len(features) == count:
        return features
    return features[torch.arange(count, device=features.device) * len(features) // count]
