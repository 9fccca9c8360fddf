"""Convolutional generators and critics for images of 28, 32 and 64 pixels.

Sources: Radford et al. 2016, arXiv:1511.06434 (strided convolutions, batch norm, tanh, first weights); layer
sizes and layer norm in the critic as in Deja et al. 2023, "Adapt & Align", arXiv:2312.13699, and the authors'
code. Transposed convolutions have no bias, as in both sources.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from lit_gen.core.types import InputError, NonNegative, Positive
from lit_gen.nets.layers import PLANS, Layer, Plan, mlp, with_condition

_GENERATORS = {
    28: PLANS[28],
    32: Plan((2, 2), (*(Layer(width, 4, 2, 1) for width in (8, 4, 2, 1)), Layer(0, 5, 1, 2))),
    64: PLANS[64],
}
_CRITICS = {
    28: tuple(Layer(1, 4, 2, 1) for _ in range(3)),
    32: (*(Layer(width, 4, 2, 1) for width in (1, 2, 4, 8)), Layer(8, 3, 1, 1)),
    64: tuple(Layer(width, 5, 2, 1) for width in (1, 2, 4, 4)),
}
SIZES = tuple(_GENERATORS)


class ConvGenerator(nn.Module):
    """Noise [B, in_size] and condition [B, K] -> image [B, C, S, S] in [-1, 1].

    Args:
        size: 28, 32 or 64.
        width: channels before the image; published are 32, 128 and 50 for the three sizes.
        condition_size: K; 0 takes no condition.
        activate_start: ReLU after the first batch norm: DCGAN has it, Multiband GAN has not.
        initial_std: see `_draw_weights`; None: torch's first weights.
    """

    def __init__(
        self,
        channels: Positive,
        size: Positive,
        in_size: Positive,
        width: Positive = 32,
        condition_size: NonNegative = 0,
        activate_start: bool = True,
        initial_std: Annotated[float, Gt(0)] | None = None,
    ) -> None:
        super().__init__()
        (multiple, side), plan = _plan(_GENERATORS, size, "ConvGenerator")
        now = multiple * width
        self.condition_size = condition_size
        self.start = (now, side, side)
        self.stem = nn.Linear(in_size + condition_size, now * side * side)
        layers: list[nn.Module] = [nn.BatchNorm2d(now), *([nn.ReLU()] if activate_start else [])]
        for layer in plan:
            wide = layer.width * width or channels
            layers.append(nn.ConvTranspose2d(now, wide, *layer[1:], bias=False))
            if layer.width:
                layers += [nn.BatchNorm2d(wide), nn.ReLU()]
            now = wide
        self.layers = nn.Sequential(*layers)
        if initial_std is not None:
            _draw_weights(self, initial_std)

    def forward(self, noise: Tensor, condition: Tensor | None = None) -> Tensor:
        features = self.stem(with_condition(noise, condition, self.condition_size))
        return torch.tanh(self.layers(features.unflatten(1, self.start)))


class ConvCritic(nn.Module):
    """Image [B, C, S, S] and condition [B, K] -> score [B, 1].

    A condition becomes a map of its own, one more channel of the image.

    Args:
        size: 28, 32 or 64.
        width: channels after the first layer; published are 32, 128 and 50 for the three sizes.
        norm: "layer" treats every image alone, as a gradient penalty needs it; "batch" leaves the first layer
            out, as DCGAN does.
        spectral: every layer's largest singular value is 1. Source: Miyato et al. 2018, arXiv:1802.05957.
        condition_size: K; 0 takes no condition.
        map_hidden: width of the layer between the condition and its map; Multiband GAN's is 400, behind an
            embedding of K numbers of each class. 0: the map is linear.
        initial_std: see `_draw_weights`; None: torch's first weights. Not with `spectral`.
    """

    def __init__(
        self,
        channels: Positive,
        size: Positive,
        width: Positive = 32,
        norm: Literal["none", "batch", "layer"] = "layer",
        spectral: bool = False,
        condition_size: NonNegative = 0,
        map_hidden: NonNegative = 0,
        initial_std: Annotated[float, Gt(0)] | None = None,
    ) -> None:
        super().__init__()
        if spectral and initial_std is not None:
            raise InputError(
                f"ConvCritic: initial_std={initial_std} has no effect with spectral=true, which "
                "divides weights by their norm. Set initial_std to null"
            )
        bounded = spectral_norm if spectral else lambda layer: layer
        self.condition_size = condition_size
        self.label_map = _label_map(condition_size, map_hidden, size * size) if condition_size else None
        now, side = channels + (condition_size > 0), size
        layers: list[nn.Module] = []
        for number, layer in enumerate(_plan(_CRITICS, size, "ConvCritic")):
            wide = layer.width * width
            side = (side + 2 * layer.padding - layer.kernel) // layer.stride + 1
            has_norm = norm == "layer" or (norm == "batch" and number > 0)
            conv = nn.Conv2d(now, wide, layer.kernel, layer.stride, layer.padding, bias=not has_norm)
            layers.append(bounded(conv))
            if has_norm:
                layers.append(nn.LayerNorm([wide, side, side]) if norm == "layer" else nn.BatchNorm2d(wide))
            layers.append(nn.LeakyReLU(0.2))
            now = wide
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.head = bounded(nn.Linear(now * side * side, 1))
        if initial_std is not None:
            _draw_weights(self, initial_std)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Tensor:
        if (condition is None) != (self.label_map is None):
            with_condition(image.flatten(1), condition, self.condition_size)  # says what is wrong
        if condition is not None:
            label_map = self.label_map(condition).view(-1, 1, *image.shape[2:])
            image = torch.cat([image, label_map], 1)
        return self.head(self.layers(image))


def _label_map(num_classes: int, hidden: int, pixels: int) -> nn.Module:
    """One-hot classes [B, K] -> [B, pixels]."""
    if not hidden:
        return nn.Linear(num_classes, pixels, bias=False)
    embedding = nn.Linear(num_classes, num_classes, bias=False)
    nn.init.normal_(embedding.weight)  # as those of nn.Embedding, which takes no one-hot rows
    return nn.Sequential(embedding, *mlp([num_classes, hidden, pixels], slope=0.2))


def _draw_weights(net: nn.Module, std: float) -> None:
    """DCGAN's first weights: N(0, std) of every layer and N(1, std) of batch norms, biases 0 (0.02)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.BatchNorm2d):
            nn.init.normal_(module.weight, float(isinstance(module, nn.BatchNorm2d)), std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _plan(plans: dict[int, Any], size: int, name: str) -> Any:
    if size not in plans:
        raise InputError(
            f"{name}: size={size}; there are layers for images of {', '.join(map(str, plans))} pixels. Set "
            "data.spec.size to one of them, or use dense nets (net=gan_dense)"
        )
    return plans[size]
