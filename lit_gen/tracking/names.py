"""What a metric is called in MLflow, where charts are grouped by what stands before the last slash."""

from __future__ import annotations

import re

COMPARED = ("fid", "precision", "recall", "nll", "bits_per_dim", "accuracy", "task_accuracy")
"""The metrics whose scores on single tasks people compare between runs. Each is a group."""

_KINDS = ("mean", "forgetting", "backward_transfer", "forward_transfer", "floor", "local")


def shown_name(name: str, extractor: str | None) -> str | None:
    """The name in MLflow of what loggers are told by `name`; None of what stays in the run folder.

    `test/fid/inception/task0`, `test/mean/fid/inception` and `test/fid/inception` become `fid/task0`,
    `fid/mean` and `fid/all`. Of other metrics MLflow has the value over all tasks, `test/kid`; so too in
    `val/`. The names of training stay.

    Args:
        extractor: the run's own, which goes without saying; another one stands behind the metric,
            `fid-lenet/mean`. None: any.
    """
    if name == "epoch":
        return None
    split, *parts = name.split("/")
    if split not in ("test", "val") or not parts:
        return name
    kind = parts.pop(0) if len(parts) > 1 and parts[0] in _KINDS else ""
    task = parts.pop() if len(parts) > 1 and re.fullmatch(r"task\d+", parts[-1]) else ""
    metric, of = parts[0], "/".join(parts[1:])
    shown = metric if not of or extractor in (None, of) else f"{metric}-{of}"
    if split == "test" and metric in COMPARED and kind in ("", "mean", "forgetting"):
        return f"{shown}/{kind or task or 'all'}"
    return None if kind or task else f"{split}/{shown}"
