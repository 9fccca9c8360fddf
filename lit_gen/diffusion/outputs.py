"""What a network says of x_t, and what that means: every output is a mixture p x_0 + q eps.

Since x_t = alpha x_0 + sigma eps is another one, any output gives both of them exactly, and an error in one
output is a known multiple of the error in any other.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lit_gen.diffusion.path import Path

Output = Literal["eps", "x0", "v", "F"]
"""The noise, the image, the velocity along the path, or what EDM's preconditioning leaves to the network
(Karras et al. 2022, arXiv:2206.00364, eq. 7; with alpha other than 1, of x_t / alpha)."""


class Mixture(NamedTuple):
    """Coefficients of x_0 and eps."""

    image: Tensor
    noise: Tensor


class Parts(NamedTuple):
    """What x_t is taken to be made of."""

    image: Tensor  # x_0
    noise: Tensor  # eps


def mixture(output: Output, path: Path, t: Tensor) -> Mixture:
    """What an output is made of at these times."""
    alpha, sigma = path.levels(t)
    if output == "v":
        return Mixture(*path.rates(t))
    if output == "F":
        spread = _spread(path, alpha, sigma)
        return Mixture(sigma / (spread * path.sigma_data), -alpha * path.sigma_data / spread)
    one, zero = torch.ones_like(alpha), torch.zeros_like(alpha)
    return Mixture(one, zero) if output == "x0" else Mixture(zero, one)


def target(output: Output, path: Path, t: Tensor, image: Tensor, noise: Tensor) -> Tensor:
    """What the network should say: [B, ...], of times [B]."""
    made = mixture(output, path, t)
    return _wide(made.image, image) * image + _wide(made.noise, image) * noise


def parts(said: Tensor, output: Output, path: Path, t: Tensor, x: Tensor) -> Parts:
    """Image and noise behind an output [B, ...] at x_t [B, ...] of times [B].

    Where nothing of the image is left in x_t, an output `eps` says nothing about it: infinite or NaN.
    """
    (alpha, sigma), made = path.levels(t), mixture(output, path, t)
    determinant = alpha * made.noise - sigma * made.image
    a, s, p, q, d = (_wide(value, x) for value in (alpha, sigma, *made, determinant))
    if output == "x0":
        return Parts(said, (x - a * said) / s)
    if output == "eps":
        return Parts((x - s * said) / a, said)
    return Parts((q * x - s * said) / d, (a * said - p * x) / d)


def error_ratio(space: Output, output: Output, path: Path, t: Tensor) -> Tensor:
    """How many times larger an error of `output` is in another space: [B]."""
    alpha, sigma = path.levels(t)
    there, here = (
        alpha * made.noise - sigma * made.image
        for made in (mixture(space, path, t), mixture(output, path, t))
    )
    return (there / here).abs()


def scaled_input(x: Tensor, output: Output, path: Path, t: Tensor) -> Tensor:
    """x_t as the network gets it: with unit variance where EDM's output is asked for or the path grows."""
    if output != "F" and not path.grows:
        return x
    return x / _wide(_spread(path, *path.levels(t)), x)


def noised(path: Path, t: Tensor, image: Tensor, noise: Tensor) -> Tensor:
    """x_t at times [B]."""
    alpha, sigma = path.levels(t)
    return _wide(alpha, image) * image + _wide(sigma, image) * noise


def _spread(path: Path, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Standard deviation of x_t."""
    return (sigma.square() + (alpha * path.sigma_data).square()).sqrt()


def _wide(value: Tensor, like: Tensor) -> Tensor:
    """[B] -> [B, 1, ...], on the device and in the precision of `like`."""
    return value.to(like).view(-1, *[1] * (like.ndim - 1))
