"""Whether translations keep what an image shows and take on the look of the other domain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lit_gen.core.images import to_uint8
from lit_gen.core.types import Batch, InputError, PairBatch, Positive, Translates
from lit_gen.evaluation.context import Context, pixel_error
from lit_gen.evaluation.plots import strips
from lit_gen.evaluation.tables import lines_of
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
        places = context.choose(len(context.images("test")), self.n).sort().values
        directions: tuple[tuple[Domain, Domain], ...] = (("a", "b"), ("b", "a"))
        ways = {each[0]: self._one_way(context, model, extractor, places, *each) for each in directions}
        table, rows, shown = [], [], []
        for source, target in directions:
            found, own, name = ways[source], ways[target].looks["before"], f"{source} to {target}"
            row = {
                "way": name,
                "images": len(places),
                "extractor": f"{extractor.name} ({extractor.weights_hash})",
            }
            row |= {f"accuracy_{at}": found.accuracy(at) for at in found.looks}
            row["accuracy_target"] = ways[target].accuracy("before")
            for at in ("before", "after"):
                row[f"fid_{at}"] = _distance(own.features, found.looks[at].features)
            table.append(row | {"cycle_mse": float(found.error.mean())})
            guesses = {at: looks.guess for at, looks in found.looks.items()}
            lines = lines_of(image=places, label=found.label, **guesses, cycle_mse=found.error)
            rows += [{"way": name, **line} for line in lines]
            shown += found.pictures
        return Findings(table, rows, strips(shown))

    def _one_way(
        self,
        context: Context,
        model: Translates,
        extractor: FeatureExtractor,
        places: Tensor,
        source: Domain,
        target: Domain,
    ) -> _Way:
        def versions(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
            there = model.translate(batch.image, to=target)
            return batch.image, there, model.translate(there, to=source)

        def judged(batch: Batch) -> tuple[Tensor, ...]:
            image, there, back = versions(batch)
            parts = [part for each in (image, there, back) for part in _looked_at(extractor, each)]
            return (*parts, batch.label, pixel_error(back, image))

        images = _OneDomain(context, source)
        *parts, label, error = context.ask(judged, images, places)
        looks = dict(zip(("before", "after", "back"), map(_Looks, parts[::2], parts[1::2]), strict=True))
        return _Way(looks, label, error, context.ask(versions, images, places[: self.columns]))


class _Looks(NamedTuple):
    """What the extractor makes of N images."""

    features: Tensor  # float32 [N, D]
    guess: Tensor  # int64 [N], -1 where the extractor does not classify


class _Way(NamedTuple):
    """Images of one domain before and after their translation, and after the way back."""

    looks: dict[str, _Looks]
    label: Tensor  # int64 [N], -1 = unlabelled
    error: Tensor  # [N], of the way there and back
    pictures: Sequence[Tensor]  # the first ones of each version

    def accuracy(self, version: str) -> float:
        guess = self.looks[version].guess
        known = (self.label >= 0) & (guess >= 0)
        return float((guess == self.label)[known].double().mean()) if known.any() else math.nan


class _OneDomain(Dataset[Batch]):
    """The test images of one of two domains."""

    def __init__(self, context: Context, name: Domain) -> None:
        self.images, self.name, self.owner = context.images("test"), name, context.name

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


def _looked_at(extractor: FeatureExtractor, image: Tensor) -> _Looks:
    features, logits = extractor(to_uint8(image))
    features[~image.isfinite().flatten(1).all(1)] = torch.nan  # what is no image has no distance
    unknown = torch.full((len(image),), -1, device=image.device)
    return _Looks(features, unknown if logits is None else logits.argmax(1))


def _distance(real: Tensor, fake: Tensor) -> float:
    metric = FrechetDistance(real.shape[1])
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return float(metric.compute()["fid"])
