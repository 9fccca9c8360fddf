"""Where a diffusion model's representations say the class: probes for every time and depth.

Sources: Alain & Bengio 2016, arXiv:1610.01644 (probes); Deja et al. 2023, "Learning data representations with
joint diffusion models", arXiv:2301.13622 (pooled features of a U-Net).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lit_gen.core.random import Use
from lit_gen.core.types import Batch, Diffuses, Fraction, InputError, Positive
from lit_gen.evaluation.context import Codes, Context, only_labelled
from lit_gen.evaluation.plots import heat_maps
from lit_gen.evaluation.uses.findings import Findings
from lit_gen.evaluation.uses.probe import accuracies, mlp_accuracy


@dataclass(frozen=True)
class StepProbes:
    """Accuracy on test images of a linear and of an MLP probe of the U-Net's features, averaged over pixels,
    with the noise of several times on the images.

    Attributes:
        n: training images.
        n_test: test images.
        times: parts of the path that are looked at.
        hidden: units of the MLP's layer; it is fitted by Adam.
    """

    n: Positive = 2000
    n_test: Positive = 1000
    times: tuple[Fraction, ...] = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
    hidden: Positive = 128

    def __call__(self, context: Context) -> Findings:
        model = context.promised(Diffuses)
        table, linear, curved = [], [], []
        for part in self.times:
            t = max(float(model.path.at(torch.tensor(part, dtype=torch.float64))), _earliest(model))
            train, test = (
                _features(context, t, split, count)
                for split, count in (("train", self.n), ("test", self.n_test))
            )
            found = []
            for block, codes in train.items():
                known = torch.isin(test[block].label, codes.label.unique())
                fresh = test[block].only(known)
                if len(codes.label.unique()) < 2 or len(fresh.label) == 0:
                    raise InputError(f"{context.name}: a probe needs images of two classes at least")
                line, _ = accuracies(codes.code, codes.label, fresh.code, fresh.label, 1)
                curve = mlp_accuracy(codes, fresh, self.hidden, context.seed)
                found.append((line, curve))
                table.append(
                    {
                        "part": part,
                        "t": t,
                        "block": block,
                        "size": codes.code.shape[1],
                        "linear": line,
                        "mlp": curve,
                    }
                )
            linear.append([line for line, _ in found])
            curved.append([curve for _, curve in found])
        maps = {"linear probe": (torch.tensor(linear), False), "MLP probe": (torch.tensor(curved), False)}
        names = (list(train), [f"{part:g}" for part in self.times])
        return Findings(table, picture=heat_maps(maps, ("block", "part of the path"), names))


def _features(context: Context, t: float, split: str, most: int) -> dict[str, Codes]:
    """Labelled images' features by block."""
    model, images = context.promised(Diffuses), context.images(split)
    places, blocks = context.choose(len(images), most), []

    def question(batch: Batch) -> tuple[Tensor, ...]:
        found = model.features(batch, t)
        blocks[:] = list(found)
        return batch.label, batch.task, batch.index, *found.values()

    label, task, index, *codes = context.ask(question, images, places, Use.NOISE, round(1000 * t))
    return {
        block: only_labelled(context, Codes(code, label, task, index), split)
        for block, code in zip(blocks, codes, strict=True)
    }


def _earliest(model: Diffuses) -> float:
    """The first time at which the network was trained: a chain's first step, or as good as no noise."""
    return 1.0 if hasattr(model.path, "num_steps") else 1e-3 * model.path.end
