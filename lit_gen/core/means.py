"""Means over the images of all processes."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gen.core.processes import summed
from lit_gen.core.types import Terms


class Means:
    """Means of terms over images, over all processes.

    Sums and numbers of images are added up, and divided once, so that how images are dealt to batches and
    processes does not matter. Every process notes the same names.
    """

    def __init__(self) -> None:
        self._noted: list[tuple[Terms, int]] = []
        self._totals: dict[str, Tensor] = {}  # float64 [2], sum and number

    def note(self, terms: Terms, images: int) -> None:
        """Keeps terms, each a mean over so many images, without waiting for the device."""
        if terms:
            self._noted.append(({name: value.detach() for name, value in terms.items()}, images))

    def latest(self, device: torch.device) -> dict[str, float]:
        """Means of what was noted since the last call. Collective, once.

        Args:
            device: where processes exchange tensors.
        """
        names = sorted({name for terms, _ in self._noted for name in terms})
        table = torch.zeros(len(names), 2, dtype=torch.float64)
        for row, name in zip(table, names, strict=True):
            values, images = zip(
                *((terms[name], n) for terms, n in self._noted if name in terms), strict=True
            )
            weights = torch.tensor(images, dtype=torch.float64)
            row[0], row[1] = torch.stack(values).cpu().double() @ weights, weights.sum()
        self._noted = []
        if not names:
            return {}
        table = summed(table.to(device)).cpu() if device.type == "cuda" else summed(table)
        for name, row in zip(names, table, strict=True):
            self._totals[name] = self._totals.get(name, 0) + row
        return {name: float(row[0] / row[1]) for name, row in zip(names, table, strict=True)}

    def all(self) -> dict[str, float]:
        """Means of all that `latest` has given so far."""
        return {name: float(total[0] / total[1]) for name, total in self._totals.items()}
