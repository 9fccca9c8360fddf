"""How good generated images are: drawn once and shown to every metric, over all tasks and task by task."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lit_gen.core.images import to_uint8
from lit_gen.core.module import LitGenerator, LitModel
from lit_gen.core.processes import summed
from lit_gen.core.random import Use, forked_rng
from lit_gen.core.types import (
    Batch,
    InputError,
    NonNegative,
    PairBatch,
    Positive,
    Restores,
    Split,
    StreamData,
    Translates,
)
from lit_gen.evaluation.board import FLOOR, Row
from lit_gen.evaluation.context import Context, undisturbed
from lit_gen.evaluation.judges.base import at_least
from lit_gen.metrics.base import FeatureMetric
from lit_gen.metrics.features import FeatureExtractor

log = logging.getLogger(__name__)

_SPLITS = ("train", "val", "test")
_PROMISES: dict[str, type] = {
    "samples": LitGenerator,
    "translations": Translates,
    "reconstructions": Restores,
}


class FeaturePart(NamedTuple):
    """One task's images as features; only those of this process's blocks."""

    features: Tensor  # float32 [n, D], on the CPU
    logits: Tensor  # float32 [n, K], on the CPU; K = 0 if the extractor does not classify
    index: Tensor  # int64 [n], place among the task's images
    total: int  # the task's images on all processes
    num_broken: int  # those among them whose pixels, features or logits are not finite
    num_named: int = 0  # those among them whose label is the class that the extractor puts them into


Parts = list[FeaturePart]  # one per task


class RealImages(NamedTuple):
    """The real images of a task that are looked at."""

    dataset: Dataset[Batch]
    chosen: Tensor  # int64 [total], places in the data set
    part: FeaturePart


class SampleQuality:
    """Judges what a model generates against real images.

    As many images are generated as there are real ones. Both come in fixed blocks that are dealt to the
    processes, and the noise of a block is a function of the seed, the task and the block's number: neither
    another number of processes nor an earlier draw changes a score. Every score of a set is NaN if one of its
    images has pixels, features or logits that are infinite or NaN. Scores that go by classes are given where
    the extractor puts most of the real images into the class that is their label.

    Args:
        metrics: each makes a metric for a number of features; a class does.
        num_samples: the most real images of a task that are looked at, and so of generated ones.
        num_val_samples: the same in validation; None is `num_samples`.
        batch_size: images in a block; another size gives other noise.
        every_n_epochs: in a fit; 0 judges in tests only.
        per_task: also scores each task seen so far. A model that takes neither label nor task cannot be asked
            for a task's images; it gets what is meaningful against all of its images (recall, coverage).
        floor: also scores real training images, as if a model had generated them: what a perfect model would
            get.
        source: "samples" needs a `LitGenerator`, "reconstructions" needs `Restores`, "translations" needs
            `Translates` (domain a is translated and compared with b). None is what the model can do:
            translations where it draws no samples and promises them, else samples.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        metrics: Sequence[Callable[[int], FeatureMetric]],
        num_samples: Positive = 10_000,
        num_val_samples: Positive | None = None,
        batch_size: Positive = 256,
        every_n_epochs: NonNegative = 10,
        per_task: bool = False,
        floor: bool = False,
        source: Literal["samples", "translations", "reconstructions"] | None = None,
        seed: NonNegative = 0,
    ) -> None:
        num_val_samples = num_samples if num_val_samples is None else num_val_samples
        at_least(1, num_samples=num_samples, num_val_samples=num_val_samples, batch_size=batch_size)
        self.extractor = extractor
        self.metrics = [make(extractor.num_features) for make in metrics]
        self.better = {name: way for metric in self.metrics for name, way in metric.names.items()}
        if len(self.better) < sum(len(metric.names) for metric in self.metrics):
            raise ValueError(f"metrics: two of them give the same name ({', '.join(sorted(self.better))})")
        self.num_samples = {"test": num_samples, "val": num_val_samples}
        self.batch_size, self.every_n_epochs = batch_size, every_n_epochs
        self.per_task, self.floor, self.source, self.seed = per_task, floor, source, seed
        self._data: StreamData | None = None
        self._kept: dict[tuple[Split, int, int], RealImages] = {}
        self._floors: dict[tuple[Split, int | None, int], list[Row]] = {}

    def _source_of(self, model: LitModel) -> str:
        translates = not isinstance(model, LitGenerator) and isinstance(model.abilities(), Translates)
        return self.source or ("translations" if translates else "samples")

    def check(self, context: Context) -> None:
        source = self._source_of(context.model)
        promise = _PROMISES[source]
        if not isinstance(context.model.abilities(), promise):
            raise InputError(
                f"source={source}: {type(context.model).__name__} does not promise {promise.__name__}. "
                "Choose another source or model, or other judges, such as judges=terms"
            )
        log.info("scores by features of %s, trained on %s", self.extractor.name, self.extractor.trained_on)
        if self.per_task and source == "samples" and not context.model.conditions:
            log.info(
                "%s takes neither task nor label: a single task is compared with samples of all tasks, and "
                "only recall, coverage and the like are given for it",
                type(context.model).__name__,
            )

    def rows(self, context: Context, split: Split) -> list[Row]:
        context = self._begin(context)
        tasks = range(context.num_seen)
        with undisturbed(context.model):
            self.extractor.to(context.model.device)
            real = [self._real(context, split, task, self.num_samples[split]) for task in tasks]
            fake = [self._fake(context, task, real[task]) for task in tasks]
            parts = [each.part for each in real]
            _warn_of_broken(context, "generated", fake)
            _warn_of_broken(context, "real", parts)
            return [*self._compare(context, split, parts, fake), *self._floor(context, split, parts)]

    def _begin(self, context: Context) -> Context:
        if context.data is not self._data:
            self._data = context.data
            self._kept.clear()
            self._floors.clear()
        return context.with_blocks(self.batch_size, self.seed)

    def _sample(self, model: LitGenerator, n: int, **conditions: Tensor) -> Tensor:
        return model.sample(n, **conditions)

    def _compare(self, context: Context, split: Split, real: Parts, fake: Parts) -> list[Row]:
        """Scores of the generated images, task by task if asked, then of all."""
        is_told = self._source_of(context.model) != "samples" or bool(context.model.conditions)
        rows = []
        for on_task, view in context.views(self.per_task):
            some_fake = fake[view] if is_told else fake
            one_sided = on_task is not None and not is_told
            rows += self._scores(context, split, on_task, real[view], some_fake, one_sided=one_sided)
        return rows

    def _floor(self, context: Context, split: Split, real: Parts) -> list[Row]:
        """Scores of real training images, if asked, computed once."""
        rows = []
        for on_task, view in context.views(self.per_task) if self.floor else ():
            place = (split, on_task, len(real[view]))
            if place not in self._floors:
                tasks = range(len(real))[view]
                train = [self._real(context, "train", task, real[task].total).part for task in tasks]
                _warn_of_broken(context, "real training", train)
                self._floors[place] = self._scores(context, split, on_task, real[view], train, FLOOR)
            rows += self._floors[place]
        return rows

    def _scores(
        self,
        context: Context,
        split: Split,
        on_task: int | None,
        real: Parts,
        fake: Parts,
        prefix: str = "",
        one_sided: bool = False,
    ) -> list[Row]:
        # MPS has no float64.
        device = torch.device("cpu") if context.model.device.type == "mps" else context.model.device
        numbers = {}
        total, num_named = sum(part.total for part in real), sum(part.num_named for part in real)
        for metric in self.metrics:
            if (one_sided and not metric.one_sided) or (metric.of_classes and num_named <= total / 2):
                continue
            if any(part.num_broken for part in (*real, *fake)):
                names = metric.one_sided if one_sided else metric.names
                numbers |= {n: math.nan for n in metric.names if n in names}
                continue
            metric.to(device)
            for is_real, parts in ((True, real), (False, fake)):
                first = 0
                for part in parts:
                    features, logits = part.features.to(device), part.logits.to(device)
                    metric.update(features, is_real, part.index.to(device) + first, logits)
                    first += part.total
            values = metric.compute()
            metric.reset()
            numbers |= {n: float(v) for n, v in values.items() if not one_sided or n in metric.one_sided}
        extractor = (self.extractor.name, self.extractor.weights_hash)
        counts = (total, sum(part.total for part in fake))
        return [
            Row(on_task, prefix + n, v, *extractor, split, *counts, self.seed) for n, v in numbers.items()
        ]

    def _real(self, context: Context, split: Split, task: int, most: int) -> RealImages:
        """At most `most` real images of a task and their features, which are computed once."""
        place = (split, task, most)
        if place not in self._kept:
            dataset, purpose = context.data.dataset(split, [task]), (Use.SAMPLES_CHOICE, _SPLITS.index(split))
            chosen = context.choose(len(dataset), most, *purpose, task).sort().values
            labels: list[Tensor] = []

            def images() -> Iterator[tuple[Tensor, Tensor]]:
                for _, places in context.blocks(len(chosen)):
                    batch = dataset.__getitems__(chosen[places].tolist())
                    labels.append(batch.label)
                    yield places, batch.target

            part = self._features(context, images(), len(chosen))
            num_named = torch.zeros((), dtype=torch.long, device=context.model.device)
            if labels and labels[0].ndim == 1 and part.logits.shape[1]:
                num_named += (part.logits.argmax(1) == torch.cat(labels)).sum()
            if context.world_size > 1:
                num_named = summed(num_named)
            part = part._replace(num_named=int(num_named))
            self._kept[place] = RealImages(dataset, chosen, part)
        return self._kept[place]

    def _fake(self, context: Context, task: int, real: RealImages) -> FeaturePart:
        """Features of as many generated images, in the same blocks."""
        model, able = context.model, context.model.abilities()
        source = self._source_of(model)
        told = sorted(model.conditions) if source == "samples" else []

        def generate(count: int, batch: Batch | PairBatch | None) -> Tensor:
            if source == "samples":
                return self._sample(model, count, **(context.conditions(batch, told) if told else {}))
            if source == "reconstructions":
                return able.reconstruct(batch)
            return able.translate(batch.a.image, to="b")

        def images() -> Iterator[tuple[Tensor, Tensor]]:
            for number, places in context.blocks(len(real.chosen)):
                needs_real = told or source != "samples"
                batch = context.load(real.dataset, real.chosen[places]) if needs_real else None
                noise = forked_rng(self.seed, Use.SAMPLES, task, number, device=model.device)
                with noise, context.precision():
                    image = generate(len(places), batch)
                yield places, image

        return self._features(context, images(), len(real.chosen))

    def _features(self, context: Context, images: Iterable[tuple[Tensor, Tensor]], total: int) -> FeaturePart:
        # A process without blocks has empty tensors of the same widths.
        index = [torch.empty(0, dtype=torch.long)]
        found = [(torch.empty(0, self.extractor.num_features), torch.empty(0, self.extractor.num_logits))]
        num_broken = torch.zeros((), dtype=torch.long, device=context.model.device)
        for places, image in images:
            whole = image.isfinite().flatten(1).all(1).to(context.model.device)
            image = to_uint8(image.nan_to_num()).to(context.model.device)
            features, logits = self.extractor(image)
            logits = features[:, :0] if logits is None else logits
            num_broken += (~(whole & features.isfinite().all(1) & logits.isfinite().all(1))).sum()
            found.append((features.cpu(), logits.cpu()))
            index.append(places)
        features, logits = (torch.cat(parts) for parts in zip(*found, strict=True))
        if context.world_size > 1:
            num_broken = summed(num_broken)
        return FeaturePart(features, logits, torch.cat(index), total, int(num_broken))


def _warn_of_broken(context: Context, kind: str, parts: Parts) -> None:
    """One warning, from the first process."""
    broken, total = sum(part.num_broken for part in parts), sum(part.total for part in parts)
    if broken and context.rank == 0:
        log.warning(
            "%d of %d %s images (%.3g %%) have pixels, features or logits that are infinite or NaN; every "
            "score of them is NaN",
            broken,
            total,
            kind,
            100 * broken / total,
        )
