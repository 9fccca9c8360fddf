"""Asks the judges, and keeps, writes, logs and shows what they say."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger

from lit_gen.core.files import write_text
from lit_gen.core.module import LitModel
from lit_gen.core.progress import batches_seen
from lit_gen.core.types import InputError, Split, StreamData, below
from lit_gen.evaluation.board import FLOOR, LOCAL, Board, Row
from lit_gen.evaluation.context import Context
from lit_gen.evaluation.judges.base import Judge, at_least
from lit_gen.evaluation.judges.terms import TermMeans
from lit_gen.evaluation.note import in_tags
from lit_gen.evaluation.plots import write_picture
from lit_gen.evaluation.reports import ModeCollapse, beside_published, check_published, matrix_picture
from lit_gen.evaluation.scores_file import read_board
from lit_gen.tracking.pictures import TakesScores, log_picture

log = logging.getLogger(__name__)


class Scoring(Callback):
    """Scores the model in tests, and in a fit after the validations that a judge wants ("val").

    Every score is logged. After a test the run folder (`default_root_dir`) gets `scores.csv` and `matrix.png`
    with all rows so far, and loggers get rows and pictures. When figures are published for the run,
    `paper.txt` sets ours beside them after the last task. The rows are part of every checkpoint.

    Args:
        judges: by the names that messages call them.
        published: see `beside_published`; None: nothing was published.
        collapse: None never warns.
        writes: whether files are written, and more than scores is logged.
        asks: whether judges are asked; else they are only checked, for `lit-gen evaluate ckpt=RUN@all`.
        loggers: told in place of the trainer's, of scores too; None: Lightning tells its own of these.
        left_out: judges that are not asked, and why.

    Attributes:
        rows: of the latest pass, the same on every process.
        board: of all tests.
    """

    def __init__(
        self,
        judges: Mapping[str, Judge],
        published: Mapping[str, float | str] | None = None,
        collapse: ModeCollapse | None = None,
        writes: bool = True,
        asks: bool = True,
        loggers: Sequence[Logger] | None = None,
        left_out: Mapping[str, str] | None = None,
    ) -> None:
        self.judges, self.published, self.collapse = judges, published or {}, collapse
        self.writes, self.asks, self.loggers, self.left_out = writes, asks, loggers, left_out or {}
        at_least(0, **{f"{name}.every_n_epochs": judge.every_n_epochs for name, judge in judges.items()})
        check_published(self.published)
        self.rows: list[Row] = []
        self.board = Board()
        self._logged: dict[str, float] = {}  # of the latest pass
        self._checked: LitModel | None = None
        self._has_warned = False

    def state_dict(self) -> dict[str, Any]:
        return {"board": self.board.state(), "suspicions": self.collapse.suspicions if self.collapse else 0}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.board.load(state_dict["board"])
        if self.collapse is not None:
            self.collapse.suspicions = state_dict["suspicions"]

    def check(self, module: LitModel, data: StreamData) -> None:
        """Raises InputError that names what every judge says against this model and data."""
        problems = []
        for name, judge in self.judges.items():
            try:
                judge.check(Context(module, data, num_seen=1))
            except InputError as problem:
                problems.append(below(f"judges.{name}", str(problem)))
        if problems:
            raise InputError("\n".join(problems))
        for name, reason in self.left_out.items() if self._checked is None else ():
            log.warning("%s: not scored. %s", name, reason)
        self._checked = module

    def setup(self, trainer: Trainer, pl_module: LitModel, stage: str) -> None:
        if not self.judges or stage == "predict" or self._checked is pl_module:
            return
        if trainer.datamodule is None:
            raise InputError("Scoring needs the data's images: give the Trainer a datamodule, not loaders")
        self.check(pl_module, trainer.datamodule)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            epoch = trainer.current_epoch + 1
            often = {name: judge.every_n_epochs for name, judge in self.judges.items()}
            self._ask(
                trainer, pl_module, "val", [n for n, every in often.items() if every and epoch % every == 0]
            )

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        limit, is_dry = trainer.limit_test_batches, trainer.fast_dev_run
        if (
            (isinstance(limit, int) or limit < 1)
            and not (is_dry or self._has_warned)
            and trainer.is_global_zero
        ):
            self._has_warned = True
            log.warning(
                "trainer.limit_test_batches=%s: the model's own terms are means over a part of the images; "
                "judges go by settings of their own, such as judges.quality.num_samples",
                limit,
            )
        self._ask(trainer, pl_module, "test", list(self.judges))

    def on_test_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        if not self.rows or not self.writes or trainer.fast_dev_run:
            return
        data = trainer.datamodule
        better = {metric: way for judge in self.judges.values() for metric, way in judge.better.items()}
        self.board.put(data.current_task, self.rows, len(data.tasks), better)
        if trainer.is_global_zero:
            self._keep_others(Path(trainer.default_root_dir), data.current_task)
            self._write(trainer, Path(trainer.default_root_dir))

    def _keep_others(self, folder: Path, task: int) -> None:
        """Adds rows about tasks before this one that were scored while the run was stopped."""
        with suppress(InputError):  # a damaged file is written anew
            found = read_board(folder)
            for after in [each for each in found.rows if each < task and each in self.board.rows]:
                rows = *found.rows[after], *self.board.rows[after]
                self.board.put(after, rows, self.board.num_tasks, found.better | self.board.better)

    def _ask(self, trainer: Trainer, module: LitModel, split: Split, names: list[str]) -> None:
        if not names or not self.asks:
            return
        context, self.rows, self._logged = Context.of_trainer(trainer, module), [], {}
        for name in names:
            start, judge = time.perf_counter(), self.judges[name]
            rows = judge.rows(context, split)
            self.rows += rows
            # A model logs its terms over all tasks by itself.
            told = [row for row in rows if row.on_task is not None or not isinstance(judge, TermMeans)]
            self._logged |= {_logged_name(row): row.value for row in told}
            if rows and trainer.is_global_zero:
                seconds, images = time.perf_counter() - start, max(row.num_real for row in rows)
                log.info(
                    "%s: %d images of %d tasks (%s), %.1f s", name, images, context.num_seen, split, seconds
                )
        module.log_shared(self._logged)
        if split == "val":  # for monitors, which need not know the extractor: "val/fid"
            of_all = {f"val/{row.metric}": row.value for row in self.rows if row.on_task is None}
            module.log_shared({k: v for k, v in of_all.items() if k not in self._logged}, logger=False)
        reason = self.collapse.look(self.rows) if self.collapse else ""
        if reason and trainer.is_global_zero:
            log.warning("mode collapse is likely after epoch %d: %s", trainer.current_epoch, reason)

    def _write(self, trainer: Trainer, folder: Path) -> None:
        """Files, and what loggers take beside the scores of this test. On rank 0."""
        data, step = trainer.datamodule, batches_seen(trainer)
        write_text(folder / "scores.csv", self.board.csv())
        values = {
            f"test/{name}/{kind}": value
            for kind, one in self.board.until(data.current_task).summary().items()
            for name, value in one._asdict().items()
            if name in ("mean", "forgetting", "backward_transfer", "forward_transfer")
            and not math.isnan(value)
        }
        loggers = trainer.loggers
        if self.loggers is not None:
            loggers, values = self.loggers, self._logged | values
        for logger in loggers:
            logger.log_metrics(values, step=step)
            if isinstance(logger, TakesScores):
                logger.log_scores(in_tags(self.board))
        pictures = {}
        for judge in self.judges.values():
            if hasattr(judge, "keep"):
                pictures |= judge.keep(folder, data.current_task)
        matrix = matrix_picture(self.board)
        if matrix is not None:
            write_picture(folder / "matrix.png", matrix)
            pictures["matrix"] = matrix
        for key, image in pictures.items():
            log_picture(loggers, key, image, step)
        if self.published and data.current_task == len(data.tasks) - 1:
            rows = self.board.rows[data.current_task]
            table = beside_published(rows, self.published, single_task=len(data.tasks) == 1)
            write_text(folder / "paper.txt", table + "\n")
            log.info("%s", table)


def _logged_name(row: Row) -> str:
    """ "val/fid/inception/task0", "test/floor/fid/inception", "test/local/fid/lenet/task1", "test/nll"."""
    task = None if row.on_task is None else f"task{row.on_task}"
    kind = next((kind for kind in (FLOOR, LOCAL) if row.metric.startswith(kind)), "")
    parts = (row.split, kind.rstrip("_"), row.metric.removeprefix(kind), row.extractor, task)
    return "/".join(part for part in parts if part)
