"""How long each phase of each task trained, and on how many images."""

from __future__ import annotations

import time
from typing import Any


class PhaseTimes:
    """A stopwatch per (task, phase) that stands still during validation."""

    def __init__(self) -> None:
        self._totals: dict[tuple[int, str], list[float]] = {}  # images, seconds
        self._current: list[float] = [0, 0.0]
        self._since: float | None = None
        self._images = 0

    def enter(self, task: int, phase: str) -> None:
        """The clock of this phase runs from now on."""
        self._current = self._totals.setdefault((task, phase), [0, 0.0])
        self._images = 0
        self.go()

    def go(self) -> None:
        if self._since is None:
            self._since = time.monotonic()

    def stop(self, processes: int = 1) -> None:
        """The clock stands still; images counted here since the last stop count once for each process."""
        if self._since is not None:
            self._current[1] += time.monotonic() - self._since
            self._since = None
        self._current[0] += self._images * processes
        self._images = 0

    def count(self, images: int) -> None:
        self._images += images

    def state(self) -> list[list[Any]]:
        """Plain lists, for a checkpoint."""
        return [[task, phase, *total] for (task, phase), total in self._totals.items()]

    def load(self, state: list[list[Any]]) -> None:
        self._totals = {(task, phase): [images, seconds] for task, phase, images, seconds in state}
        self._since = None

    def report(self) -> list[dict[str, Any]]:
        """One entry per phase of every task, in the order they were trained."""
        return [
            {
                "task": task,
                "phase": phase,
                "images": int(images),
                "seconds": round(seconds, 3),
                "images_per_second": round(images / seconds, 1) if seconds > 0 else None,
            }
            for (task, phase), (images, seconds) in self._totals.items()
        ]
