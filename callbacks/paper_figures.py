"""Our figures beside the published ones, after the last task."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lit_gen.core.types import InputError
from lit_gen.evaluation.scores import ReportsScores, Score

log = logging.getLogger(__name__)

_SOURCE = "source"
_SHARES = ("prd_precision", "prd_recall", "precision", "recall")  # published in percent


class PaperFigures(Callback):
    """Logs a table, and writes it to `paper.txt`, when the last task was tested.

    Figures are means over tasks after the last one. Shares are in percent, as they are published. An FID is
    comparable only under the same feature extractor, which the table names.

    List it after the callbacks that report scores.

    Args:
        folder: the run folder.
        published: figures by metric ("fid", "prd_precision", ...), and "source", which says where they were
            found and what they were measured with. None: nothing was published.
    """

    def __init__(self, folder: str | Path, published: Mapping[str, float | str] | None = None) -> None:
        self.folder = Path(folder)
        self.published = dict(published or {})
        self.source = str(self.published.pop(_SOURCE, ""))
        wrong = [name for name, value in self.published.items() if not isinstance(value, int | float)]
        if wrong:
            raise InputError(
                f"published.{wrong[0]}={self.published[wrong[0]]!r}: a published figure is a number"
            )

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule
        if not self.published or data.current_task < len(data.tasks) - 1 or trainer.fast_dev_run:
            return
        scores = [s for c in trainer.callbacks if isinstance(c, ReportsScores) for s in c.scores]
        table = self.table(scores, single_task=len(data.tasks) == 1)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "paper.txt").write_text(table + "\n", encoding="utf-8")
        log.info("%s", table)

    def table(self, scores: list[Score], single_task: bool = False) -> str:
        """One line per published figure.

        Args:
            single_task: the scores of all tasks together are those of the only one.
        """
        lines = [f"{'mean over tasks':<16}{'published':>11}{'ours':>9}  measured with"]
        for name, value in self.published.items():
            factor = 100 if name in _SHARES else 1
            found = _means(scores, name, single_task) or {"-": math.nan}
            for extractor, ours in found.items():
                own = "-" if math.isnan(ours) else f"{factor * ours:.1f}"
                lines.append(f"{name:<16}{value:>11g}{own:>9}  {extractor}")
        return "\n".join([*lines, f"published: {self.source}"])


def _means(scores: list[Score], metric: str, single_task: bool) -> dict[str, float]:
    """Means over single tasks by extractor."""
    values: dict[str, list[float]] = {}
    for score in scores:
        counts = score.on_task is not None or single_task
        if score.metric == metric and counts and score.split == "test":
            values.setdefault(score.extractor, []).append(score.value)
    return {extractor: sum(some) / len(some) for extractor, some in values.items()}
