"""What draws images from a trained model in another way than its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from lit_gen.core.module import LitGenerator


class Sampler(Protocol):
    """Settings of drawing that no weights depend on: they may be others on a checkpoint than in training."""

    def check(self, model: LitGenerator) -> None:
        """Raises ValueError for a model from which it cannot draw."""

    def __call__(
        self, model: LitGenerator, n: int, *, label: Tensor | None = None, task: Tensor | None = None
    ) -> Tensor:
        """Images as `LitGenerator.sample` promises them; it has checked the conditions."""
