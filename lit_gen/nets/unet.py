"""U-Net with residual blocks, self-attention and a time: the network of diffusion models.

Sources: Ho et al. 2020, arXiv:2006.11239; Dhariwal & Nichol 2021, arXiv:2105.05233 (the blocks, scale and
shift by the time); as Deja et al. 2022 use it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Gt, Le, MaxLen, MinLen
from torch import Tensor, nn

from lit_gen.core.types import Fraction, InputError, NonNegative, Positive

_LONGEST = 10_000.0  # wavelength of the time embedding, over 2 pi


class Features(NamedTuple):
    """What the first half of a U-Net makes of an image.

    Attributes:
        skips: output of every block of the way down, the first convolution's first: [B, C_i, S_i, S_i].
        middle: [B, C, S', S'].
        told: embedding of time and condition, [B, 4 * width].
    """

    skips: tuple[Tensor, ...]
    middle: Tensor
    told: Tensor

    def pooled(self) -> dict[str, Tensor]:
        """Mean over the pixels of every block's output by name, "in.0", ..., "middle": [B, C_i] each."""
        blocks = {f"in.{number}": skip for number, skip in enumerate(self.skips)} | {"middle": self.middle}
        return {name: block.mean(dim=(2, 3)) for name, block in blocks.items()}

    def together(self) -> Tensor:
        """All of `pooled`: [B, F]."""
        return torch.cat(list(self.pooled().values()), 1)


