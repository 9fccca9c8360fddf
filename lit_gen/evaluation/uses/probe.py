"""How much of an image's class its code says: classifiers of codes, fitted on training images.

Source: Alain & Bengio 2016, "Understanding intermediate layers using linear classifier probes",
arXiv:1610.01644.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lit_gen.core.types import InputError, Positive
from lit_gen.evaluation.context import Context, only_labelled
from lit_gen.evaluation.uses.findings import Findings

log = logging.getLogger(__name__)

_MOST_ITERATIONS = 2000


@dataclass(frozen=True)
class Probe:
    """Accuracy on test codes of a linear classifier and of the vote of the nearest training codes.

    Classes without training images, and images without a label, take no part.

    Attributes:
        n: training codes at most.
        neighbours: that vote.
    """

    n: Positive = 10_000
    neighbours: Positive = 5

    def __call__(self, context: Context) -> Findings:
        train = only_labelled(context, context.codes("train", self.n), "training")
        test = only_labelled(context, context.codes("test"), "test")
        test = test.only(torch.isin(test.label, train.label.unique()))
        if len(train.label.unique()) < 2 or len(test.label) == 0:
            raise InputError(f"{context.name}: a probe needs images of two classes at least")
        linear, nearest = accuracies(train.code, train.label, test.code, test.label, self.neighbours)
        row = {
            "train_codes": len(train.code),
            "test_codes": len(test.code),
            "latent_size": train.code.shape[1],
            "linear_accuracy": linear,
            "knn_accuracy": nearest,
        }
        return Findings([row])


def accuracies(
    train_code: Tensor, train_label: Tensor, test_code: Tensor, test_label: Tensor, neighbours: int
) -> tuple[float, float]:
    """Codes [N, Z] and labels [N] -> shares of test codes whose class the line and the vote find."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    # One scale for all dimensions: those that a model does not use have next to no variance, and a scale of
    # their own would blow their noise up.
    centre, scale = train_code.mean(0), train_code.std().clamp(min=1e-12)
    train, test = (((code - centre) / scale).double().numpy() for code in (train_code, test_code))
    linear = LogisticRegression(max_iter=_MOST_ITERATIONS).fit(train, train_label.numpy())
    if int(np.max(linear.n_iter_)) >= _MOST_ITERATIONS:
        log.warning("the linear probe has not converged in %d iterations", _MOST_ITERATIONS)
    nearest = KNeighborsClassifier(min(neighbours, len(train))).fit(train, train_label.numpy())
    linear_share, nearest_share = (
        float(np.mean(fitted.predict(test) == test_label.numpy())) for fitted in (linear, nearest)
    )
    return linear_share, nearest_share
