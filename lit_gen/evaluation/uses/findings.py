"""What every use gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

Line = Mapping[str, float | int | str]


class Findings(NamedTuple):
    """What a use found.

    Attributes:
        table: the result, a few lines with the same columns.
        rows: what the table was made from, such as one line per image; none: the table is all there is.
        picture: uint8 [H, W, C].
        images: uint8 [N, C, S, S], for a folder.
    """

    table: list[Line]
    rows: Sequence[Line] = ()
    picture: Tensor | None = None
    images: Tensor | None = None
