"""What is made of a run's rows: the picture of the matrices, published figures beside ours, a warning."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from lit_gen.core.types import Fraction, InputError
from lit_gen.evaluation.board import Board, Row
from lit_gen.evaluation.plots import heat_maps
from lit_gen.evaluation.tables import as_text

_DRAWN = ("fid", "precision", "recall", "accuracy", "task_accuracy")
_ABOUT = ("source", "extractor")  # of published figures; words, not figures
# Published in percent.
_SHARES = ("prd_precision", "prd_recall", "precision", "recall", "accuracy", "task_accuracy")


def matrix_picture(board: Board) -> Tensor | None:
    """Heat maps of the main matrices, uint8 [H, W, 3]; None while there is no number in any of them."""
    panels = {}
    for metric, extractor in board.kinds():
        matrix, better = board.matrix(metric, extractor), board.better.get(metric, "")
        if metric in _DRAWN and not matrix.isnan().all():
            name = f"{metric} ({extractor})" if extractor else metric
            words = textwrap.fill(board.in_words(metric, extractor), 44)
            panels[f"{name}\n{words}"] = (matrix, better == "lower")
    return heat_maps(panels) if panels else None


def beside_published(
    rows: Sequence[Row], published: Mapping[str, float | str], single_task: bool = False
) -> str:
    """Our figures, means over tasks after the last one, and the published ones: a line for each of these.

    Shares are in percent, as they are published. Distances and shares mean something else with other weights
    of the extractor: ours stand beside the published ones only where both are those of the same weights, else
    in a column of their own.

    Args:
        published: figures by metric ("fid", "prd_precision", ...); "source", which says where they were found
            and what they were measured with; and "extractor", the hash of the weights they were measured
            with. Without it they compare with nothing of ours, as where the protocol is another one.
        single_task: the scores of all tasks together are those of the only one.
    """
    lines, apart = [], False
    for name, value in check_published(published).items():
        factor = 100 if name in _SHARES else 1
        values: dict[tuple[str, str], list[float]] = {}
        for row in rows:
            if row.metric == name and row.split == "test" and (row.on_task is not None or single_task):
                values.setdefault((row.extractor, row.extractor_hash), []).append(row.value)
        for (extractor, weights_hash), some in (values or {("", ""): [math.nan]}).items():
            ours = factor * sum(some) / len(some)
            text = "-" if math.isnan(ours) else f"{ours:.1f}"
            alike = not extractor or weights_hash == str(published.get("extractor"))
            apart = apart or not alike
            lines.append(
                {"mean over tasks": name, "published": f"{value:g}", "ours": text if alike else ""}
                | {"ours, not comparable": "" if alike else text}
                | {"measured with": f"{extractor} ({weights_hash})" if extractor else "-"}
            )
    notes = [f"published: {published.get('source', '')}"]
    if apart:
        notes.append(
            "Not comparable: measured with another extractor, or in another way, than the published figures."
        )
    return "\n".join([as_text(lines), *notes])


def check_published(published: Mapping[str, float | str]) -> dict[str, float]:
    """The figures alone.

    Raises:
        InputError: one is no number, or the extractor is no hash.
    """
    figures = {name: value for name, value in published.items() if name not in _ABOUT}
    for name, value in figures.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"published.{name}={value!r}: a published figure is a number")
    weights_hash = published.get("extractor")
    if weights_hash is not None and not re.fullmatch("[0-9a-f]{12}", str(weights_hash)):
        raise InputError(
            f"published.extractor={weights_hash!r}: the hash of an extractor's weights is twelve hexadecimal "
            "digits in quotes, as scores.csv has it (extractor_hash)"
        )
    return figures


@dataclass
class ModeCollapse:
    """Says when a generator draws only a part of what it should.

    It is likely when good images are few in kind (recall below `recall`, precision above `precision`) at
    two scorings running, or when the images fill less than `classes` of the classes that real images have.

    Attributes:
        suspicions: scorings running with low recall and high precision.
    """

    recall: Fraction = 0.1
    precision: Fraction = 0.5
    classes: Fraction = 0.5
    suspicions: int = field(default=0, init=False)

    def look(self, rows: Sequence[Row]) -> str:
        """Why the images of this scoring look collapsed; empty when they do not. Of several extractors the
        first counts.
        """
        judged = [row for row in rows if row.extractor and row.on_task is None]
        values = {row.metric: row.value for row in judged if row.extractor == judged[0].extractor}
        reasons = []
        if "recall" in values and "precision" in values:
            recall, precision = values["recall"], values["precision"]
            is_low = recall < self.recall and precision > self.precision
            self.suspicions = self.suspicions + 1 if is_low else 0
            if self.suspicions >= 2:
                times = f"at {self.suspicions} scorings running"
                reasons.append(f"recall {recall:.2f} with precision {precision:.2f}, {times}")
        share = values.get("class_coverage", 1.0)
        if share < self.classes:
            reasons.append(f"images of {share:.0%} of the classes")
        return "; ".join(reasons)
