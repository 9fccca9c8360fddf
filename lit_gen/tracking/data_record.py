"""Which images a run used, in a few words and a hash."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from torch import Tensor

from lit_gen.core.types import StreamData

_LOOKED_AT = 1000  # images; enough to tell data sets and splits apart, at no cost


class DataPart(NamedTuple):
    """One split of the data."""

    name: str
    digest: str  # 16 hexadecimal digits
    context: str  # "training" or "test"
    profile: dict[str, Any]


def describe_data(data: StreamData) -> tuple[DataPart, ...]:
    """Training and test images of all tasks of a stream.

    The digest is a SHA-256 over the number of images and over the pixels, labels and tasks of up to 1000 of
    them, spread evenly.
    """
    parts = []
    for split, context in (("train", "training"), ("test", "test")):
        images = data.dataset(split, range(len(data.tasks)))
        count = min(len(images), _LOOKED_AT)
        batch = images.__getitems__([place * len(images) // count for place in range(count)])
        digest = hashlib.sha256(str(len(images)).encode())
        _feed(digest, batch)
        profile: dict[str, Any] = {"num_images": len(images), **data.spec._asdict()}
        if split == "train":
            profile["tasks"] = {task.name: task.num_images for task in data.tasks}
        parts.append(DataPart(type(data).__name__, digest.hexdigest()[:16], context, profile))
    return tuple(parts)


def _feed(digest: Any, batch: Any) -> None:
    if isinstance(batch, Tensor):
        digest.update(batch.contiguous().numpy().tobytes())
    else:
        for part in batch:
            _feed(digest, part)
