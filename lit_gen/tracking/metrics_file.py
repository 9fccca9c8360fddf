"""Every logged value in one file of the run folder, whatever other logger there is."""

from __future__ import annotations

import csv
import errno
import io
import logging
import os
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lit_gen.core.files import CannotWrite, disk_failure, write_text
from lit_gen.core.types import InputError

log = logging.getLogger(__name__)

_HEADER = "step,epoch,metric,value\n"


class MetricsFile(Logger):
    """Appends to `metrics.csv` in long format: step (batches seen), epoch, metric, value.

    Rows wait in memory for a few seconds, so that logging costs microseconds. A file that a killed run left
    with half a line is repaired when it is opened.

    Args:
        folder: the run folder.
        flush_seconds: rows reach the file at most this much later, if anything is logged meanwhile.

    Attributes:
        epoch: asked for rows that bring no epoch of their own; None leaves them without.
    """

    def __init__(self, folder: str | Path, flush_seconds: float = 2.0) -> None:
        super().__init__()
        self.path, self.flush_seconds = Path(folder) / "metrics.csv", flush_seconds
        self.epoch: Callable[[], int] | None = None
        self._waiting: list[tuple[int | None, int | None, str, str]] = []
        self._next_flush = 0.0

    name, version = "metrics", ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @property
    def rows(self) -> int:
        """Rows so far, those in memory included."""
        return self._in_file + len(self._waiting)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        epoch = metrics.get("epoch", self.epoch() if self.epoch is not None else None)
        epoch = None if epoch is None else int(epoch)
        # By name: Lightning keeps them in the order in which this process met them, which a resume changes.
        rows = sorted((name, repr(float(value))) for name, value in metrics.items() if name != "epoch")
        self._waiting += [(step, epoch, *row) for row in rows]
        if (now := time.monotonic()) >= self._next_flush:
            self.flush()
            self._next_flush = now + self.flush_seconds

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The run folder has config.yaml."""

    @rank_zero_only
    def flush(self) -> None:
        """Brings all rows into the file, or raises CannotWrite and leaves it as it was."""
        rows = self.rows
        # One write, so that a kill cuts at most one line, which the next run repairs.
        with self.path.open("ab", buffering=0) as file:
            end, lines = file.tell(), _lines(self._waiting).encode()
            try:
                if file.write(lines) < len(lines):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            except OSError as error:
                file.truncate(end)
                raise CannotWrite(disk_failure(error) or str(error)) from error
        self._in_file, self._waiting = rows, []

    def finalize(self, status: str) -> None:
        self.flush()

    def check(self, rows: int) -> None:
        """Raises InputError where the file has lost some of its first rows, or holds damaged ones."""
        if rows and not self.path.is_file():
            log.warning("%s is missing; its first %d values are lost", self.path, rows)
        read_metrics(self.path, rows)

    @rank_zero_only
    def keep_first(self, rows: float) -> list[tuple[int, str, float]]:
        """Drops what a resumed run will log again: all but the first rows. Step, metric, value of those."""
        self.flush()
        kept = read_metrics(self.path, min(rows, self._in_file))
        with self.path.open(encoding="utf-8", newline="\n") as file:
            write_text(self.path, "".join(islice(file, 1 + len(kept))))
        self._in_file = len(kept)
        return [(step, name, value) for step, _, name, value in kept]

    @cached_property
    def _in_file(self) -> int:
        """Rows in the file, which is made or repaired when they are first asked for."""
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1] or _HEADER.encode()
        if whole != content:
            write_text(self.path, whole.decode())
        return whole.count(b"\n") - 1


class LateMetrics(MetricsFile):
    """What is logged about a run when it is over. It waits in memory for `add`: the checkpoints of a run that
    goes on count the rows of its file.
    """

    def flush(self) -> None:
        pass

    @rank_zero_only
    def add(self) -> None:
        """Brings all into the file, in place of values of the same name and step."""
        late = {(row[0], row[2]): row for row in self._waiting}
        before = read_metrics(self.path)
        rows = [late.pop((step, name), (step, epoch, name, repr(v))) for step, epoch, name, v in before]
        write_text(self.path, _HEADER + _lines([*rows, *late.values()]))
        self._waiting = []


def read_metrics(file: Path, count: int | None = None) -> list[tuple[int, int | None, str, float]]:
    """Step, epoch, metric, value of every line that ends; [] where there is no file.

    Args:
        count: only the first so many.

    Raises:
        InputError: one is damaged, or there are fewer.
    """
    if not file.is_file():
        return []
    _, *lines = file.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] or [""]
    rows, expected = [], len(lines) if count is None else count
    with suppress(ValueError, csv.Error):
        for step, epoch, name, value in csv.reader(lines[:expected]):
            if "\0" in name:
                break
            rows.append((int(step or 0), int(epoch) if epoch else None, name, float(value)))
    if len(rows) < expected:
        raise InputError(
            f"{file}: is damaged; of its first {expected} values only {len(rows)} can be read. Nothing was "
            "changed. Put the file back, or remove it to go on without those values."
        )
    return rows


def _lines(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
