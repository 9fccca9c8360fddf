"""How likely a model says test images are."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from lit_gen.core.random import Use
from lit_gen.core.types import Likelihood, NonNegative, Positive, Split
from lit_gen.evaluation.board import Row
from lit_gen.evaluation.context import Context
from lit_gen.evaluation.judges.base import at_least


class LogLikelihood:
    """Judges a model that promises `Likelihood`: `nll`, nats per image, and `bits_per_dim`, the same per
    pixel and channel in bits. Where the likelihood is a density, both depend on the range of pixels, [-1, 1].

    It works in full precision, whatever the Trainer's is.

    Args:
        draws: codes per image, or whatever it is that the model draws; more are slower and, for importance
            sampling, tighter.
        num_images: the most images of a task that are looked at.
        batch_size: images in a block; another size gives other noise.
        per_task: also scores each task seen so far.
        every_n_epochs: in a fit; 0 judges in tests only.
    """

    better = {"nll": "lower", "bits_per_dim": "lower"}

    def __init__(
        self,
        draws: Positive = 200,
        num_images: Positive = 10_000,
        batch_size: Positive = 100,
        per_task: bool = False,
        every_n_epochs: NonNegative = 0,
        seed: NonNegative = 0,
    ) -> None:
        at_least(1, draws=draws, num_images=num_images, batch_size=batch_size)
        self.draws, self.num_images, self.batch_size = draws, num_images, batch_size
        self.per_task, self.every_n_epochs, self.seed = per_task, every_n_epochs, seed

    def check(self, context: Context) -> None:
        able, images = context.promised(Likelihood), context.data.dataset("test", [0])
        alone = replace(context, batch_size=self.batch_size, seed=self.seed, rank=0, world_size=1)
        first = torch.arange(min(2, len(images)))
        # A model whose likelihood is none says so when it is asked, which should not be after the training.
        alone.ask(lambda batch: (able.log_likelihood(batch, 1),), images, first, Use.LIKELIHOOD_TRIAL)

    def rows(self, context: Context, split: Split) -> list[Row]:
        context = context.with_blocks(self.batch_size, self.seed)
        able = context.promised(Likelihood)
        found = []  # nats per image, task by task
        for task in range(context.num_seen):
            images = context.data.dataset(split, [task])
            chosen = context.choose(len(images), self.num_images, Use.LIKELIHOOD_CHOICE, task).sort().values
            purpose = (Use.LIKELIHOOD, task)
            found += context.ask(
                lambda batch: (able.log_likelihood(batch, self.draws).float(),), images, chosen, *purpose
            )
        dimensions = math.prod(context.data.spec.shape)
        rows = []
        for on_task, view in context.views(self.per_task):
            values = torch.cat(found[view])
            nll = -values.double().mean().item()
            bits = nll / math.log(2) / dimensions
            for metric, value in (("nll", nll), ("bits_per_dim", bits)):
                rows.append(Row(on_task, metric, value, "", "", split, len(values), 0, self.seed))
        return rows
