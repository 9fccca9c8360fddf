"""Whether generated images help a classifier: its accuracy with and without them.

Source: Ravuri & Vinyals 2019, "Classification accuracy score for conditional generative models",
arXiv:1905.10887, whose score is the accuracy after training on generated images alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from lit_gen.core.images import to_float, to_uint8
from lit_gen.core.module import LitGenerator, LitModel
from lit_gen.core.random import Use, forked_rng, mixed_seed
from lit_gen.core.types import Batch, InputError, Positive
from lit_gen.evaluation.context import Context
from lit_gen.evaluation.uses.findings import Findings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Augmentation:
    """A classifier trained on a few real images, on those and generated ones, and on generated ones only.

    All take the same number of steps. Labels of the generated images are those of training images drawn at
    random. Needs a model with the condition "label".

    Attributes:
        n: real images.
        generated: images drawn from the model.
        steps: of the classifier's optimizer.
        batch_size: of each step.
        repeats: other real images, generated ones and initial weights each time.
    """

    n: Positive = 500
    generated: Positive = 5000
    steps: Positive = 500
    batch_size: Positive = 64
    repeats: Positive = 3

    def __call__(self, context: Context, make_classifier: Callable[[], LitModel]) -> Findings:
        model = context.model
        if not isinstance(model, LitGenerator) or "label" not in model.conditions:
            raise InputError(
                f"{context.name}: {type(model).__name__} was trained without the condition on the label, so "
                "that it draws no images of a given class; train with model.condition=label"
            )
        rows, places = [], _labelled_places(context)
        for repeat in range(self.repeats):
            order = torch.randperm(len(places), generator=_generator(context, repeat, 0))
            some = context.images("train").__getitems__(places[order[: self.n]].tolist())
            real = some.image, some.label
            drawn = self._drawn(context, model, places, repeat)
            both = tuple(torch.cat(parts) for parts in zip(real, drawn, strict=True))
            for name, (image, label) in {"real": real, "real + generated": both, "generated": drawn}.items():
                # The same initial weights for all three.
                with forked_rng(context.seed, Use.CLASSIFIER, repeat, device=model.device):
                    classifier = make_classifier().to(model.device)
                    self._train(classifier, image, label)
                found, true = context.ask(
                    lambda b, by=classifier: (by.classify(b.image).argmax(1), b.label), context.images("test")
                )
                accuracy = float((found == true)[true >= 0].double().mean())
                rows.append({"repeat": repeat, "train_on": name, "images": len(label), "accuracy": accuracy})
                log.info("%d of %d, %s: accuracy %.4f", repeat + 1, self.repeats, name, accuracy)
        groups = pd.DataFrame(rows).groupby("train_on", sort=False)
        means = groups.agg(images=("images", "first"), accuracy=("accuracy", "mean"), std=("accuracy", "std"))
        return Findings(means.fillna(0.0).reset_index().to_dict("records"), rows)

    def _drawn(
        self, context: Context, model: LitGenerator, places: Tensor, repeat: int
    ) -> tuple[Tensor, Tensor]:
        """uint8 [generated, C, S, S] and labels of images drawn from the model."""
        rng = _generator(context, repeat, 1)
        chosen = places[torch.randint(len(places), (self.generated,), generator=rng)]
        like = context.images("train").__getitems__(chosen.tolist())
        given = {"label": like.label, "task": like.task}
        parts = []
        for number, block in enumerate(torch.arange(self.generated).split(context.batch_size)):
            conditions = {name: given[name][block].to(model.device) for name in sorted(model.conditions)}
            with forked_rng(context.seed, Use.GENERATED, repeat, number, device=model.device):
                parts.append(to_uint8(model.sample(len(block), **conditions)).cpu())
        return torch.cat(parts), like.label

    def _train(self, classifier: LitModel, image: Tensor, label: Tensor) -> None:
        optimizer = classifier.make_optimizer(classifier.parameters())
        classifier.train()
        epochs = -(-self.steps * self.batch_size // len(label))
        order = torch.cat([torch.randperm(len(label)) for _ in range(epochs)])
        for step, chosen in enumerate(order.split(self.batch_size)[: self.steps]):
            pixels, kind = (part[chosen].to(classifier.device) for part in (image, label))
            batch = Batch(to_float(pixels), kind, torch.zeros_like(kind), torch.full_like(kind, -1))
            optimizer.zero_grad()
            classifier.step(batch, step / self.steps)["loss"].backward()
            optimizer.step()
        classifier.eval()


def _labelled_places(context: Context) -> Tensor:
    """Places of the training images that have a class, int64.

    Raises:
        InputError: there are none.
    """
    images = context.images("train")
    (label,) = context.ask(lambda b: (b.label,), images)
    places = (label >= 0).nonzero().flatten() if label.ndim == 1 else torch.empty(0)
    if len(places) == 0:
        raise InputError(f"{context.name}: none of its training images has a class")
    return places


def _generator(context: Context, repeat: int, use: int) -> torch.Generator:
    return torch.Generator().manual_seed(mixed_seed(context.seed, Use.CHOICE, repeat, use))
