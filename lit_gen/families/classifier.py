"""Classifier of images, for feature extractors and for classifiers trained on generated images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gen.core.module import LitModel, OptimizerFactory, ScheduleFactor
from lit_gen.core.types import Batch, ImageSpec, NonNegative, Terms
from lit_gen.families.base import ADAM
from lit_gen.nets.lenet import LeNet


class Classifier(LitModel):
    """Cross-entropy on labelled images; unlabelled ones (-1) do not count.

        >>> model = Classifier(ImageSpec(1, 28, 10))
        >>> list(model.classify(torch.zeros(3, 1, 28, 28)).shape)
        [3, 10]

    Args:
        net: image [B, C, S, S] in [-1, 1] -> features [B, D] and logits [B, K]; None is a
            `LeNet`.
        shift: pixels by which a training image is moved at random, black coming in; 0 leaves it where it is.
    """

    def __init__(
        self,
        spec: ImageSpec,
        net: nn.Module | None = None,
        shift: NonNegative = 0,
        optimizer: OptimizerFactory = ADAM,
        schedule: ScheduleFactor | None = None,
    ) -> None:
        super().__init__(spec, optimizer, schedule)
        if spec.num_classes == 0:
            raise ValueError("Classifier: the data has no labels (data.spec.num_classes=0), so no classes")
        self.net = LeNet(spec.channels, spec.num_classes) if net is None else net
        self.shift = shift

    def step(self, batch: Batch, progress: float) -> Terms:
        return self._terms(batch._replace(image=self._moved(batch.image)))

    def evaluate(self, batch: Batch) -> Terms:
        return self._terms(batch)

    def counted(self, batch: Batch) -> Tensor:
        return (batch.label >= 0).sum()

    def classify(self, image: Tensor) -> Tensor:
        return self.net(image)[1]

    def _terms(self, batch: Batch) -> Terms:
        logits = self.classify(batch.image)
        known = batch.label >= 0
        error = F.cross_entropy(logits, batch.label.clamp(min=0), reduction="none")
        count = known.sum().clamp(min=1)
        # The largest of logits that are no numbers is the first: class 0.
        right = torch.where(logits.isfinite().all(1), (logits.argmax(1) == batch.label).float(), torch.nan)
        return {
            name: each.where(known, 0).sum() / count for name, each in (("loss", error), ("accuracy", right))
        }

    def _moved(self, image: Tensor) -> Tensor:
        if self.shift == 0:
            return image
        size = image.shape[-1]
        padded = F.pad(image, [self.shift] * 4, value=-1.0)
        down, right = torch.randint(0, 2 * self.shift + 1, (2, len(image)), device=image.device)
        windows = padded.unfold(2, size, 1).unfold(3, size, 1)  # [B, C, places, places, S, S]
        return windows[torch.arange(len(image), device=image.device), :, down, right]
