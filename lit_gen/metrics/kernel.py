"""Kernel distance and Inception Score, both means over subsets that torch-fidelity would draw with the same
seed.

Sources: kernel distance, Binkowski et al. 2018 (arXiv:1801.01401); Inception Score, Salimans et al. 2016
(arXiv:1606.03498).
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from lit_gen.core.types import NonNegative, Positive
from lit_gen.metrics.base import GatheringMetric


class KernelDistance(GatheringMetric):
    """Squared maximum mean discrepancy under the kernel (x y / D + 1)^3, unbiased, hence negative at times.

    kid: mean over subsets; kid_std: standard deviation over subsets, NaN of one subset. With fewer images
    than `subset_size` the subsets have as many as there are, and if that is all of both sets, there is one.

        >>> metric = KernelDistance()
        >>> metric.update(torch.randn(200, 4), real=True)
        >>> metric.update(torch.randn(200, 4), real=False)
        >>> sorted(metric.compute())
        ['kid', 'kid_std']
    """

    names = {"kid": "lower", "kid_std": ""}

    def __init__(
        self,
        num_features: int | None = None,
        num_subsets: Positive = 100,
        subset_size: Annotated[int, Ge(2)] = 1000,
        seed: NonNegative = 2020,
    ) -> None:
        super().__init__(num_features)
        self.num_subsets, self.subset_size, self.seed = num_subsets, subset_size, seed

    def score(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        size = min(self.subset_size, len(real), len(fake))
        if size < 2:
            return self._nothing(f"two images are the least, got {len(real)} real and {len(fake)} generated")
        if size < self.subset_size:
            self._warn(f"subsets have {size} images, not {self.subset_size}: there are no more")
        # NumPy's frozen generator, drawn from as torch-fidelity does (generated first), so that both see the
        # same subsets.
        rng = np.random.RandomState(self.seed)
        discrepancies = []
        for _ in range(self.num_subsets if size < max(len(real), len(fake)) else 1):
            some_fake = fake[torch.from_numpy(rng.choice(len(fake), size, replace=False)).to(fake.device)]
            some_real = real[torch.from_numpy(rng.choice(len(real), size, replace=False)).to(real.device)]
            discrepancies.append(squared_mmd(some_fake, some_real))
        return _summary("kid", discrepancies)


def squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased estimate from two equally large sets, [M, D] twice -> float64 scalar (eq. 4 of the source)."""
    size = len(x)
    within = _sum_of_others(_cubic(x, x)) + _sum_of_others(_cubic(y, y))
    return within / (size * (size - 1)) - 2 * _sum(_cubic(x, y)) / size**2


def _sum_of_others(kernel: Tensor) -> Tensor:
    return _sum(kernel) - _sum(kernel.diagonal()[:, None])


def _sum(kernel: Tensor) -> Tensor:
    # Float64 only across rows: converting every entry first takes longer than the matrix product.
    return kernel.sum(dim=1).double().sum()


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    inner = torch.addmm(x.new_ones(()), x, y.T, alpha=1 / x.shape[1])
    return inner.square().mul_(inner)


class InceptionScore(GatheringMetric):
    """exp of the mean divergence between a generated image's class probabilities and their mean; in [1, K].

    inception_score: mean over splits; inception_score_std: standard deviation over splits, NaN of one split.
    Needs an extractor that classifies.

        >>> metric = InceptionScore()
        >>> sure = 100 * torch.eye(5).repeat(40, 1)  # logits: each image is surely of one of five classes
        >>> metric.update(torch.zeros(200, 1), real=False, logits=sure)
        >>> round(metric.compute()["inception_score"].item(), 2)
        4.69
    """

    names = {"inception_score": "higher", "inception_score_std": ""}
    needs_logits = True

    def __init__(
        self, num_features: int | None = None, num_splits: Positive = 10, seed: NonNegative = 2020
    ) -> None:
        super().__init__(num_features)
        self.num_splits, self.seed = num_splits, seed

    def score(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        if len(fake) < self.num_splits:
            return self._nothing(f"{self.num_splits} generated images are the least, got {len(fake)}")
        if not fake.shape[1]:
            return self._nothing("the extractor does not classify")
        # Shuffled, since images often come ordered by class: a split must not see one class only.
        order = torch.from_numpy(np.random.RandomState(self.seed).permutation(len(fake))).to(fake.device)
        log_probability = fake[order].double().log_softmax(dim=1)
        scores = []
        for split in range(self.num_splits):
            begin, end = (place * len(fake) // self.num_splits for place in (split, split + 1))
            part = log_probability[begin:end]
            # In logarithms: a probability that is 0 in float64 still counts 0 times a finite number.
            marginal = part.logsumexp(dim=0) - math.log(len(part))
            scores.append((part.exp() * (part - marginal)).sum(dim=1).mean().exp())
        return _summary("inception_score", scores)


def _summary(name: str, values: list[Tensor]) -> dict[str, Tensor]:
    found = torch.stack(values)
    std = found.std(unbiased=False) if len(found) > 1 else torch.full_like(found[0], float("nan"))
    return {name: found.mean(), f"{name}_std": std}
