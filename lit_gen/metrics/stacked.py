"""An extractor for images whose channels are images of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gen.core.types import Positive
from lit_gen.metrics.features import FeatureExtractor


class StackedExtractor(FeatureExtractor):
    """Looks at every channel alone: features side by side, and logits of all combinations of classes.

    Args:
        part: looks at grey images and classifies them.
        channels: C; of K classes there are K^C combinations, the first channel's the most significant digit.
    """

    def __init__(self, part: FeatureExtractor, channels: Positive = 3) -> None:
        super().__init__()
        if not part.num_logits:
            raise ValueError(f"part={part.name}: an extractor that classifies is needed")
        self.part, self.channels = part, channels
        self.trained_on = part.trained_on
        self.name, self.weights_hash = f"{part.name}_x{channels}", part.weights_hash
        self.num_features = channels * part.num_features
        self.num_logits = part.num_logits**channels
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        seen = [self.part(channel) for channel in image.split(1, dim=1)]
        if len(seen) != self.channels:
            raise ValueError(f"{self.name}: looks at {self.channels} channels, got {len(seen)}")
        together = seen[0][1].log_softmax(1)
        for _, logits in seen[1:]:
            together = (together[:, :, None] + logits.log_softmax(1)[:, None]).flatten(1)
        return torch.cat([features for features, _ in seen], 1), together
