"""Which classes a model generates, by the word of an extractor that classifies."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gen.metrics.base import GatheringMetric

_PRESENT = 0.1  # of the share that is expected
_LEAST = 10  # images that must be expected of a class before none of them says something: exp(-10)
_PRIOR = 0.5  # images of every class beside those that were counted, which keeps the divergence finite


class ClassHistogram(GatheringMetric):
    """Compares how many real and how many generated images an extractor puts into each class.

    class_coverage: part of the classes of real images that generated ones have, too, in [0, 1].
    class_kl: KL(generated || real) of the shares of classes, in nats, each class counted half an image more.

    Generated images have a class if its share among them is a tenth of that among real ones. Asked are the
    classes with at least 10 real images and a share for which 10 generated ones are expected, since fewer
    would be missed by chance, and with a tenth of an equal share at least, since a classifier errs. NaN where
    there is no such class. Needs an extractor that classifies.

        >>> metric = ClassHistogram()
        >>> metric.update(torch.zeros(50, 1), real=True, logits=torch.eye(5).repeat(10, 1))
        >>> metric.update(torch.zeros(50, 1), real=False, logits=torch.eye(5)[:4].repeat(13, 1)[:50])
        >>> metric.compute()["class_coverage"].item()
        0.8
    """

    names = {"class_coverage": "higher", "class_kl": "lower"}
    of_classes = True

    def __init__(self, num_features: int | None = None) -> None:
        super().__init__(num_features)
        self.add_state("num_classes", default=torch.tensor(0), dist_reduce_fx="max")  # as wide as the logits

    def update(
        self, features: Tensor, real: bool, index: Tensor | None = None, logits: Tensor | None = None
    ) -> None:
        if logits is None or not logits.shape[1]:
            guess = features.new_zeros(len(features), 1)
        else:
            self.num_classes.clamp_(min=logits.shape[1])
            guess = logits.argmax(1, keepdim=True).float()
            guess[~logits.isfinite().all(1)] = torch.nan
        super().update(guess, real, index)

    def score(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        if not int(self.num_classes):
            return self._nothing("the extractor does not classify")
        if not len(real) or not len(fake):
            return self._nothing(f"{len(real)} real and {len(fake)} generated images")
        real, fake = (self._counts(each) for each in (real, fake))
        share = real / real.sum()
        asked = (torch.minimum(real, share * fake.sum()) >= _LEAST) & (share >= _PRESENT / len(share))
        covered = asked & (fake / fake.sum() >= _PRESENT * share)
        p, q = ((each + _PRIOR) / (each + _PRIOR).sum() for each in (fake, real))
        if not asked.any():
            self._warn(f"no class has {_LEAST} images, real and expected; class_coverage will be NaN")
        return {
            "class_coverage": covered.sum() / asked.sum().double(),
            "class_kl": (p * (p / q).log()).sum(),
        }

    def _counts(self, guess: Tensor) -> Tensor:
        return torch.bincount(guess.flatten().long(), minlength=int(self.num_classes)).double()

    def _checked(self, features: Tensor) -> Tensor:
        return features.to(self.device)

    def _width(self) -> int:
        return 1
