"""What is lost when an image is kept as its code: distortion against the size of the code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch

from lit_gen.evaluation.context import Context
from lit_gen.evaluation.plots import curves
from lit_gen.evaluation.uses.findings import Findings, Line
from lit_gen.evaluation.uses.reconstruction import distortion


@dataclass(frozen=True)
class Compression:
    """One row per checkpoint, smallest code first, and a curve per kind of model.

    The error is that of all test images of the tasks seen; the ratio counts numbers in an image per number in
    its code.
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
        return Findings(table, picture=curves("latent size", panels))


def _row(context: Context) -> Line:
    latent_size = context.codes("test", places=torch.tensor([0])).code.shape[1]
    sizes = {"latent_size": latent_size, "ratio": prod(context.data.spec.shape) / latent_size}
    return {"run": context.name, "kind": context.kind, **sizes, **distortion(context)}
