"""Images unlike those a model was trained on: those that it reconstructs badly or finds unlikely.

Source: An & Cho 2015, "Variational autoencoder based anomaly detection using reconstruction probability"; the
protocol of one held-out class as in Zenati et al. 2018, arXiv:1802.06222.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lit_gen.core.types import Batch, InputError, Likelihood, NonNegative, Positive, Restores
from lit_gen.evaluation.context import Context, pixel_error
from lit_gen.evaluation.plots import histograms
from lit_gen.evaluation.tables import lines_of
from lit_gen.evaluation.uses.findings import Findings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Anomaly:
    """A score for every test image, higher for stranger ones, and how well it tells classes apart that the
    model should find strange: the area under the ROC curve, 0.5 for guessing.

    Attributes:
        held_out: these classes against all others; none given: those the model was never trained on.
        score: reconstruction: squared error per pixel; likelihood: minus the log-likelihood in nats.
        draws: for each likelihood.
    """

    held_out: NonNegative | list[NonNegative] | None = None
    score: Literal["reconstruction", "likelihood"] = "reconstruction"
    draws: Positive = 50

    def __call__(self, context: Context) -> Findings:
        score_of, axis_name = self._score(context)
        images = context.data.dataset("test", range(len(context.data.tasks)))
        score, label, index = context.ask(lambda b: (score_of(b), b.label, b.index), images)
        if label.ndim > 1 or (label < 0).all():
            raise InputError(f"{context.name}: its test images have no classes to hold out")
        if not score.isfinite().all():
            raise InputError(f"{context.name}: some scores are no numbers; has its training diverged?")
        held_out = self._held_out(context, label)
        is_strange = torch.isin(label, torch.tensor(held_out))
        usual = score[~is_strange & (label >= 0)]
        table = []
        for kinds in [held_out, *([[kind] for kind in held_out] if len(held_out) > 1 else [])]:
            strange = score[torch.isin(label, torch.tensor(kinds))]
            table.append(
                {
                    "held_out": " ".join(map(str, kinds)),
                    "images": len(strange),
                    "others": len(usual),
                    "auc": roc_auc(usual, strange),
                    "score": float(strange.mean()),
                    "score_of_others": float(usual.mean()),
                }
            )
        name = f"class {', '.join(map(str, held_out))}"
        title = f"{context.name}: AUC {table[0]['auc']:.3f}"
        picture = histograms({"other classes": usual, name: score[is_strange]}, axis_name, title)
        return Findings(table, lines_of(index=index, label=label, score=score), picture)

    def _score(self, context: Context) -> tuple[Callable[[Batch], Tensor], str]:
        """How strange each image of a batch is, [B], and what that number is called."""
        if self.score == "likelihood":
            likely = context.promised(Likelihood)
            return lambda batch: -likely.log_likelihood(batch, self.draws), "-log p(x), nats"
        model = context.promised(Restores)
        return lambda batch: pixel_error(model.reconstruct(batch), batch.image), "squared error per pixel"

    def _held_out(self, context: Context, label: Tensor) -> list[int]:
        """The classes that count as strange.

        Raises:
            InputError: there are none among the test images, or nothing else.
        """
        present = label[label >= 0].unique().tolist()
        tasks = context.data.tasks[: context.num_seen]
        never = [kind for kind in present if not any(task.label_counts[kind] for task in tasks)]
        given = [self.held_out] if isinstance(self.held_out, int) else self.held_out
        chosen = sorted(set(given or never))
        if not chosen:
            raise InputError(
                f"{context.name}: it was trained on every class, so say which one is held out "
                "(held_out=3), or train one without it: lit-gen train ... data.without_classes=[3]"
            )
        unknown = sorted(set(chosen) - set(present))
        if unknown or len(chosen) == len(present):
            raise InputError(
                f"held_out={chosen}: the test images have the classes {', '.join(map(str, present))}; hold "
                "out some of them, not all (held_out=3)"
            )
        seen = sorted(set(chosen) - set(never))
        if seen:
            log.warning("%s: class %s was trained on", context.name, ", ".join(map(str, seen)))
        return chosen


def roc_auc(usual: Tensor, strange: Tensor) -> float:
    """The chance that a strange image has a higher score than a usual one; a tie counts half."""
    # Imported here, since it takes a second and most of the command line never needs it.
    from sklearn.metrics import roc_auc_score

    is_strange = np.r_[np.zeros(len(usual)), np.ones(len(strange))]
    return float(roc_auc_score(is_strange, torch.cat((usual, strange)).double().numpy()))
