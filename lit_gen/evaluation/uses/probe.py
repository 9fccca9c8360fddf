"""How much of an image's class its code says: classifiers of codes, fitted on training images.

Source: Alain & Bengio 2016, "Understanding intermediate layers using linear classifier probes",
arXiv:1610.01644.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lit_gen.core.types import InputError, Positive
from lit_gen.evaluation.context import Codes, Context, only_labelled
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
    from sklearn.neighbors import KNeighborsClassifier

    linear = fitted_line(train_code, train_label)(test_code, test_label)
    train, test = scaled(train_code, train_code), scaled(test_code, train_code)
    nearest = KNeighborsClassifier(min(neighbours, len(train))).fit(train, train_label.numpy())
    return linear, float(np.mean(nearest.predict(test) == test_label.numpy()))


def fitted_line(code: Tensor, label: Tensor) -> Callable[[Tensor, Tensor], float]:
    """A linear classifier of codes [N, Z] -> (codes, labels) -> share whose class it finds."""
    from sklearn.linear_model import LogisticRegression

    linear = LogisticRegression(max_iter=_MOST_ITERATIONS).fit(scaled(code, code), label.numpy())
    if int(np.max(linear.n_iter_)) >= _MOST_ITERATIONS:
        log.warning("the linear probe has not converged in %d iterations", _MOST_ITERATIONS)
    return lambda test, truth: float(np.mean(linear.predict(scaled(test, code)) == truth.numpy()))


def mlp_accuracy(train: Codes, test: Codes, hidden: int, seed: int) -> float:
    """Share of test codes whose class a network of one hidden layer finds."""
    from sklearn.neural_network import MLPClassifier

    net = MLPClassifier((hidden,), max_iter=300, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged: it stops when it gets no better, or here
        net.fit(scaled(train.code, train.code), train.label.numpy())
    return float(np.mean(net.predict(scaled(test.code, train.code)) == test.label.numpy()))


def scaled(code: Tensor, like: Tensor) -> np.ndarray:
    """With one scale for all dimensions: those that a model does not use have next to no variance, and a
    scale of their own would blow their noise up.
    """
    return ((code - like.mean(0)) / like.std().clamp(min=1e-12)).double().numpy()
