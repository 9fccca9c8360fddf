"""How far a distribution of codes is from a prior: one value per image."""

from __future__ import annotations

import math

from torch import Tensor


def gaussian_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0, I)) in nats, summed over dimensions: [B, Z] twice -> [B].

    Source: Kingma & Welling 2014, arXiv:1312.6114, appendix B.
    """
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)


def gaussian_kl_by_dimension(mean: Tensor, log_var: Tensor) -> Tensor:
    """The terms of which `gaussian_kl` is the sum, in nats: [B, Z] twice -> [B, Z]."""
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var)


def free_bits(kl: Tensor, least: float) -> Tensor:
    """What a KL costs when the first nats of every dimension are free: [B, Z] in nats -> scalar, in nats.

    A dimension costs its mean over the minibatch, or `least` where that is more, and then has no gradient.
    It is one value per minibatch, since what is free is the mean.

    Source: Kingma et al. 2016, arXiv:1606.04934, eq. 15, with one dimension per group.
    """
    return kl.mean(0).clamp(min=least).sum()


def gaussian_log_ratio(code: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """log N(code; 0, I) - log N(code; mean, exp(log_var)): [..., B, Z] and [B, Z] twice -> [..., B], in nats.

    Its mean over codes from the second distribution is `-gaussian_kl`.
    """
    return 0.5 * ((code - mean).square() * (-log_var).exp() + log_var - code.square()).sum(-1)


def importance_bound(log_weights: Tensor) -> Tensor:
    """log of the mean of K weights p(x, z_k) / q(z_k | x), a lower bound of log p(x) in nats: [K, B] -> [B].

    Its expectation is the ELBO for K = 1 and grows with K.

    Source: Burda et al. 2016, arXiv:1509.00519, eq. 8.
    """
    return log_weights.logsumexp(0) - math.log(len(log_weights))
