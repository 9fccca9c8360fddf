"""Binary codes that are functions of an image's place in the stream, so that none need be kept.

Source: Deja et al. 2020, "BinPlay: A Binary Latent Autoencoder for Generative Replay Continual Learning",
arXiv:2011.14960, and the authors' code.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from lit_gen.core.types import InputError, NonNegative, Positive

_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101)
_ROUNDS = 4  # of a Feistel network with functions that look random: three are enough for distinct places
_WORD = 32  # bits that a place is turned into; the others of a code are hashed from these
_MIX = (0x45D9F3B, 0x119DE1F3)  # odd numbers below 2^31, so that products of 32 bits fit into 63


class PlaceCodes(Protocol):
    """Codes of places 0, 1, 2, ... in the stream."""

    num_bits: int
    num_places: int
    """That have codes of their own; further ones have those of others, or none."""

    def __call__(self, place: Tensor) -> Tensor:
        """int64 [N] -> float32 [N, num_bits] of -1 and +1."""


class LegacyCodes(nn.Module):
    """The authors' codes, as their code computes them: part k of L/K bits is the low bits of
    floor(i m_k / K), with m_k the largest power of the k-th odd prime below 2^(L/K). They come again after
    K 2^(L/K) places, which is 6,400 with 200 bits.

        >>> LegacyCodes(200).num_places
        6400
    """

    def __init__(self, num_bits: Positive = 200) -> None:
        super().__init__()
        parts = len(_PRIMES)
        if num_bits % parts:
            raise ValueError(f"num_bits={num_bits}: legacy codes have {parts} parts; take a multiple of it")
        self.num_bits, self.width = num_bits, num_bits // parts
        powers = [prime ** int(self.width * math.log(2) / math.log(prime)) for prime in _PRIMES]
        self.register_buffer("multipliers", torch.tensor(powers), persistent=False)
        self.num_places = parts * 2**self.width

    def forward(self, place: Tensor) -> Tensor:
        number = place[:, None] * self.multipliers // len(_PRIMES)
        return signs(number, self.width).flatten(1)


class UniqueCodes(nn.Module):
    """Codes that look random and are all different: a keyed bijection of the place, and hashes of the result.

    Args:
        seed: the key.
    """

    def __init__(self, num_bits: Positive = 200, seed: NonNegative = 0) -> None:
        super().__init__()
        self.num_bits, self.seed = num_bits, seed
        self.half = min(num_bits, _WORD) // 2
        self.num_places = 4**self.half

    def forward(self, place: Tensor) -> Tensor:
        if len(place) and not 0 <= int(place.min()) <= int(place.max()) < self.num_places:
            raise InputError(
                f"place {int(place.max())}: unique codes of {self.num_bits} bits are there for "
                f"{self.num_places:,} places; take more bits (model.codes.num_bits=)"
            )
        word = self.scattered(place)
        hashes = [_hash(word, self.seed, number) for number in range(-(-self.num_bits // _WORD) - 1)]
        bits = [signs(word, 2 * self.half), *(signs(each, _WORD) for each in hashes)]
        # An odd number of bits below 32 has one more.
        rest = self.num_bits - sum(part.shape[1] for part in bits)
        bits += [signs(_hash(word, self.seed, len(hashes)), _WORD)[:, :rest]] if rest > 0 else []
        return torch.cat(bits, 1)[:, : self.num_bits]

    def scattered(self, place: Tensor) -> Tensor:
        """A bijection of the places, as a Feistel network of two halves."""
        mask = 2**self.half - 1
        left, right = place >> self.half, place & mask
        for number in range(_ROUNDS):
            left, right = right, left ^ (_hash(right, self.seed, -1 - number) & mask)
        return left << self.half | right

    def gathered(self, word: Tensor) -> Tensor:
        """The places again: the inverse of `scattered`."""
        mask = 2**self.half - 1
        left, right = word >> self.half, word & mask
        for number in reversed(range(_ROUNDS)):
            left, right = right ^ (_hash(left, self.seed, -1 - number) & mask), left
        return left << self.half | right


def smallest_distance(code: Tensor) -> int:
    """The smallest number of bits in which two of the codes [N, L] of -1 and +1 differ."""
    least = code.shape[1]
    for first in range(0, len(code), 1000):
        product = code[first : first + 1000] @ code.T
        rows = torch.arange(len(product), device=code.device)
        product[rows, first + rows] = -code.shape[1]
        least = min(least, (code.shape[1] - int(product.max())) // 2)
    return least


def _hash(word: Tensor, seed: int, number: int) -> Tensor:
    """Words of 32 bits from words, by multiplying and shifting, other ones for every seed and number."""
    word = (word ^ ((seed * 0x9E3779B1 + (number + 8) * 0x85EBCA6B) & 0xFFFFFFFF)) & 0xFFFFFFFF
    for factor in _MIX:
        word = ((word ^ (word >> 16)) * factor) & 0xFFFFFFFF
    return word ^ (word >> 16)


def signs(number: Tensor, width: int) -> Tensor:
    """The lowest bits, the most significant first: int64 [...] -> float32 [..., width] of -1 and +1."""
    shifts = torch.arange(width - 1, -1, -1, device=number.device)
    return ((number[..., None] >> shifts) & 1).float() * 2 - 1
