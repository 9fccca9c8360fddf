"""Means over the images of all processes."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gen.core.processes import summed, united
from lit_gen.core.types import Terms


class Means:
    """Means of terms over images, over all processes.

    Sums and numbers of images are added up, and divided once, so that how images are dealt to batches and
    processes does not matter. A process may have noted nothing.

    Attributes:
        images: that the latest means are over; of names that differ in it the largest number.
    """

    def __init__(self) -> None:
        self.images = 0
        self._noted: list[tuple[Terms, int | Tensor]] = []
        self._totals: dict[str, Tensor] = {}  # float64 [2], sum and number

    def note(self, terms: Terms, images: int | Tensor) -> None:
        """Keeps terms, each a mean over so many images, without waiting for the device."""
        if terms:
            self._noted.append(({name: value.detach() for name, value in terms.items()}, images))

    def latest(self, device: torch.device) -> dict[str, float]:
        """Means of what was noted since the last call; not a number over no images. Collective.

        Args:
            device: where processes exchange tensors.
        """
        names = united({name for terms, _ in self._noted for name in terms})
        table = torch.zeros(len(names), 2, dtype=torch.float64)
        for row, name in zip(table, names, strict=True):
            found = [(terms[name], n) for terms, n in self._noted if name in terms]
            if found:
                values = torch.stack([value for value, _ in found]).cpu().double()
                weights = torch.stack([torch.as_tensor(images) for _, images in found]).cpu().double()
                row[0], row[1] = values @ weights, weights.sum()
        self._noted = []
        if not names:
            return {}
        table = summed(table.to(device)).cpu() if device.type == "cuda" else summed(table)
        self.images = int(table[:, 1].max())
        for name, row in zip(names, table, strict=True):
            self._totals[name] = self._totals.get(name, 0) + row
        return {name: float(row[0] / row[1]) for name, row in zip(names, table, strict=True)}

    def all(self) -> dict[str, float]:
        """Means of all that `latest` has given so far."""
        return {name: float(total[0] / total[1]) for name, total in self._totals.items()}
