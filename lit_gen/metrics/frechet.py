"""Frechet distance between Gaussians fitted to features. Source: Heusel et al. 2017 (arXiv:1706.08500)."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gen.core.random import processes
from lit_gen.metrics.base import FeatureMetric, full_precision

# Images that are turned into float64 at a time.
_BLOCK = 2048
# Where the number of images is not known: large, and a covariance times a power of two loses nothing.
_MANY = 2**40 + 1


class FrechetDistance(FeatureMetric):
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), S with N - 1 in the denominator; in float64, at least 0.

    The estimate is too large for finite N, the more so the more features; below N = 10 d a warning says so.

        >>> metric = FrechetDistance()
        >>> metric.update(torch.tensor([[0.0], [2.0]]).repeat(50, 1), real=True)
        >>> metric.update(torch.tensor([[3.0], [5.0]]).repeat(50, 1), real=False)  # the same, moved by 3
        >>> round(metric.compute()["fid"].item(), 3)
        9.0
    """

    names = {"fid": "lower"}

    def __init__(self, num_features: int | None = None) -> None:
        super().__init__(num_features)
        self._make_states(num_features or 0)

    def update(
        self, features: Tensor, real: bool, index: Tensor | None = None, logits: Tensor | None = None
    ) -> None:
        features = self._checked(features)
        if not self.real.numel():
            self._make_states(features.shape[1])
        for block in features.split(_BLOCK):
            if len(block):
                add_to_moments(self.real if real else self.fake, block.double())

    def take_statistics(self, mean: Tensor, covariance: Tensor, count: int) -> bool:
        if processes()[1] == 0:  # the others add nothing to it
            count = count or _MANY
            moments = torch.cat((torch.full_like(mean, count)[None], mean[None], covariance * (count - 1)))
            self.real = moments.to(self.device)
        return True

    def statistics(self) -> tuple[Tensor, Tensor, int]:
        """Mean, covariance and count of the real images of all processes; collective."""
        is_alone = processes()[0] == 1
        with self.sync_context(should_sync=not is_alone):
            count = int(self.real[0, 0])
            return self.real[1].clone(), self.real[2:] / (count - 1), count

    def compute(self) -> dict[str, Tensor]:
        if self.num_features is None:
            return self._nothing("there were no images")
        num_real, num_fake = int(self.real[0, 0]), int(self.fake[0, 0])
        if min(num_real, num_fake) < 2:
            return self._nothing(f"two images are the least, got {num_real} real and {num_fake} generated")
        if min(num_real, num_fake) < 10 * self.num_features:
            self._warn(
                f"{num_real} real and {num_fake} generated images are fewer than 10 for each of the "
                f"{self.num_features} features, which makes it too large, by about the same for every model: "
                "compare at equal counts only"
            )
        if not (self.real.isfinite().all() and self.fake.isfinite().all()):
            return self._nothing("some features are infinite or NaN")
        with full_precision(self.device):
            distance = frechet_distance(
                self.real[1], self.real[2:] / (num_real - 1), self.fake[1], self.fake[2:] / (num_fake - 1)
            )
        return {"fid": distance}

    def _make_states(self, num_features: int) -> None:
        for name in ("real", "fake"):
            empty = torch.zeros(num_features + 2, num_features, dtype=torch.float64, device=self.device)
            self.add_state(name, default=empty, dist_reduce_fx=merge_moments)


def add_to_moments(held: Tensor, features: Tensor) -> None:
    """Takes features [N, D], N >= 1, into moments [D + 2, D]: the count (repeated), the mean, and the sum of
    outer products about the mean, in one tensor, since these merge together or not at all.

    In place: a copy of D^2 numbers for every block would cost more than the product does.
    """
    count, before = len(features), held[0, 0].clone()
    mean = features.mean(dim=0)
    step = mean - held[1]
    # The pull between the two means is one more row of the product. Source: as in merge_moments.
    pull = step * (before * count / (before + count)).sqrt()
    rows = torch.cat((features - mean, pull[None]))
    held[2:].addmm_(rows.T, rows)
    held[1] += step * (count / (before + count))
    held[0] += count


def merge_moments(parts: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Moments of the union: [P, D + 2, D] -> [D + 2, D]. Source: Chan, Golub & LeVeque 1979, eq. 2.1.

    Unlike sums of raw outer products this keeps its digits when the mean is large beside the spread.
    """
    merged = parts[0].clone()
    for part in parts[1:]:
        total = merged[0, 0] + part[0, 0]
        if total == 0:
            continue
        step = part[1] - merged[1]
        merged[2:] += part[2:] + torch.outer(step, step) * (merged[0, 0] * part[0, 0] / total)
        merged[1] += step * (part[0, 0] / total)
        merged[0] = total
    return merged


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> Tensor:
    """Between N(mean_a [D], cov_a [D, D]) and N(mean_b, cov_b), float64; never negative.

    With S = F F^T for both, tr (S1 S2)^(1/2) is the sum of the singular values of F1^T F2. The eigenvalues of
    S1 S2 are their squares, and small ones of these are lost to rounding.
    """
    trace = torch.linalg.svdvals(factor(cov_a).T @ factor(cov_b)).sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * trace
    return distance.clamp_min(0)


def factor(covariance: Tensor) -> Tensor:
    """F [D, R] with F F^T = covariance [D, D], R <= D, each feature as exact as its own variance."""
    scale = covariance.diagonal().clamp_min(0).sqrt()
    scale = torch.where(scale > 0, scale, 1)
    correlation = covariance / scale / scale[:, None]
    root, failed = torch.linalg.cholesky_ex(correlation)
    noise = len(scale) * torch.finfo(scale.dtype).eps
    if failed or root.diagonal().min() ** 2 < noise:
        # Fewer images than features, or a feature that never fires: no Cholesky factor, or one of noise.
        values, vectors = torch.linalg.eigh(correlation)
        is_real = values > values[-1] * noise
        root = vectors[:, is_real] * values[is_real].sqrt()
    return scale[:, None] * root
