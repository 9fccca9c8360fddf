"""Images that a model gives back, and what that loses: by eye, and against the size of the code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from lit_gen.core.types import Positive, Restores
from lit_gen.evaluation.context import Context, peak_ratio, pixel_error
from lit_gen.evaluation.plots import lines, strips
from lit_gen.evaluation.uses.findings import Findings, Line


@dataclass(frozen=True)
class Reconstruction:
    """A grid of test images, each above its reconstruction; the error is that of all test images.

    Attributes:
        n: images in the grid.
        columns: of it.
    """

    n: Positive = 64
    columns: Positive = 16

    def __call__(self, context: Context) -> Findings:
        model, images = context.promised(Restores), context.images("test")
        places = context.choose(len(images), self.n)
        shown = context.ask(lambda b: (b.image, model.reconstruct(b)), images, places)
        table = [{"images": len(images), **distortion(context)}]
        return Findings(table, picture=pairs_of_rows(shown, self.columns))


@dataclass(frozen=True)
class Compression:
    """What is lost when an image is kept as its code.

    One row per checkpoint, smallest code first, and a curve per kind of model. The error is that of all test
    images of the tasks seen; the ratio counts numbers in an image per number in its code.
    """

    def __call__(self, contexts: Sequence[Context]) -> Findings:
        table = sorted(map(_row, contexts), key=lambda row: (row["latent_size"], row["mse"]))
        kinds = dict.fromkeys(row["kind"] for row in table)
        panels = {
            name: {
                kind: [(row["latent_size"], row[key]) for row in table if row["kind"] == kind]
                for kind in kinds
            }
            for key, name in (("mse", "squared error per pixel"), ("psnr", "PSNR, dB"))
        }
        return Findings(table, picture=lines("latent size", panels, in_powers=True))


def _row(context: Context) -> Line:
    latent_size = context.codes("test", places=torch.tensor([0])).code.shape[1]
    sizes = {"latent_size": latent_size, "ratio": prod(context.data.spec.shape) / latent_size}
    return {"run": context.name, "kind": context.kind, **sizes, **distortion(context)}


def distortion(context: Context) -> dict[str, float]:
    """What is lost in reconstructions of all test images: mean squared error per pixel, and PSNR in dB."""
    model = context.promised(Restores)
    (error,) = context.ask(lambda b: (pixel_error(model.reconstruct(b), b.image),), context.images("test"))
    mean = float(error.mean())
    return {"mse": mean, "psnr": peak_ratio(mean)}


def pairs_of_rows(versions: tuple[Tensor, ...], columns: int) -> Tensor:
    """Versions of the same images, float32 [N, C, S, S] each, one below the other in rows of `columns`; what
    is missing in the last row is white.
    """
    count = len(versions[0])
    columns = min(columns, count)
    white = torch.ones(-count % columns, *versions[0].shape[1:])
    split = [torch.cat((version, white)).split(columns) for version in versions]
    return strips([row for group in zip(*split, strict=True) for row in group])
