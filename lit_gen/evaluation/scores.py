"""What a scoring callback hands to whoever keeps the record."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable


class Score(NamedTuple):
    """One number about generated images, with all that is needed to know what it means."""

    on_task: int | None  # None: all tasks seen so far
    metric: str  # "fid"; "floor_fid" compares real training images with the real images instead
    value: float  # NaN where there were too few images
    extractor: str  # empty where there is none
    extractor_hash: str
    split: str  # "val" or "test"
    num_real: int
    num_fake: int
    seed: int


def kind_of(metric: str, extractor: str) -> str:
    """What a score is called: "fid/inception", or the metric alone where no extractor took part."""
    return f"{metric}/{extractor}" if extractor else metric


@runtime_checkable
class ReportsScores(Protocol):
    """Has the scores of its latest pass, the same on every process."""

    scores: list[Score]
