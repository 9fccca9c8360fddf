"""What each dimension of the code says: it is moved while the others stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt

from lit_gen.core.types import HasCodes, InputError, NonNegative, Positive
from lit_gen.evaluation.context import Context, pixel_error
from lit_gen.evaluation.plots import strips
from lit_gen.evaluation.uses.findings import Findings


@dataclass(frozen=True)
class Traversal:
    """A strip per code dimension, around the code of one test image, which an odd number of steps shows in
    the middle.

    Attributes:
        image: its place among the test images of the tasks seen.
        dimensions: the first so many.
        width: a dimension moves by so many of its own standard deviations to both sides.
        steps: images in a strip.
        n: test images from which the standard deviations are taken, at most.
    """

    image: NonNegative = 0
    dimensions: Positive = 10
    width: Annotated[float, Gt(0)] = 3.0
    steps: Annotated[int, Ge(2)] = 9
    n: Annotated[int, Ge(2)] = 2000

    def __call__(self, context: Context) -> Findings:
        context.promised(HasCodes)
        count = len(context.images("test"))
        if self.image >= count:
            raise InputError(f"image={self.image}: there are test images 0 to {count - 1}")
        spread = context.codes("test", self.n).code.std(0)
        centre = context.codes("test", places=torch.tensor([self.image]))
        rows, table = [], []
        for dimension in range(min(self.dimensions, len(spread))):
            distance = float(spread[dimension]) * self.width
            code = centre.code.repeat(self.steps, 1)
            code[:, dimension] += torch.linspace(-distance, distance, self.steps)
            same = [part.expand(self.steps, *part.shape[1:]) for part in (centre.label, centre.task)]
            shown = context.decoded(code, *same)
            rows.append(shown)
            change = pixel_error(shown[-1:], shown[:1])
            table.append({"dimension": dimension, "std": float(spread[dimension]), "change": float(change)})
        return Findings(table, picture=strips(rows))
