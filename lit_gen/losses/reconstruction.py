"""How far an image is from its reconstruction: one value per image, summed over its pixels."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def squared_error(image: Tensor, target: Tensor) -> Tensor:
    """Sum of squared differences: [B, C, S, S] twice -> [B]. Unit: (pixel range 2)^2, summed over pixels.

    With weight 1 beside a KL term it is, up to a constant, the negative log-likelihood in nats of a Gaussian
    whose variance is 1/2 in the range [-1, 1].
    """
    return (image - target).square().flatten(1).sum(1)


def absolute_error(image: Tensor, target: Tensor) -> Tensor:
    """Sum of absolute differences: [B, C, S, S] twice -> [B]. Unit: pixel range 2, summed over pixels."""
    return (image - target).abs().flatten(1).sum(1)


def unit_squared_error(image: Tensor, target: Tensor) -> Tensor:
    """Sum of squared differences in the range [0, 1], a quarter of `squared_error`: [B].

    For settings published with images in [0, 1], whose weights it keeps.
    """
    return squared_error(image, target) / 4


def bernoulli_nll(image: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy in nats, summed over pixels: [B, C, S, S] in [-1, 1] twice -> [B].

    Both are read as probabilities (x + 1) / 2. On grey levels it is not a likelihood, but the usual choice
    for digits. Logarithms are kept above -100, as torch does.
    """
    return _BernoulliNLL.apply(image.clamp(-1, 1), target).flatten(1).sum(1)


class _BernoulliNLL(torch.autograd.Function):
    """Per pixel. torch's own function is not vectorised on CPUs and takes four times as long there."""

    generate_vmap_rule = True

    @staticmethod
    def forward(image: Tensor, target: Tensor) -> Tensor:
        log_white, log_black = _log_chances(image)
        return (log_white + log_black).addcmul_(target, log_white.sub_(log_black)).mul_(-0.5)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        image, target = ctx.saved_tensors
        # As torch, which divides by p (1 - p), a quarter of this, of at least 1e-12.
        to_image = gradient * (image - target) / (1 - image * image).clamp(min=4e-12)
        if not ctx.needs_input_grad[1]:
            return to_image, None
        log_white, log_black = _log_chances(image)
        return to_image, gradient * (log_black - log_white) * 0.5


def _log_chances(image: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of (1 + x) / 2 and (1 - x) / 2, above -100."""
    return tuple(torch.log1p(x).sub_(math.log(2)).clamp_(min=-100.0) for x in (image, -image))
