"""The variational bound of a chain, term by term, in nats per image.

Source: Ho et al. 2020, arXiv:2006.11239, eq. 5; Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 4 to 7.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lit_gen.diffusion.path import Table

Variance = Literal["large", "small", "learned"]
"""Of a step back: beta, the posterior's, or the network's between them."""


def bits_per_dimension(nats: Tensor, num_dimensions: int) -> Tensor:
    """Nats of an image in bits for each of its numbers."""
    return nats / (num_dimensions * math.log(2))


def log_variance(path: Table, t: Tensor, said: Tensor | None, variance: Variance) -> Tensor:
    """Of p(x_(t-1) | x_t), at times [B]: [B, 1, 1, 1], or [B, C, S, S] of a learned one.

    Args:
        said: of a learned one, between the smallest (0) and the largest (1), [B, C, S, S].
    """
    small, large = (_at(values, t) for values in _log_variances(path))
    if variance == "learned":
        return small + said * (_at(_log_betas(path), t) - small)
    return large if variance == "large" else small


def step_term(path: Table, t: Tensor, x0: Tensor, x: Tensor, image: Tensor, log_var: Tensor) -> Tensor:
    """Terms of the bound at times [B] >= 1: KL(q(x_(t-1) | x_t, x_0) || p), or -log p(x_0 | x_1) where t = 1.

    Args:
        x0, x: the image and x_t, [B, C, S, S].
        image: what the model takes x_0 for.
        log_var: `log_variance`.
    """
    of_image, of_x, true_log_var = (_at(values, t) for values in _posteriors(path))
    mean = of_image * image + of_x * x
    true_mean = of_image * x0 + of_x * x
    gap = (true_mean - mean).square()
    kl = 0.5 * (log_var - true_log_var + (true_log_var - log_var).exp() - 1 + gap * (-log_var).exp())
    first = -discretised_gaussian(x0, mean, 0.5 * log_var)
    is_first = (t == 1).view(-1, 1, 1, 1)
    return torch.where(is_first, first, kl).flatten(1).sum(1)


def prior_term(path: Table, x0: Tensor) -> Tensor:
    """KL(q(x_T | x_0) || N(0, I)), [B]."""
    alpha, sigma = float(path.exact["alpha"][-1]), float(path.exact["sigma"][-1])
    kl = 0.5 * ((alpha * x0).square() + sigma**2 - 1 - 2 * math.log(sigma))
    return kl.flatten(1).sum(1)


def discretised_gaussian(x0: Tensor, mean: Tensor, log_spread: Tensor) -> Tensor:
    """Log probability that N(mean, exp(log_spread)^2) falls on the level of x0, of 256 from -1 to 1, whose
    first and last ones reach to infinity; elementwise, nats.
    """
    half, spread = 1 / 255, log_spread.exp()
    # In the lower tail, where differences of probabilities keep their digits.
    flip = torch.where(x0 > mean, -1.0, 1.0)
    centre = flip * (x0 - mean)
    high, low = (centre + half) / spread, (centre - half) / spread
    at_top, at_bottom = flip * x0 > 1 - half, flip * x0 < half - 1
    log_high = torch.where(at_top, 0.0, torch.special.log_ndtr(high))
    log_low = torch.special.log_ndtr(low)
    gap = torch.where(at_bottom, -1.0, log_low - log_high).clamp(max=-1e-7)  # log 0 has no gradient
    inside = log_high + torch.log(-torch.expm1(gap))
    return torch.where(at_bottom, log_high, inside)


def _posteriors(path: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients of x_0 and x_t in the posterior's mean, and its log variance, at 0 to T; that of step 1,
    whose variance is 0, is step 2's, as published.
    """
    beta, kept = path.exact["beta"], path.exact["kept"]
    before = np.concatenate([[1.0], kept[:-1]])
    lost = np.maximum(1 - kept, np.finfo(float).tiny)
    variance = beta * (1 - before) / lost
    variance[:2] = variance[2] if len(variance) > 2 else beta[1]
    return np.sqrt(before) * beta / lost, np.sqrt(1 - beta) * (1 - before) / lost, np.log(variance)


def _log_betas(path: Table) -> np.ndarray:
    beta = path.exact["beta"].copy()
    beta[0] = beta[1]
    return np.log(beta)


def _log_variances(path: Table) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest, at 0 to T; the largest of step 1 is the smallest too, as published."""
    small, large = _posteriors(path)[2], _log_betas(path)
    large[:2] = small[:2]
    return small, large


def _at(values: np.ndarray, t: Tensor) -> Tensor:
    return torch.from_numpy(values).to(t.device, torch.float32)[t.long()].view(-1, 1, 1, 1)
