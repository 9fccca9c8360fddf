"""Draws images once per pass and feeds every metric, over all tasks and task by task."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lit_gen.core.images import to_float, to_uint8
from lit_gen.core.random import forked_rng, mixed_seed
from lit_gen.core.types import Batch, InputError, PairBatch, Reconstructs, Split, Translates
from lit_gen.evaluation.blocks import (
    FeaturePart,
    RealImages,
    abilities_of,
    blocks,
    choose,
    on_device,
    target_images,
    undisturbed,
)
from lit_gen.evaluation.scores import Score
from lit_gen.metrics.base import FeatureMetric
from lit_gen.metrics.features import FeatureExtractor

log = logging.getLogger(__name__)

Source = Literal["samples", "translations", "reconstructions"]
Parts = list[FeaturePart]  # one per task

# Uses of the seed that must not share their random numbers, nor those of training.
_SAMPLES, _CHOICE = 201, 202
_FLOOR = "floor_"
_SPLITS = ("train", "val", "test")


@runtime_checkable
class Samples(Protocol):
    """Draws images; `conditions` says which of label and task it wants to be told."""

    conditions: frozenset[str]

    def sample(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        """[n, C, S, S] in [-1, 1]."""


_PROMISES: dict[str, type] = {
    "samples": Samples,
    "translations": Translates,
    "reconstructions": Reconstructs,
}


class SampleQuality(Callback):
    """Scores what a model generates against real images, in a fit ("val") and when it is tested ("test").

    As many images are generated as there are real ones. Both come in fixed blocks that are dealt to the
    processes, and the noise of a block is a function of the seed, the task and the block's number: neither
    another number of processes nor an earlier draw changes a score, and scoring does not disturb training.

    Args:
        metrics: each makes a metric for a number of features; a class does.
        num_samples: the most real images of a task that are looked at, and so of generated ones.
        batch_size: images in a block; another size gives other noise.
        every_n_epochs: in a fit; 0 scores only in tests.
        per_task: also scores each task seen so far. A model that takes neither label nor task cannot be asked
            for a task's images; it gets what is meaningful against all of its images (recall, coverage).
        floor: also scores real training images, as if a model had generated them: what a perfect model would
            get.
        source: "samples" needs `sample`, "reconstructions" needs `Reconstructs`, "translations" needs
            `Translates` (domain a is translated and compared with b).

    Attributes:
        scores: those of the latest pass, the same on every process.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        metrics: Sequence[Callable[[int], FeatureMetric]],
        num_samples: int = 10_000,
        batch_size: int = 256,
        every_n_epochs: int = 10,
        per_task: bool = False,
        floor: bool = False,
        source: Source = "samples",
        seed: int = 0,
    ) -> None:
        if source not in _PROMISES:
            raise InputError(f"callbacks.quality.source={source!r}: must be one of {', '.join(_PROMISES)}")
        for key, value, least in (
            ("num_samples", num_samples, 1),
            ("batch_size", batch_size, 1),
            ("every_n_epochs", every_n_epochs, 0),
        ):
            if value < least:
                raise InputError(f"callbacks.quality.{key}={value}: must be at least {least}")
        self.extractor = extractor
        self.metrics = [make(extractor.num_features) for make in metrics]
        names = [name for metric in self.metrics for name in metric.names]
        if len(set(names)) < len(names):
            raise InputError(
                f"callbacks.quality.metrics: two of them give the same name ({', '.join(sorted(names))})"
            )
        self.num_samples, self.batch_size, self.every_n_epochs = num_samples, batch_size, every_n_epochs
        self.per_task, self.floor, self.source, self.seed = per_task, floor, source, seed
        self.scores: list[Score] = []
        self._trainer: Trainer | None = None
        self._kept: dict[tuple[Split, int, int | None], RealImages] = {}
        self._floors: dict[tuple[Split, int | None, int], dict[str, float]] = {}
        self._explained = False

    @property
    def state_key(self) -> str:
        return self._generate_state_key(extractor=self.extractor.name, source=self.source)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not isinstance(abilities_of(pl_module), _PROMISES[self.source]):
            raise InputError(
                f"callbacks.quality.source={self.source}: {type(pl_module).__name__} does not promise "
                f"{_PROMISES[self.source].__name__}. Choose another source, or leave the callback out"
            )
        if stage != "predict" and trainer.datamodule is None:
            raise InputError("SampleQuality needs real images: give the Trainer a datamodule, not loaders")
        if trainer is not self._trainer:
            self._trainer = trainer
            self._kept.clear()
            self._floors.clear()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._score(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._score(trainer, pl_module, "test")

    def _score(self, trainer: Trainer, module: LightningModule, split: Split) -> None:
        start = time.perf_counter()
        tasks = range(trainer.datamodule.current_task + 1)
        with undisturbed(module):
            self.extractor.to(module.device)
            real = [self._real(trainer, module, split, task) for task in tasks]
            fake = [self._fake(trainer, module, task, real[task]) for task in tasks]
            parts = [each.part for each in real]
            self.scores = self._compare(module, split, parts, fake)
            if self.floor:
                self.scores += self._compare_floor(trainer, module, split, parts)
        for score in self.scores:
            # Every process has the same value, and so is the largest of them; Lightning would warn about
            # every name that is not reduced.
            module.log(self._logged_name(score), score.value, sync_dist=True, reduce_fx="max")
        if trainer.is_global_zero:
            count, seconds = sum(part.total for part in fake), time.perf_counter() - start
            log.info("scored %d images of %d tasks (%s) in %.1f s", count, len(tasks), split, seconds)

    def _logged_name(self, score: Score) -> str:
        floor = "floor/" if score.metric.startswith(_FLOOR) else ""
        task = "" if score.on_task is None else f"/task{score.on_task}"
        return f"{score.split}/{floor}{score.metric.removeprefix(_FLOOR)}/{score.extractor}{task}"

    def _compare(self, module: LightningModule, split: Split, real: Parts, fake: Parts) -> list[Score]:
        """Scores of the generated images, task by task if asked, then of all."""
        is_told = self.source != "samples" or bool(module.conditions)
        if self.per_task and not is_told and not self._explained:
            self._explained = True
            log.info(
                "%s takes neither task nor label: a single task is compared with samples of all tasks, and "
                "only recall, coverage and the like are given for it",
                type(module).__name__,
            )
        scores = []
        for on_task, view in self._views(len(real)):
            some_fake = fake[view] if is_told else fake
            one_sided = on_task is not None and not is_told
            numbers = self._numbers(module, real[view], some_fake, one_sided)
            scores += self._as_scores(numbers, on_task, split, real[view], some_fake)
        return scores

    def _compare_floor(
        self, trainer: Trainer, module: LightningModule, split: Split, real: Parts
    ) -> list[Score]:
        train = [
            self._real(trainer, module, "train", task, each.total).part for task, each in enumerate(real)
        ]
        scores = []
        for on_task, view in self._views(len(real)):
            place = (split, on_task, len(real[view]))
            if place not in self._floors:
                numbers = self._numbers(module, real[view], train[view])
                self._floors[place] = {_FLOOR + name: value for name, value in numbers.items()}
            scores += self._as_scores(self._floors[place], on_task, split, real[view], train[view])
        return scores

    def _views(self, num_tasks: int) -> list[tuple[int | None, slice]]:
        """What is scored: each task if asked, and all of them."""
        single = [(task, slice(task, task + 1)) for task in range(num_tasks)] if self.per_task else []
        return [*single, (None, slice(None))]

    def _numbers(
        self,
        module: LightningModule,
        real: Parts,
        fake: Parts,
        one_sided: bool = False,
    ) -> dict[str, float]:
        # MPS has no float64.
        device = torch.device("cpu") if module.device.type == "mps" else module.device
        numbers = {}
        for metric in self.metrics:
            if one_sided and not metric.one_sided:
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
        return numbers

    def _as_scores(
        self,
        numbers: dict[str, float],
        on_task: int | None,
        split: Split,
        real: Parts,
        fake: Parts,
    ) -> list[Score]:
        extractor = (self.extractor.name, self.extractor.weights_hash)
        counts = (sum(part.total for part in real), sum(part.total for part in fake))
        return [Score(on_task, n, v, *extractor, split, *counts, self.seed) for n, v in numbers.items()]

    def _real(
        self, trainer: Trainer, module: LightningModule, split: Split, task: int, most: int | None = None
    ) -> RealImages:
        """At most `most` real images of a task and their features, which are computed once."""
        place = (split, task, most)
        if place not in self._kept:
            dataset = trainer.datamodule.dataset(split, [task])
            # A dry run shows that everything runs, on one block.
            if most is None:
                most = self.batch_size if trainer.fast_dev_run else self.num_samples
            chosen = choose(len(dataset), most, mixed_seed(self.seed, _CHOICE, _SPLITS.index(split), task))
            images = (
                (places, target_images(dataset.__getitems__(chosen[places].tolist())))
                for _, places in blocks(len(chosen), self.batch_size, trainer)
            )
            self._kept[place] = RealImages(dataset, chosen, self._features(module, images, len(chosen)))
        return self._kept[place]

    def _fake(self, trainer: Trainer, module: LightningModule, task: int, real: RealImages) -> FeaturePart:
        """Features of as many generated images, in the same blocks."""

        def images() -> Iterator[tuple[Tensor, Tensor]]:
            for number, places in blocks(len(real.chosen), self.batch_size, trainer):
                batch = None
                if self.source != "samples" or module.conditions:
                    batch = on_device(real.dataset.__getitems__(real.chosen[places].tolist()), module.device)
                with (
                    forked_rng(self.seed, _SAMPLES, task, number, device=module.device),
                    trainer.precision_plugin.forward_context(),
                ):
                    image = self._generate(module, len(places), batch)
                yield places, image

        return self._features(module, images(), len(real.chosen))

    def _generate(self, module: LightningModule, count: int, batch: Batch | PairBatch | None) -> Tensor:
        if self.source == "samples":
            return module.sample(count, **{name: getattr(batch, name) for name in sorted(module.conditions)})
        if self.source == "reconstructions":
            return abilities_of(module).reconstruct(batch._replace(image=to_float(batch.image)))
        return abilities_of(module).translate(to_float(batch.a.image), to="b")

    def _features(
        self, module: LightningModule, images: Iterable[tuple[Tensor, Tensor]], total: int
    ) -> FeaturePart:
        num_features, num_logits = self.extractor.num_features, self.extractor.num_logits
        # A process without blocks has empty tensors of the same widths.
        index = [torch.empty(0, dtype=torch.long)]
        found = [(torch.empty(0, num_features), torch.empty(0, num_logits))]
        for places, image in images:
            features, logits = self.extractor(to_uint8(image).to(module.device))
            found.append((features.cpu(), image.new_empty(len(image), 0) if logits is None else logits.cpu()))
            index.append(places)
        features, logits = (torch.cat(parts) for parts in zip(*found, strict=True))
        return FeaturePart(features, logits, torch.cat(index), total)
