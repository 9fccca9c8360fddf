"""How many of 25 Gaussians on a grid a GAN finds, and how many of its samples lie on one.

A point (x, y) is an image of two channels and one pixel. The Gaussians are 0.4 apart with a standard
deviation of 0.05; a sample is of high quality within three of them, and a Gaussian is found when at least
0.4 % of the samples (a tenth of its share) are on it. No Trainer takes part: the family's losses are called
as they are.
Usage:
    OMP_NUM_THREADS=1 python benchmarks/modes.py [seconds=30] [seed=0]
"""

from __future__ import annotations

import functools
import time
from typing import NamedTuple

import torch
from torch import Tensor

from lit_gen.core.types import Batch, ImageSpec, Task
from lit_gen.families.gan import GAN
from lit_gen.losses.adversarial import (
    Hinge,
    LeastSquares,
    NonSaturating,
    Relativistic,
    Wasserstein,
    centred_penalty,
)
from lit_gen.nets.mlp import DenseDecoder, DenseEncoder

MEANS = torch.cartesian_prod(*[torch.linspace(-0.8, 0.8, 5)] * 2)
STD, BATCH, NOISE = 0.05, 128, 2
ONLY_TASK = Task(0, "all", (), 0, 1)

Adam = functools.partial(torch.optim.Adam, lr=1e-3, betas=(0.0, 0.9), fused=True)
KINDS = {
    "non-saturating": {"loss": NonSaturating()},
    "least squares": {"loss": LeastSquares()},
    "hinge": {"loss": Hinge()},
    "wgan": {
        "loss": Wasserstein(),
        "critic_steps": 5,
        "clip": 0.05,
        "optimizer": functools.partial(torch.optim.RMSprop, lr=2e-4),
    },
    "wgan_gp": {"loss": Wasserstein(), "critic_steps": 3, "penalty_weight": 0.1},
    "r3gan": {"loss": Relativistic(), "penalty": centred_penalty, "penalty_weight": 0.1},
}


class Found(NamedTuple):
    """What 10,000 samples say."""

    modes: int  # of 25
    high_quality: float  # share of samples
    steps: int  # of the generator


def main() -> None:
    from timing import options  # beside this file where it is a script

    given = options(seconds=30, seed=0)
    for kind in KINDS:
        modes, high_quality, steps = explore(kind, **given)
        print(f"{kind:15} {modes:3} of 25 modes  {high_quality:6.1%} on one  {steps:6} steps")


def explore(kind: str, seconds: float, seed: int, max_steps: int | None = None) -> Found:
    """Trains for so many seconds, or generator steps if these are fewer, and counts."""
    torch.manual_seed(seed)
    model = make_model(kind)
    turns = model.phases(ONLY_TASK)[0].turns
    optimizers = [(turn.optimizer or model.make_optimizer)(turn.trains[0].parameters()) for turn in turns]
    start, batches = time.perf_counter(), 0
    while time.perf_counter() - start < seconds and batches != (max_steps or -1) * model.critic_steps:
        batch = draw(BATCH)
        for turn, optimizer in zip(turns, optimizers, strict=True):
            if batches % turn.every == 0:
                model.critic.requires_grad_(turn.name == "critic")
                optimizer.zero_grad()
                turn.loss(batch, 0.0)["loss"].backward()
                optimizer.step()
        batches += 1
    return count(model.sample(10_000), batches // model.critic_steps)


def make_model(kind: str) -> GAN:
    return GAN(
        **{"optimizer": Adam, **KINDS[kind]},
        generator=DenseDecoder(2, 1, NOISE, (128, 128, 128), slope=0.0),
        critic=DenseEncoder(2, 1, 1, (128, 128, 128), slope=0.2),
        noise_size=NOISE,
        spec=ImageSpec(2, 1, 0),
    )


def draw(number: int) -> Batch:
    points = MEANS[torch.randint(len(MEANS), (number,))] + STD * torch.randn(number, 2)
    nothing = torch.zeros(number, dtype=torch.long)
    return Batch(points.view(number, 2, 1, 1), nothing - 1, nothing, nothing)


def count(image: Tensor, steps: int) -> Found:
    distance, nearest = torch.cdist(image.flatten(1), MEANS).min(1)
    on_one = nearest[distance < 3 * STD]
    found = torch.bincount(on_one, minlength=len(MEANS)) >= 0.004 * len(image)
    return Found(int(found.sum()), len(on_one) / len(image), steps)


if __name__ == "__main__":
    main()
