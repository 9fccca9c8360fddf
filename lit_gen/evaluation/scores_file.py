"""scores.csv of a run folder, read back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lit_gen.core.types import InputError
from lit_gen.evaluation.board import Board, Row

_NUMBERS = ("num_real", "num_fake", "seed")


def read_board(folder: Path) -> Board:
    """What `Board.csv` has written, but for the number of tasks; without a row where there is no file.

    Raises:
        InputError: it cannot be read, or lines were lost: summary.json of a finished run has other scores.
    """
    file, board = folder / "scores.csv", Board()
    if not file.is_file():
        return board
    found: dict[int, list[Row]] = {}
    try:
        text = file.read_text(encoding="utf-8")
        if "\0" in text:
            raise ValueError("it has zeroed bytes")
        for line in csv.DictReader(io.StringIO(text, newline="")):
            task = None if line["on_task"] == "all" else int(line["on_task"])
            plain = {"on_task": task, "value": float(line["value"])} | {n: int(line[n]) for n in _NUMBERS}
            if way := line.pop("better", ""):  # older files do not say it
                board.better[line["metric"]] = way
            found.setdefault(int(line.pop("after_task")), []).append(Row(**line | plain))
        _refuse_lost(folder / "summary.json", found[max(found)])
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(
            f"{file}: cannot be read as a run's scores ({error!r}). Put it back, or remove it and score "
            f"again: lit-gen evaluate ckpt={folder}@all"
        ) from error
    board.rows = {after: tuple(rows) for after, rows in found.items()}
    return board


def _refuse_lost(summary: Path, rows: Sequence[Row]) -> None:
    """ValueError where the last rows are not those of a finished run's summary, if there is one."""
    try:
        said: Mapping = json.loads(summary.read_text(encoding="utf-8"))
        last = {name: numbers["all"] for name, numbers in said["scores"].items()}
        is_newer = said["status"] != "FINISHED"  # the run may have gone on since
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return
    found = {"/".join(filter(None, (r.metric, r.extractor))): r.value for r in rows if r.on_task is None}
    for name, value in last.items():
        if not is_newer and value is not None and found.get(name) != value:
            raise ValueError(f"summary.json has another {name}, or it is missing here")
