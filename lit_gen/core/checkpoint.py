"""A checkpoint is Lightning's dictionary with the run's configuration beside the weights."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lit_gen.core.files import check_archive
from lit_gen.core.types import InputError

log = logging.getLogger(__name__)

FORMAT = 2
"""Raised when an older reader could misunderstand a checkpoint."""
CHECKPOINT_KEY = "lit_gen"
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
BEST = "best-{}.ckpt"
WRITING = "writing.ckpt"
"""What is not whole yet."""
_TASK = re.compile(r"task-(\d+)\.ckpt")


class Stored(NamedTuple):
    """What a checkpoint holds."""

    path: Path
    config: dict[str, Any]  # the configuration before interpolation
    record: dict[
        str, Any
    ]  # all that RunRecord stored: config, version, mlflow_run_id, cpu_threads, label_counts, ...
    state: dict[str, Any]  # Lightning's: state_dict, loops, callbacks, optimizer_states

    @property
    def place(self) -> dict[str, Any]:
        """Where in the run it was written: what TaskSwitch keeps; {} where there was none."""
        return self.state.get("callbacks", {}).get("TaskSwitch", {})

    @property
    def stage(self) -> int:
        """Place in the stages of the datamodule."""
        return self.place.get("stage", 0)

    @property
    def num_logged(self) -> int:
        """Rows of metrics.csv so far, which only become more along a run."""
        return self.state.get("callbacks", {}).get("RunRecord", {}).get("metric_rows", 0)


def read(path: str | Path) -> Stored:
    """Opens a checkpoint file, or the newest one of a run folder, without running any code from it.

    Args:
        path: RUN@best is the best one of a run's last task, as `BestCheckpoint` keeps it.

    Raises:
        InputError: no such file, damaged, not a checkpoint of this program, or of another format.
    """
    path = Path(path)
    if path.name.endswith("@best") and not path.exists():
        path = _best_of(path.with_name(path.name.removesuffix("@best")))
    if path.is_dir():
        return read_newest(path)
    if not path.is_file():
        raise InputError(
            f"checkpoint {path}: there is no such file; give a run folder or a .ckpt file in its checkpoints/"
        )
    try:
        check_archive(path)  # torch does not look at the checksums, and gives wrong weights out
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile and torch raise a dozen kinds, by where the file is damaged
        raise InputError(
            f"checkpoint {path}: cannot be read ({_first_line(error)}); the file is damaged, truncated or no "
            f"checkpoint. Use another one of the same run, such as {PREVIOUS} or task-<k>.ckpt."
        ) from error
    record = state.get(CHECKPOINT_KEY) if isinstance(state, dict) else None
    if not isinstance(record, dict) or "state_dict" not in state:
        raise InputError(
            f"checkpoint {path}: has no {CHECKPOINT_KEY!r} entry, so it was not written by lit-gen train; "
            "only such checkpoints carry the configuration that rebuilds the model."
        )
    if record.get("format") != FORMAT:
        raise InputError(
            f"checkpoint {path}: format {record.get('format')!r}, written by lit-gen "
            f"{record.get('version', '?')}; this version reads format {FORMAT}. Load it with that version of "
            "lit-gen, or train again."
        )
    return Stored(path, record["config"], record, state)


def read_newest(run_folder: Path) -> Stored:
    """The newest checkpoint of a run that can be read: the last one, the one before where that is damaged,
    else the newest of all there are. One line says which, where it is not the last one.

    Raises:
        InputError: the folder holds none that can be read.
    """
    folder = run_folder / "checkpoints" if (run_folder / "checkpoints").is_dir() else run_folder
    failures: list[str] = []

    def readable(files: Iterable[Path]) -> Iterator[Stored]:
        for file in files:
            try:
                yield read(file)
            except InputError as error:
                failures.append(str(error))

    there = [file for name in (LAST, PREVIOUS) if (file := folder / name).is_file()]
    newest = next(readable(there), None) if (folder / LAST).is_file() else None
    if newest is None:
        there = [file for file in there if file.name == PREVIOUS and not failures]
        newest = max(
            readable([*_of_tasks(folder).values(), *there]),
            key=lambda stored: stored.num_logged,
            default=None,
        )
    if newest is None:
        others = ", ".join(sorted(path.name for path in _checkpoints(folder)))
        raise InputError(
            "\n".join(failures)
            or f"{run_folder}: holds no checkpoint ({folder / LAST} is missing); give a run folder or a .ckpt"
            + (f" (there: {others})" if others else "")
        )
    if newest.path.name != LAST:
        reasons = [failure.partition(";")[0] for failure in failures]
        log.warning("%s; going on from %s", "; ".join(reasons) or f"{folder / LAST} is missing", newest.path)
    return newest


def task_checkpoints(run_folder: Path) -> dict[int, Path]:
    """The checkpoints that a run has kept at the ends of tasks, by task, ascending."""
    return _of_tasks(run_folder / "checkpoints")


def _of_tasks(folder: Path) -> dict[int, Path]:
    found = {int(name[1]): file for file in folder.glob("*.ckpt") if (name := _TASK.fullmatch(file.name))}
    return dict(sorted(found.items()))


def _best_of(run_folder: Path) -> Path:
    """Of the last task that has one; InputError where none has."""
    there = {int(file.stem[5:]): file for file in (run_folder / "checkpoints").glob(BEST.format("[0-9]*"))}
    if not there:
        raise InputError(
            f"{run_folder}@best: {run_folder / 'checkpoints'} holds no {BEST.format('<k>')}, as runs with "
            "callbacks=[default,best] or [default,best_fid] keep them"
        )
    return there[max(there)]


def has_checkpoint(run_folder: Path) -> bool:
    """Whether the run got as far as its first checkpoint, and any is left."""
    return bool(_checkpoints(run_folder / "checkpoints"))


def _checkpoints(folder: Path) -> list[Path]:
    return [file for file in folder.glob("[!.]*.ckpt") if file.name != WRITING]


def load_weights(module: torch.nn.Module, stored: Stored) -> None:
    """Puts the checkpoint's weights into the module, all of them and no others. A buffer may have more rows
    than in the checkpoint, those of the tasks by which a stream has become longer; these stay as they are.

    Raises:
        InputError: they belong to another model.
    """
    weights = dict(stored.state["state_dict"])
    for name, rows in module.named_buffers():
        known = weights.get(name)
        if known is not None and rows.ndim and rows.shape[1:] == known.shape[1:] and len(rows) > len(known):
            weights[name] = torch.cat([known, rows[len(known) :].to(known)])
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise InputError(
            f"checkpoint {stored.path}: its weights do not fit {type(module).__name__} "
            f"({_first_line(error)}). It is of another model, or the model's code has changed since."
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:200] if lines else type(error).__name__