class UNet(nn.Module):
    """x_t [B, C, S, S], time [B] and condition [B, K] or None -> [B, out_channels, S, S].

    Args:
        channels, size: of images.
        width: channels of the first level.
        multipliers: of `width`, for each level; every level but the first has half the side of the one
            before.
        num_blocks: residual blocks of a level on the way down; there is one more on the way up.
        attention: sides, in pixels of the image over those of the level (1, 2, 4, ...), of levels whose
            blocks attend to themselves; the middle always does.
        num_heads: of the attention.
        dropout: in residual blocks.
        condition_size: K, or 0.
        out_channels: None is that of images.
        patch: pixels of the image along each side of one of the first level's: a patch is as many channels.
        channels_last: the memory order of images and weights.

    Attributes:
        num_features: F, channels of all blocks that `features` gives.
    """

    def __init__(
        self,
        channels: Positive,
        size: Positive,
        width: Positive = 64,
        multipliers: Annotated[Sequence[Positive], MinLen(1), MaxLen(12)] = (1, 2, 2),
        num_blocks: Annotated[int, Gt(0), Le(100)] = 3,
        attention: Sequence[Positive] = (1,),
        num_heads: Positive = 4,
        dropout: Fraction = 0.0,
        condition_size: NonNegative = 0,
        out_channels: Positive | None = None,
        patch: Annotated[int, Gt(0), Le(64)] = 1,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        halvings, least = len(multipliers) - 1, patch * 2 ** (len(multipliers) - 1)
        if size % least:
            raise InputError(
                f"UNet: size={size} with patch={patch} and multipliers={list(multipliers)}: the image is "
                f"halved {halvings} time(s), so its side must be a multiple of {least}. Take fewer "
                f"multipliers, or images of {size // least * least or least} pixels (data.spec.size)"
            )
        for level, factor in enumerate(multipliers):
            if width * factor % num_heads:
                raise InputError(
                    f"UNet: num_heads={num_heads} do not divide the {width * factor} channels of level "
                    f"{level} (width={width} times multipliers={list(multipliers)})"
                )
        self.width, self.condition_size, self.channels_last = width, condition_size, channels_last
        self.patch = patch
        self.time = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
        self.condition = nn.Linear(condition_size, 4 * width, bias=False) if condition_size else None

        def block(narrow: int, wide: int, shrinking: int) -> _Stage:
            attends = num_heads if shrinking in attention else 0
            return _Stage(ResidualBlock(narrow, wide, 4 * width, dropout), attends)

        now = width * multipliers[0]
        self.down = nn.ModuleList([nn.Conv2d(channels * patch**2, now, 3, padding=1)])
        skips = [now]
        for level, factor in enumerate(multipliers):
            for _ in range(num_blocks):
                self.down.append(block(now, width * factor, 2**level))
                now = width * factor
                skips.append(now)
            if level < halvings:
                self.down.append(nn.Conv2d(now, now, 3, stride=2, padding=1))
                skips.append(now)
        self.num_features = sum(skips) + now
        self.middle = nn.ModuleList(
            [
                _Stage(ResidualBlock(now, now, 4 * width, dropout), num_heads),
                _Stage(ResidualBlock(now, now, 4 * width, dropout), 0),
            ]
        )
        self.up = nn.ModuleList()
        for level in range(halvings, -1, -1):
            for number in range(num_blocks + 1):
                self.up.append(block(now + skips.pop(), width * multipliers[level], 2**level))
                now = width * multipliers[level]
                if level and number == num_blocks:
                    self.up.append(_Grow(now))
        last = nn.Conv2d(now, (out_channels or channels) * patch**2, 3, padding=1)
        self.out = nn.Sequential(_norm(now), nn.SiLU(), _silent(last))
        if channels_last:
            self.to(memory_format=torch.channels_last)

    @property
    def first_half(self) -> tuple[nn.Module, ...]:
        """What `features` goes through."""
        told = () if self.condition is None else (self.condition,)
        return (self.time, *told, self.down, self.middle)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.rest(self.features(x, time, condition))

    def features(self, x: Tensor, time: Tensor, condition: Tensor | None = None) -> Features:
        """The way down and the middle.

        Args:
            time: [B], of the order of 0 to 1000.
            condition: [B, K]; zeros are no condition.
        """
        if (condition is None) != (self.condition is None):
            came = "none" if condition is None else f"one of size {condition.shape[1]}"
            raise ValueError(f"UNet: takes a condition of size {self.condition_size} (0 = none), got {came}")
        told = self.time(embedded(time, self.width).to(x.dtype))
        if condition is not None:
            told = told + self.condition(condition.to(x.dtype))
        x = F.pixel_unshuffle(x, self.patch) if self.patch > 1 else x
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        skips = []
        for part in self.down:
            x = part(x, told) if isinstance(part, _Stage) else part(x)
            skips.append(x)
        for part in self.middle:
            x = part(x, told)
        return Features(tuple(skips), x, told)

    def rest(self, features: Features) -> Tensor:
        """The way up, of what `features` gave."""
        skips, x = list(features.skips), features.middle
        for part in self.up:
            x = part(x) if isinstance(part, _Grow) else part(torch.cat([x, skips.pop()], 1), features.told)
        return F.pixel_shuffle(self.out(x), self.patch) if self.patch > 1 else self.out(x)


def embedded(time: Tensor, size: int) -> Tensor:
    """Cosines and sines of times [B] at `size` / 2 wavelengths from 2 pi to 2 pi 10^4: float32 [B, size].

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    """
    half = size // 2
    frequency = torch.exp(-math.log(_LONGEST) / half * torch.arange(half, device=time.device))
    angle = time.float()[:, None] * frequency
    waves = torch.cat([angle.cos(), angle.sin()], 1)
    return F.pad(waves, (0, size % 2))


class ResidualBlock(nn.Module):
    """Two convolutions around a bypass; what is told scales and shifts what comes between them."""

    def __init__(self, narrow: int, wide: int, told_size: int, dropout: float) -> None:
        super().__init__()
        self.before = nn.Sequential(_norm(narrow), nn.SiLU(), nn.Conv2d(narrow, wide, 3, padding=1))
        self.told = nn.Sequential(nn.SiLU(), nn.Linear(told_size, 2 * wide))
        self.norm = _norm(wide)
        self.after = nn.Sequential(
            nn.SiLU(), nn.Dropout(dropout), _silent(nn.Conv2d(wide, wide, 3, padding=1))
        )
        self.bypass = nn.Identity() if narrow == wide else nn.Conv2d(narrow, wide, 1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.told(told)[:, :, None, None].chunk(2, dim=1)
        inner = self.norm(self.before(x)) * (1 + scale) + shift
        return self.bypass(x) + self.after(inner)


class Attention(nn.Module):
    """Every pixel looks at all others: [B, C, S, S] -> the same."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = _norm(width)
        self.query_key_value = nn.Conv2d(width, 3 * width, 1)
        self.out = _silent(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        count, width, height, side = x.shape
        three = self.query_key_value(self.norm(x)).reshape(count, 3, self.num_heads, -1, height * side)
        query, key, value = three.transpose(-1, -2).contiguous().unbind(1)  # [B, heads, S * S, C / heads]
        seen = F.scaled_dot_product_attention(query, key, value)
        return x + self.out(seen.transpose(-1, -2).reshape(count, width, height, side))


class _Stage(nn.Module):
    """A residual block, and attention behind it if it has heads."""

    def __init__(self, block: ResidualBlock, num_heads: int) -> None:
        super().__init__()
        self.block = block
        width = block.norm.num_channels
        self.attention = Attention(width, num_heads) if num_heads else nn.Identity()

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        return self.attention(self.block(x, told))


class _Grow(nn.Module):
    """Twice the side: every pixel four times, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _norm(width: int) -> nn.GroupNorm:
    """In 32 groups, or as many as go into the channels."""
    return nn.GroupNorm(math.gcd(32, width), width)


def _silent(layer: nn.Conv2d) -> nn.Conv2d:
    """With weights of 0, so that a block begins as its bypass."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
