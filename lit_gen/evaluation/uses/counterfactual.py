"""Counterfactual explanations: what in an image would have to be different for another class.

Source: Deja et al. 2023, "Learning data representations with joint diffusion models", arXiv:2301.13622.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.utils.data import Dataset

from lit_gen.core.images import to_uint8
from lit_gen.core.module import Sampler
from lit_gen.core.random import Use
from lit_gen.core.types import Batch, Diffuses, Fraction, InputError, NonNegative, Positive
from lit_gen.diffusion.outputs import noised
from lit_gen.evaluation.context import Context, pixel_error
from lit_gen.evaluation.plots import strips
from lit_gen.evaluation.tables import lines_of
from lit_gen.evaluation.uses.findings import Findings
from lit_gen.metrics.features import FeatureExtractor

_Says = Callable[[Tensor, Tensor], Tensor]
"""(image, wanted) -> 1 where what is wanted is seen, else 0: [B]."""


@dataclass(frozen=True)
class Counterfactual:
    """Test images noised up to a time and denoised towards another class, with the guidance of the model's
    own classifier and, from the same noise, without it. Of joint diffusion models.

    `flipped` is the share of the images, of those in which the classifier did not see that class before, in
    which it sees it afterwards, `flipped_extractor` the same for the run's extractor. `distance` is the root
    of the mean squared difference between both images, pixels counted from 0 to 1, and `changed` the share of
    numbers that differ by `least` or more. The picture's rows are images, the unguided ones, the guided ones,
    and the difference between the latter and the images: grey where there is none, bright where more is.

    Attributes:
        to: the class; of a model with attributes the one that is turned over. None: the class after the
            image's own, or attribute 0.
        at: part of the path up to which images are noised.
        strength: of the guidance.
        by: what is moved, see sampler=guided and its `strength`.
        steps: of DDIM.
        least: see `changed`.
        n: test images at most.
        columns: of the picture.
    """

    to: NonNegative | None = None
    at: Annotated[Fraction, Gt(0)] = 0.35
    strength: Annotated[float, Ge(0)] = 20.0
    by: Literal["representations", "noisy", "denoised"] = "denoised"
    steps: Positive = 50
    least: Annotated[Fraction, Gt(0)] = 0.1
    n: Positive = 500
    columns: Positive = 16

    def __call__(
        self, context: Context, extractor: FeatureExtractor, make_guide: Callable[[float], Sampler]
    ) -> Findings:
        """
        Args:
            make_guide: strength -> a sampler that guides, with `by` and `steps`.
        """
        model, images = context.promised(Diffuses), context.images("test")
        self._check(context, model, make_guide(self.strength))
        extractor = extractor.to(context.model.device)
        places = self._not_yet(context, images)
        t = float(model.path.at(torch.tensor(self.at, dtype=torch.float64)))
        t = max(t, model.path.first)
        table, rows, shown = [], [], []
        for kind, strength in (("none", 0.0), (self.by, self.strength)):
            sampler = make_guide(strength)

            def question(batch: Batch, sampler: Sampler = sampler) -> tuple[Tensor, ...]:
                wanted = self._wanted(model, batch.label)
                time = torch.full((batch.size,), t, device=batch.image.device)
                x = noised(model.path, time, batch.image, torch.randn_like(batch.image))
                other = sampler.denoised(model, x, t, label=wanted).clamp(-1, 1)
                seen = [
                    says(each, wanted)
                    for says in (self._classifier(model), _judge(extractor))
                    for each in (batch.image, other)
                ]
                return batch.image, other, batch.index, *seen

            found = _Found(*context.ask(question, images, places, Use.NOISE, round(1000 * self.at)))
            table.append({"guidance": kind, **found.row(self.least)})
            rows += [{"guidance": kind, **line} for line in found.lines(self.least)]
            shown += [found.other[: self.columns]]
        image = found.image[: self.columns]
        return Findings(table, rows, strips([image, *shown, (shown[-1] - image) / 2]))

    def _check(self, context: Context, model: Diffuses, guide: Sampler) -> None:
        try:
            guide.check(model)
        except ValueError as error:
            raise InputError(f"{context.name}: {error}") from error
        count = model.spec.num_classes
        if self.to is not None and self.to >= count:
            kind = "attributes" if model.attributes else "classes"
            raise InputError(f"to={self.to}: there is none; this model knows {kind} from 0 to {count - 1}")

    def _not_yet(self, context: Context, images: Dataset[Batch]) -> Tensor:
        """Places of test images that are not of the class already."""
        (label,) = context.ask(lambda batch: (batch.label,), images)
        others = torch.arange(len(label))
        if self.to is not None and label.ndim == 1:
            others = others[label != self.to]
        if len(others) == 0:
            raise InputError(f"to={self.to}: every test image is of this class already; take another one")
        return others[context.choose(len(others), self.n)]

    def _wanted(self, model: Diffuses, label: Tensor) -> Tensor:
        """What the classifier is to see: int64 [B], or attributes [B, A]."""
        if label.ndim == 1:
            return (
                (label + 1) % model.spec.num_classes if self.to is None else torch.full_like(label, self.to)
            )
        other = label.clone()
        other[:, self.to or 0] = 1 - other[:, self.to or 0]
        return other

    def _classifier(self, model: Diffuses) -> _Says:
        def says(image: Tensor, wanted: Tensor) -> Tensor:
            logits = model.classify(image)
            if wanted.ndim == 1:
                return (logits.argmax(1) == wanted).float()
            turned = self.to or 0
            return ((logits[:, turned] > 0) == (wanted[:, turned] > 0.5)).float()

        return says


class _Found(NamedTuple):
    """Images and their counterfactuals."""

    image: Tensor  # float32 [N, C, S, S]
    other: Tensor
    index: Tensor  # [N]
    before: Tensor  # [N], 1 where the classifier sees the wanted class in the image
    after: Tensor  # in the counterfactual
    judged_before: Tensor  # the extractor; NaN where it cannot say
    judged_after: Tensor

    def moved(self, least: float) -> tuple[Tensor, Tensor]:
        """Distance, and share of numbers that changed: [N] each."""
        far = ((self.other - self.image).abs() / 2 >= least).float().flatten(1).mean(1)
        return pixel_error(self.other, self.image).sqrt(), far

    def row(self, least: float) -> dict[str, float]:
        distance, changed = self.moved(least)
        return {
            "images": len(self.image),
            "flipped": _share(self.before, self.after),
            "flipped_extractor": _share(self.judged_before, self.judged_after),
            "distance": float(distance.mean()),
            "changed": float(changed.mean()),
        }

    def lines(self, least: float) -> list[dict[str, float]]:
        distance, changed = self.moved(least)
        return lines_of(
            index=self.index, before=self.before, after=self.after, distance=distance, changed=changed
        )


def _judge(extractor: FeatureExtractor) -> _Says:
    def says(image: Tensor, wanted: Tensor) -> Tensor:
        logits = extractor(to_uint8(image))[1]
        if logits is None or wanted.ndim > 1:
            return torch.full((len(image),), math.nan)
        return (logits.argmax(1) == wanted).float()

    return says


def _share(before: Tensor, after: Tensor) -> float:
    """Of those that were 0 the share that is 1; NaN where there was none."""
    return float(after[before == 0].mean())
