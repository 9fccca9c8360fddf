"""A Multiband GAN for 8 x 8 images, with batch norm in its generator."""

from __future__ import annotations

import functools

import torch
from torch import nn
from toys import SPEC

from lit_gen.continual.multiband_gan import Epochs, MultibandGAN
from lit_gen.losses.adversarial import Wasserstein
from lit_gen.nets.mlp import DenseEncoder
from lit_gen.nets.translator import Band, EmbeddingTranslator

SHORT = Epochs(first=2, local=2, align_warmup=1, align=2)
NOISE = 5


class Images(nn.Module):
    """[B, 5] -> [B, 1, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(NOISE, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.last = nn.Linear(16, 64)

    def forward(self, code):
        return self.last(self.hidden(code)).tanh().view(-1, 1, 8, 8)


def make_multiband_gan(num_tasks=3, seed=11, condition="task", told=None, **options) -> MultibandGAN:
    """`told`: the size of what the critic is told; None is what fits."""
    torch.manual_seed(seed)
    size = SPEC.num_classes if condition == "label" else 0
    return MultibandGAN(
        **{"batch_size": 16, "epochs": SHORT, "spec": SPEC, "critic_steps": 2, **options},
        generator=Band(EmbeddingTranslator(NOISE, size or num_tasks, 20, NOISE), Images()),
        critic=DenseEncoder(1, 8, 1, (16,), condition_size=size if told is None else told),
        noise_size=NOISE,
        loss=Wasserstein(),
        num_tasks=num_tasks,
        condition=condition,
        optimizer=functools.partial(torch.optim.Adam, lr=1e-3, betas=(0.0, 0.9)),
    )
