"""Whether translations keep what an image shows and take on the look of the other domain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lit_gen.core.images import to_uint8
from lit_gen.core.types import Batch, InputError, PairBatch, Positive, Translates
from lit_gen.evaluation.context import Context, pixel_error
from lit_gen.evaluation.plots import strips
from lit_gen.evaluation.uses.findings import Findings
from lit_gen.metrics.features import FeatureExtractor
from lit_gen.metrics.frechet import FrechetDistance

Domain = Literal["a", "b"]


@dataclass(frozen=True)
class Translation:
    """Test images of each domain, translated to the other one and judged by an extractor.

    Accuracies are the shares of labelled images whose class the extractor finds: in the images as they are
    (before), translated (content kept), translated and translated back, and for comparison in the target
    domain's own images. They are NaN for images without classes, or an extractor without any. The Frechet
    distances are to the target domain's images: before and after translation. `cycle_mse` is the squared
    error per pixel after the way there and back, pixels counted from 0 to 1.

    Attributes:
        n: test images of each domain at most.
        columns: of the picture, whose rows are images, translations, and those translated back.
    """

    n: Positive = 10_000
    columns: Positive = 16

    def __call__(self, context: Context, extractor: FeatureExtractor) -> Findings:
        model = context.promised(Translates)
        extractor.to(context.model.device)
        images = {name: _OneDomain(context, name) for name in ("a", "b")}
        places = context.choose(len(images["a"]), self.n).sort().values
        # The features of a domain are the start of one direction and the target of the other.
        own = {name: _looked_at(context, extractor, images[name], places) for name in images}
        table, rows, shown = [], [], []
        for source, target in (("a", "b"), ("b", "a")):
            found = self._one_way(context, model, extractor, images[source], places, source, target)
            before, after, back = own[source], found.after, found.back
            numbers = {
                "accuracy_before": before.accuracy(),
                "accuracy_after": after.accuracy(),
                "accuracy_back": back.accuracy(),
                "accuracy_target": own[target].accuracy(),
                "fid_before": _distance(own[target].features, before.features),
                "fid_after": _distance(own[target].features, after.features),
                "cycle_mse": float(found.error.mean()),
            }
            way = f"{source} to {target}"
            table.append({"way": way, "images": len(places), **numbers})
            for number, place in enumerate(places.tolist()):
                guesses = {"before": before.guess, "after": after.guess, "back": back.guess}
                seen = {name: int(guess[number]) for name, guess in guesses.items()}
                row = {"way": way, "image": place, "label": int(before.label[number])}
                rows.append({**row, **seen, "cycle_mse": float(found.error[number])})
            shown += [part[: self.columns] for part in found.pictures]
        return Findings(table, rows, strips(shown))

    def _one_way(
        self,
        context: Context,
        model: Translates,
        extractor: FeatureExtractor,
        images: _OneDomain,
        places: Tensor,
        source: Domain,
        target: Domain,
    ) -> _Way:
        def there_and_back(batch: Batch) -> tuple[Tensor, ...]:
            there = model.translate(batch.image, to=target)
            back = model.translate(there, to=source)
            answers = (*_judged(extractor, there), *_judged(extractor, back))
            return (*answers, batch.label, pixel_error(back, batch.image))

        *answers, label, error = context.ask(there_and_back, images, places)

        def first_ones(batch: Batch) -> tuple[Tensor, ...]:
            there = model.translate(batch.image, to=target)
            return batch.image, there, model.translate(there, to=source)

        pictures = context.ask(first_ones, images, places[: self.columns])
        return _Way(_Looks(*answers[:2], label), _Looks(*answers[2:], label), error, pictures)


@dataclass(frozen=True)
class _Looks:
    """What the extractor makes of N images."""

    features: Tensor  # float32 [N, D]
    guess: Tensor  # int64 [N], -1 where the extractor does not classify
    label: Tensor  # int64 [N], -1 = unlabelled

    def accuracy(self) -> float:
        known = (self.label >= 0) & (self.guess >= 0)
        return float((self.guess == self.label)[known].double().mean()) if known.any() else math.nan


@dataclass(frozen=True)
class _Way:
    """Images of one domain after their translation."""

    after: _Looks
    back: _Looks
    error: Tensor  # [N], of the way there and back
    pictures: Sequence[Tensor]  # the first ones: as they are, translated, translated back


class _OneDomain(Dataset[Batch]):
    """The test images of one of two domains."""

    def __init__(self, context: Context, name: Domain) -> None:
        self.images, self.name, self.owner = context.images("test"), name, context.name

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, places: list[int]) -> Batch:
        pairs = self.images.__getitems__(places)
        if not isinstance(pairs, PairBatch):
            raise InputError(
                f"{self.owner}: its data has one domain only, and translations need two; use "
                "data=unpaired_mnist or another of the unpaired ones"
            )
        batch = getattr(pairs, self.name)
        # Attributes are no classes that an extractor could find.
        return batch if batch.label.ndim == 1 else batch._replace(label=torch.full_like(batch.index, -1))


def _looked_at(context: Context, extractor: FeatureExtractor, images: _OneDomain, places: Tensor) -> _Looks:
    return _Looks(*context.ask(lambda b: (*_judged(extractor, b.image), b.label), images, places))


def _judged(extractor: FeatureExtractor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Features [B, D] and the most likely class of each image, int64 [B]."""
    features, logits = extractor(to_uint8(image))
    unknown = torch.full((len(image),), -1, device=image.device)
    return features, unknown if logits is None else logits.argmax(1)


def _distance(real: Tensor, fake: Tensor) -> float:
    metric = FrechetDistance(real.shape[1])
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return float(metric.compute()["fid"])
