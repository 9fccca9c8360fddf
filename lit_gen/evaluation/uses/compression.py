"""What is lost when an image is kept as its code: distortion against the size of the code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lit_gen.evaluation.plots import panels
from lit_gen.evaluation.subject import Encodes, Findings, Subject, peak_ratio
from lit_gen.evaluation.uses.reconstruction import reconstruction_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Compression:
    """One row per checkpoint, smallest code first, and a curve per kind of model.

    The error is that of all test images of the tasks seen; the ratio counts numbers in an image per number in
    its code.
    """

    def __call__(self, subjects: Sequence[Subject]) -> Findings:
        table = sorted(map(_row, subjects), key=lambda row: (row["latent_size"], row["mse"]))
        return Findings(table, picture=_curves(table))


def _row(subject: Subject) -> dict[str, float | int | str]:
    model, images = subject.promised(Encodes), subject.images("test")
    first = subject.load(images, torch.tensor([0]))
    with torch.no_grad():
        latent_size = model.encode(first).flatten(1).shape[1]
    error = float(reconstruction_errors(subject).mean())
    return {
        "run": subject.name,
        "kind": subject.kind,
        "latent_size": latent_size,
        "ratio": prod(first.image.shape[1:]) / latent_size,
        "mse": error,
        "psnr": peak_ratio(error),
    }


def _curves(table: Sequence[dict[str, float | int | str]]) -> Tensor:
    kinds = list(dict.fromkeys(row["kind"] for row in table))

    def curve(key: str, name: str, axes: Axes) -> None:
        for kind in kinds:
            rows = [row for row in table if row["kind"] == kind]
            axes.plot([row["latent_size"] for row in rows], [row[key] for row in rows], "o-", label=kind)
        sizes = sorted({row["latent_size"] for row in table})
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, list(map(str, sizes)))
        axes.minorticks_off()
        axes.set_xlabel("latent size")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)

    return panels(
        [
            lambda axes: curve("mse", "squared error per pixel", axes),
            lambda axes: curve("psnr", "PSNR, dB", axes),
        ],
        4.6,
        3.8,
    )
