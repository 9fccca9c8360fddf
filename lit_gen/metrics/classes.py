"""Which classes a model generates, by the word of an extractor that classifies."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gen.metrics.base import GatheringMetric

_PRESENT = 0.1  # of the share that is expected
_PRIOR = 0.5  # images of every class beside those that were counted, which keeps the divergence finite


class ClassHistogram(GatheringMetric):
    """Compares how many real and how many generated images an extractor puts into each class.

    classes_covered: the classes that real images have, and generated ones, too.
    class_coverage: their share of the classes that real images have, in [0, 1].
    class_kl: KL(generated || real) of the shares of classes, in nats, each class counted half an image more.

    Real images have a class if they have a tenth as many images of it as of the largest one (a classifier
    errs); generated ones, if its share among them is a tenth of that among real ones. Needs an extractor that
    classifies.

        >>> metric = ClassHistogram()
        >>> metric.update(torch.zeros(50, 1), real=True, logits=torch.eye(5).repeat(10, 1))
        >>> metric.update(torch.zeros(50, 1), real=False, logits=torch.eye(5)[:4].repeat(13, 1)[:50])
        >>> metric.compute()["class_coverage"].item()
        0.8
    """

    names = {"classes_covered": "higher", "class_coverage": "higher", "class_kl": "lower"}

    def __init__(self, num_features: int | None = None) -> None:
        super().__init__(num_features)
        self._num_classes = 0  # as wide as the logits

    def update(
        self, features: Tensor, real: bool, index: Tensor | None = None, logits: Tensor | None = None
    ) -> None:
        if logits is None or not logits.shape[1]:
            self._num_classes = 0
            guess = features.new_zeros(len(features), 1)
        else:
            self._num_classes = logits.shape[1]
            guess = logits.argmax(1, keepdim=True).float()
        super().update(guess, real, index)

    def score(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        if not self._num_classes:
            return self._nothing("the extractor does not classify")
        if not len(real) or not len(fake):
            return self._nothing(f"{len(real)} real and {len(fake)} generated images")
        real, fake = (self._counts(each) for each in (real, fake))
        exists = real >= _PRESENT * real.max()
        covered = exists & (fake / fake.sum() >= _PRESENT * real / real.sum())
        p, q = ((each + _PRIOR) / (each + _PRIOR).sum() for each in (fake, real))
        return {
            "classes_covered": covered.sum().double(),
            "class_coverage": covered.sum() / exists.sum().double(),
            "class_kl": (p * (p / q).log()).sum(),
        }

    def _counts(self, guess: Tensor) -> Tensor:
        return torch.bincount(guess.flatten().long(), minlength=self._num_classes).double()

    def _checked(self, features: Tensor) -> Tensor:
        return features.to(self.device)

    def _width(self) -> int:
        return 1
