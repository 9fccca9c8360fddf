"""How likely pixels are given the decoder's image: nats per image, called like reconstruction errors.

They are modules since their scale may be learned; each is the negative logarithm of a probability, or of a
density, whose constants are all there.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor, nn

from lit_gen.core.types import InputError
from lit_gen.losses.reconstruction import bernoulli_nll, squared_error

_LEVELS = 256
_HALF_BIN = 1 / (_LEVELS - 1)  # half the distance of two levels in [-1, 1]
_LEAST_CHANCE = 1e-6


class PixelLikelihood(nn.Module):
    """The pixels are independent given the decoder's image, which is their mean."""

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """-log p(target | image) in nats, summed over pixels: [B, C, S, S] in [-1, 1] twice -> [B]."""
        raise NotImplementedError

    def draw(self, image: Tensor) -> Tensor:
        """One image for each decoded one, [B, C, S, S] in [-1, 1], from the global generator."""
        raise NotImplementedError

    def refuse(self, target: Tensor) -> None:
        """Raises InputError for images that this likelihood gives no probability or density."""


class Bernoulli(PixelLikelihood):
    """Black or white, -1 or 1; the decoded (x + 1) / 2 is the probability of white.

    No probability is below 5e-7, which costs a pixel at most 5e-7 nats: a stray white pixel where training
    showed none costs 14.5 nats instead of infinitely many.
    """

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        return bernoulli_nll(image * (1 - _LEAST_CHANCE), target)

    def draw(self, image: Tensor) -> Tensor:
        return (torch.rand_like(image) < (image + 1) / 2).to(image.dtype) * 2 - 1

    def refuse(self, target: Tensor) -> None:
        if not bool((target.abs() == 1).all()):
            raise InputError(
                "model.reconstruction=Bernoulli: grey images have no Bernoulli likelihood. Use "
                "data.binarize=threshold or dynamic, or model.reconstruction=Gaussian or DiscretisedLogistic"
            )


class Gaussian(PixelLikelihood):
    """A normal distribution with one scale for all pixels; a density over the range [-1, 1] of pixels.

    Learning the scale balances reconstruction and KL by itself. Source: Rybkin et al. 2021, arXiv:2006.13202.

    Args:
        scale: standard deviation (where it begins, if it is learned). sqrt(1/2) makes it `squared_error` but
            for a constant.
        is_learned: a parameter, otherwise fixed.
    """

    def __init__(self, scale: Annotated[float, Gt(0)] = 0.5**0.5, is_learned: bool = False) -> None:
        super().__init__()
        self.scale = Scale(scale, is_learned)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        log_scale = self.scale()
        constant = target[0].numel() * (log_scale + 0.5 * math.log(2 * math.pi))
        return 0.5 * squared_error(image, target) * (-2 * log_scale).exp() + constant

    def draw(self, image: Tensor) -> Tensor:
        return (image + torch.randn_like(image) * self.scale().exp()).clamp(-1, 1)


class DiscretisedLogistic(PixelLikelihood):
    """One of 256 levels; a level's probability is what a logistic distribution has around it.

    The lowest and the highest level also get the tails. Source: Kingma et al. 2016, arXiv:1606.04934, and
    Salimans et al. 2017, arXiv:1701.05517, eq. 2 with one component.

    Args:
        scale: of the logistic distribution, in the range [-1, 1] of pixels; two levels are 2 / 255 apart.
        is_learned: a parameter that begins at `scale`, otherwise fixed.
    """

    def __init__(self, scale: Annotated[float, Gt(0)] = 0.1, is_learned: bool = True) -> None:
        super().__init__()
        self.scale = Scale(scale, is_learned)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        precision = (-self.scale()).exp()
        # With a and b the ends of the bin: sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)),
        # whose logarithm needs no difference of nearly equal numbers.
        above = F.logsigmoid((target + _HALF_BIN - image) * precision)
        below = F.logsigmoid(-(target - _HALF_BIN - image) * precision)
        inside = torch.log(-torch.expm1(-2 * _HALF_BIN * precision))
        is_lowest, is_highest = target < -1 + _HALF_BIN, target > 1 - _HALF_BIN
        log_chance = torch.where(is_highest, 0, above) + torch.where(is_lowest, 0, below)
        log_chance = log_chance + torch.where(is_lowest | is_highest, 0, inside)
        return -log_chance.flatten(1).sum(1)

    def draw(self, image: Tensor) -> Tensor:
        chance = torch.rand_like(image).clamp(1e-6, 1 - 1e-6)
        drawn = (image + torch.logit(chance) * self.scale().exp()).clamp(-1, 1)
        return ((drawn + 1) / (2 * _HALF_BIN)).round() * (2 * _HALF_BIN) - 1

    def refuse(self, target: Tensor) -> None:
        levels = (target + 1) / (2 * _HALF_BIN)
        if not bool(((levels - levels.round()).abs() < 1e-2).all()):
            raise InputError(
                "model.reconstruction=DiscretisedLogistic: it gives probabilities to 256 levels, and these "
                "images have others. Use model.reconstruction=Gaussian"
            )


class Scale(nn.Module):
    """The logarithm of one positive number, learned or fixed."""

    def __init__(self, scale: float, is_learned: bool) -> None:
        super().__init__()
        log_scale = torch.tensor(math.log(scale))
        if is_learned:
            self.log_scale = nn.Parameter(log_scale)
        else:
            # The config keeps it; a checkpoint need not.
            self.register_buffer("log_scale", log_scale, persistent=False)

    def forward(self) -> Tensor:
        return self.log_scale
