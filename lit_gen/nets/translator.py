"""The translator places the codes of every task in one latent space; with a decoder behind it, it is a band.

Source: Deja et al. 2022, "Multiband VAE", arXiv:2106.12196, section 3.2; layer sizes of the authors' code.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Gt, Le
from torch import Tensor, nn

from lit_gen.core.types import NonNegative, Positive
from lit_gen.nets.layers import mlp


def task_codes(num_tasks: int, code_size: int, code_step: int) -> Tensor:
    """A binary code for every task: float32 [num_tasks, code_size] in {-1, +1}, no row twice.

    Task j gets the binary digits of j * code_step + 1, modulo 2 ** code_size, the highest first.

    Raises:
        ValueError: the codes do not suffice for so many tasks, or two tasks would share one.
    """
    if 2**code_size < num_tasks:
        raise ValueError(
            f"code_size={code_size} cannot number {num_tasks} tasks (num_tasks); it needs at least "
            f"{max(1, math.ceil(math.log2(num_tasks)))} bits. Raise model.band.translator.code_size"
        )
    number = (torch.arange(num_tasks) * code_step + 1) % 2**code_size
    if len(number.unique()) < num_tasks:
        raise ValueError(
            f"code_step={code_step} gives two of {num_tasks} tasks the same code of {code_size} bits; any "
            "odd number gives 2 ** code_size different ones. Set model.band.translator.code_step."
        )
    digits = number[:, None] >> torch.arange(code_size - 1, -1, -1)
    return (digits & 1).float() * 2 - 1


class Translator(nn.Module):
    """Code [B, latent_size + num_bits] and task [B] -> [B, out_size].

    Args:
        latent_size: continuous part of the code, which comes first; the bits, -1 and +1, follow.
        code_size: bits of a task's number.
        code_step: distance of the numbers of neighbouring tasks, odd.
    """

    def __init__(
        self,
        latent_size: Positive,
        num_bits: NonNegative,
        num_tasks: Positive,
        out_size: Positive,
        code_size: Annotated[int, Gt(0), Le(62)] = 4,
        code_step: Positive = 9,
    ) -> None:
        super().__init__()
        self.latent_size, self.num_bits, self.out_size = latent_size, num_bits, out_size
        # Not persistent: a function of the arguments.
        self.register_buffer("codes", task_codes(num_tasks, code_size, code_step), persistent=False)
        self.task_layers = _two_layers(code_size, 3 * code_size, 2 * code_size)
        self.bit_layers = _two_layers(num_bits, 2 * num_bits, 3 * num_bits) if num_bits else None
        self.out = mlp([latent_size + 3 * num_bits + 2 * code_size, out_size // 2, out_size])

    def forward(self, code: Tensor, task: Tensor) -> Tensor:
        parts = [code[:, : self.latent_size]]
        if self.bit_layers is not None:
            parts.append(self.bit_layers(code[:, self.latent_size :]))
        parts.append(self.task_layers(self.codes[task]))
        return self.out(torch.cat(parts, 1))


class EmbeddingTranslator(nn.Module):
    """Noise [B, in_size] and the number of a task or a class [B] -> [B, out_size]: Multiband GAN's.

    Source: Deja et al. 2023, "Adapt & Align", arXiv:2312.13699, and the authors' code.

    Args:
        num_values: tasks or classes; each has a learned vector of as many numbers.
        hidden_size: published is 4 * in_size.
    """

    def __init__(
        self, in_size: Positive, num_values: Positive, hidden_size: Positive, out_size: Positive
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_values, num_values)
        self.out = mlp([in_size + num_values, hidden_size, out_size], slope=0.2)

    def forward(self, noise: Tensor, value: Tensor) -> Tensor:
        return self.out(torch.cat([noise, self.embedding(value)], 1))


class Band(nn.Module):
    """Code [B, Z] and task [B] -> image [B, C, S, S] in [-1, 1].

    Args:
        translator: code and task -> [B, D].
        decoder: [B, D] -> image.
    """

    def __init__(self, translator: Translator | EmbeddingTranslator, decoder: nn.Module) -> None:
        super().__init__()
        self.translator, self.decoder = translator, decoder

    def forward(self, code: Tensor, task: Tensor) -> Tensor:
        return self.decoder(self.translator(code, task))


def _two_layers(narrow: int, middle: int, wide: int) -> nn.Sequential:
    return nn.Sequential(*mlp([narrow, middle, wide]), nn.LeakyReLU(0.01))
