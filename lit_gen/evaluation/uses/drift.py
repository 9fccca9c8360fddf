"""How a model's representations change when it is trained on with more data: of any model that encodes.

Sources: Kornblith et al. 2019, arXiv:1905.00414, eq. 5 (linear CKA); Davari et al. 2022, arXiv:2203.13381
(probes across tasks).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lit_gen.core.types import InputError, Positive
from lit_gen.evaluation.context import Codes, Context, only_labelled
from lit_gen.evaluation.plots import lines
from lit_gen.evaluation.uses.findings import Findings
from lit_gen.evaluation.uses.probe import fitted_line


@dataclass(frozen=True)
class Drift:
    """Codes of the same images from several checkpoints of a run, one compared with the next.

    All look at the test images of the tasks that the first of them had seen. `cka` is linear CKA, 1 where
    codes are the same up to rotation and scale; `shift` the mean distance that a code moved, over the mean
    distance of codes from their mean; `own` the accuracy of a linear probe on the earlier checkpoint's codes,
    `kept` that of the same probe on the later codes, and `new` that of a probe fitted to those.

    Attributes:
        n: images at most, half of them for fitting probes.
    """

    n: Positive = 2000

    def __call__(self, contexts: Sequence[Context]) -> Findings:
        if len(contexts) < 2:
            raise InputError(
                "ckpt=: drift compares checkpoints; give two at least, such as "
                "ckpt=RUN/checkpoints/task-0.ckpt,RUN/checkpoints/task-1.ckpt"
            )
        contexts = sorted(contexts, key=lambda context: context.num_seen)
        first = contexts[0]
        places = first.choose(len(first.images("test")), self.n)
        codes = []
        for context in contexts:
            seen = Context(context.model, context.data, first.num_seen, context.name, seed=first.seed)
            found = only_labelled(context, seen.codes("test", places=places), "test")
            if codes and not torch.equal(found.index, codes[0].index):
                raise InputError(f"{context.name}: its test images are not those of {first.name}")
            codes.append(found)
        table = [
            {"from": before.name, "to": after.name, **_compared(*two)}
            for (before, after), two in zip(pairwise(contexts), pairwise(codes), strict=True)
        ]
        names = ("cka", "shift", "own", "kept", "new")
        panels = {
            "similarity and accuracy": {
                name: [(place + 1, row[name]) for place, row in enumerate(table)] for name in names
            }
        }
        return Findings(table, picture=lines("step from checkpoint to checkpoint", panels))


def linear_cka(a: Tensor, b: Tensor) -> float:
    """[N, D] and [N, E] -> 0 to 1; NaN where codes do not vary."""
    a, b = (codes.double() - codes.double().mean(0) for codes in (a, b))
    both = torch.linalg.matrix_norm(a.T @ b).square()
    alone = torch.linalg.matrix_norm(a.T @ a) * torch.linalg.matrix_norm(b.T @ b)
    return float(both / alone) if alone > 0 else math.nan


def _compared(before: Codes, after: Codes) -> dict[str, float]:
    half = len(before.label) // 2
    row = {"images": len(before.label), "cka": linear_cka(before.code, after.code)}
    row["shift"] = row["own"] = row["kept"] = row["new"] = math.nan
    if before.code.shape != after.code.shape:
        return row
    spread = (before.code - before.code.mean(0)).norm(dim=1).mean().clamp(min=1e-12)
    row["shift"] = float((after.code - before.code).norm(dim=1).mean() / spread)
    if len(before.label[:half].unique()) > 1:
        old = fitted_line(before.code[:half], before.label[:half])
        new = fitted_line(after.code[:half], after.label[:half])
        label = before.label[half:]
        row["own"], row["kept"] = old(before.code[half:], label), old(after.code[half:], label)
        row["new"] = new(after.code[half:], label)
    return row
