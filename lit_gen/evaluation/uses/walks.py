"""Ways through the latent space: from one test image to another, and along single dimensions of the code.

Source of the spherical way: Shoemake 1985, "Animating rotation with quaternion curves"; for latent codes
White 2016, arXiv:1609.04468.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from lit_gen.core.types import HasCodes, InputError, NonNegative, Positive
from lit_gen.evaluation.context import Context, pixel_error
from lit_gen.evaluation.plots import strips
from lit_gen.evaluation.uses.findings import Findings

_PARALLEL = 1e-4  # radians; below it (and as close to opposite) there is no arc to walk along


@dataclass(frozen=True)
class Interpolation:
    """A strip per pair of test images: the first one, the images on the way between both codes, the second.

    A model with a condition is told the label and task of the nearer end.

    Attributes:
        pairs: how many.
        steps: images on the way, those of both ends' codes included.
        way: linear; spherical, along which the length of the code is in proportion too; or both.
    """

    pairs: Positive = 6
    steps: Annotated[int, Ge(2)] = 10
    way: Literal["linear", "spherical", "both"] = "both"

    def __call__(self, context: Context) -> Findings:
        model, images = context.promised(HasCodes), context.images("test")
        if len(images) < 2:
            raise InputError(f"{context.name}: interpolation needs two test images, there is one")
        places = context.choose(len(images), 2 * self.pairs)
        pairs = len(places) // 2
        code, image, label, task = context.ask(
            lambda b: (model.encode(b).flatten(1), b.image, b.label, b.task), images, places[: 2 * pairs]
        )
        walks = {"linear": linear, "spherical": spherical}
        ways = [self.way] if self.way != "both" else list(walks)
        shares = torch.linspace(0, 1, self.steps)
        nearer = torch.where(shares < 0.5, 0, 1)
        rows, changes = [], {name: [] for name in ways}
        for pair in range(pairs):
            ends = [2 * pair, 2 * pair + 1]
            for name in ways:
                walk = walks[name](*code[ends], shares)
                shown = context.decoded(walk, label[ends][nearer], task[ends][nearer])
                rows.append(torch.cat([image[ends[:1]], shown, image[ends[1:]]]))
                changes[name].append(pixel_error(shown[1:], shown[:-1]))
        table = []
        for name in ways:
            change = torch.stack(changes[name])
            row = {"way": name, "pairs": pairs, "steps": self.steps, "mean_change": float(change.mean())}
            table.append({**row, "largest_change": float(change.amax(1).mean())})
        return Findings(table, picture=strips(rows))


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


def linear(first: Tensor, second: Tensor, shares: Tensor) -> Tensor:
    """Codes [Z] twice and shares [T] in [0, 1] -> [T, Z]; exact at both ends."""
    return torch.lerp(first.expand(len(shares), -1), second.expand(len(shares), -1), shares[:, None])


def spherical(first: Tensor, second: Tensor, shares: Tensor) -> Tensor:
    """As `linear`, but along the arc between both directions, while the length changes evenly.

    Codes that point the same or opposite ways have no such arc and are joined by a line.
    """
    lengths = torch.stack((first.norm(), second.norm()))
    cosine = torch.dot(first, second) / lengths.prod().clamp(min=1e-30)
    angle = cosine.double().clamp(-1, 1).acos()
    straight = linear(first, second, shares)
    if lengths.min() == 0 or angle < _PARALLEL or angle > torch.pi - _PARALLEL:
        return straight
    share = shares.double()[:, None]
    ends = first.double() / first.double().norm(), second.double() / second.double().norm()
    direction = (ends[0] * ((1 - share) * angle).sin() + ends[1] * (share * angle).sin()) / angle.sin()
    length = first.double().norm() * (1 - share) + second.double().norm() * share
    at_an_end = (shares == 0) | (shares == 1)
    return torch.where(at_an_end[:, None], straight, (direction * length).to(first.dtype))
