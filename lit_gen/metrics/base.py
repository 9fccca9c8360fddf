"""What every metric over features shares: the interface, full precision, an order that no number of processes
changes.
"""

from __future__ import annotations

import logging
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.distributed
import torchmetrics
from torch import Tensor
from torchmetrics.metric import Metric

from lit_gen.metrics.task_matrix import Better

log = logging.getLogger(__name__)


class FeatureMetric(Metric):
    """A number (or several) from features of real and of generated images.

    `update` takes features [B, D] of B >= 0 images; `compute` gives scalars by name, NaN (and a warning)
    where there are too few images, or where a feature of any is infinite or NaN. A process that has no images
    at all takes part in `compute` like every other.

    Args:
        num_features: D; None takes it from the first features. Give it where several processes take part, of
            which one may have no images.

    Attributes:
        names: keys of what `compute` gives, and what is good in each.
        one_sided: those of them that keep their meaning when the real images are only a part of what the
            model was asked for (real images of one task against samples of all).
        of_classes: whether it goes by the extractor's classes, which must then be those of the images.
    """

    names: Mapping[str, Better] = {}
    one_sided: frozenset[str] = frozenset()
    of_classes = False
    full_state_update = False

    def __init__(self, num_features: int | None = None) -> None:
        super().__init__()
        self.num_features = num_features
        self._said: set[str] = set()

    @abstractmethod
    def update(
        self, features: Tensor, real: bool, index: Tensor | None = None, logits: Tensor | None = None
    ) -> None:
        """Takes in a block of images.

        Args:
            features: [B, D].
            real: whether these are real or generated images.
            index: int64 [B], place of each image among all real (or all generated) ones, the same for any
                number of processes; None counts on, which is right in one process only.
            logits: [B, K] of an extractor that classifies.
        """

    def take_statistics(self, mean: Tensor, covariance: Tensor, count: int) -> bool:
        """Takes these of the real images' features in place of any features of theirs, on every process.

        Args:
            mean, covariance: float64 [D] and [D, D].
            count: images; 0 is not known.

        Returns:
            Whether the metric needs no more.
        """
        return False

    def _checked(self, features: Tensor) -> Tensor:
        if self.num_features is None and features.ndim == 2:
            self.num_features = features.shape[1]
        if features.ndim != 2 or features.shape[1] != self.num_features:
            raise ValueError(
                f"{type(self).__name__}: features must be [B, {self.num_features}] "
                f"(num_features={self.num_features}), got {list(features.shape)}"
            )
        return features.detach().to(self.device)

    def _nothing(self, reason: str) -> dict[str, Tensor]:
        """NaN for every name, and the reason as a warning: a long run must not end in its last step."""
        self._warn(f"{reason}; {', '.join(self.names)} will be NaN")
        return {name: torch.full((), float("nan"), device=self.device) for name in self.names}

    def _warn(self, text: str) -> None:
        """Warns once per metric and kind of text, whatever its numbers, from the first process only."""
        kind = re.sub(r"\d+", "", text)
        if kind in self._said:
            return
        self._said.add(kind)
        if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
            log.warning("%s: %s", type(self).__name__, text)


class GatheringMetric(FeatureMetric):
    """A metric that needs all features at once. They are put in the order of their index before it computes,
    since subsets, splits and clusters depend on the order.

    Attributes:
        needs_logits: whether `score` is given the generated images' logits in place of features, and
            nothing real.
    """

    needs_logits = False

    def __init__(self, num_features: int | None = None) -> None:
        super().__init__(num_features)
        for name in ("real", "real_index", "fake", "fake_index"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self, features: Tensor, real: bool, index: Tensor | None = None, logits: Tensor | None = None
    ) -> None:
        features = self._checked(features)
        if self.needs_logits:
            if real:
                return
            features = features[:, :0] if logits is None else logits.detach().to(self.device)
        values, places = (self.real, self.real_index) if real else (self.fake, self.fake_index)
        if index is None:
            index = torch.arange(len(features)) + sum(map(len, places))
        if len(index) != len(features):
            raise ValueError(f"{type(self).__name__}: {len(features)} images but {len(index)} indices")
        values.append(features.float())
        places.append(index.to(self.device, torch.long))

    def compute(self) -> dict[str, Tensor]:
        with full_precision(self.device):
            real, fake = _ordered(self.real, self.real_index), _ordered(self.fake, self.fake_index)
            for kind, rows in (("real", real), ("generated", fake)):
                bad = int((~rows.isfinite()).any(dim=1).sum()) if rows.numel() else 0
                if bad:
                    return self._nothing(
                        f"{bad} of {len(rows)} {kind} images have features that are not finite"
                    )
            return {name: value.to(self.device) for name, value in self.score(real, fake).items()}

    @abstractmethod
    def score(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """float32 [N, D] and [M, D], in the order of their index and free to be written into -> scalars."""

    def sync(self, *args, **kwargs) -> None:
        """As torchmetrics' own, but a process without images gathers with the others; shapes must agree."""
        if not self._is_synced:
            width = self._width()
            for values, places in ((self.real, self.real_index), (self.fake, self.fake_index)):
                if not len(values):
                    values.append(torch.empty(0, width, device=self.device))
                    places.append(torch.empty(0, dtype=torch.long, device=self.device))
        super().sync(*args, **kwargs)

    def _width(self) -> int:
        if not self.needs_logits:
            return self.num_features or 0
        return max((block.shape[1] for block in (*self.real, *self.fake)), default=0)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Inside, float32 products are float32 products: no autocast, no TF32."""
    kept = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(kept)


def _ordered(blocks: Tensor | Sequence[Tensor], places: Tensor | Sequence[Tensor]) -> Tensor:
    """Rows of all blocks by ascending place, in one copy (a cat and then a sort would need two)."""
    blocks = [blocks] if isinstance(blocks, Tensor) else list(blocks)
    if not blocks:
        return torch.empty(0, 0)
    index = torchmetrics.utilities.dim_zero_cat(places)
    row = torch.empty_like(index)
    row[index.argsort(stable=True)] = torch.arange(len(index), device=index.device)
    width = max(block.shape[1] for block in blocks)
    rows = torch.empty(len(index), width, device=index.device)
    start = 0
    for block in blocks:
        if len(block):
            rows[row[start : start + len(block)]] = block
            start += len(block)
    return rows
