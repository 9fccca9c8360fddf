"""The folder of a run: where it is, what is written into it first, and how it is found again."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from lit_gen.cli.launchers import rank, run_id
from lit_gen.cli.lock import LOCK, RunLock
from lit_gen.cli.words import key_of
from lit_gen.core.checkpoint import LAST, PREVIOUS, Stored, has_checkpoint, read
from lit_gen.core.files import writable_folder, write_text
from lit_gen.core.types import InputError
from lit_gen.tracking.masking import without_secrets
from lit_gen.tracking.metrics_file import MetricsFile

_HANDED_ON = "LIT_GEN_RUN_FOLDER"
CONFIG, START, SUMMARY, METRICS = "config.yaml", "start.json", "summary.json", "metrics.csv"
CHANGES = "config.resumed-{}.yaml"
_BEFORE_A_STEP = {CONFIG, START, SUMMARY, METRICS, "log.txt", "run.json", "tensorboard"}
_BEFORE_A_STEP |= {"checkpoints", "samples", "split"}
"""All that a run writes before its first checkpoint."""
_MAY_CHANGE = ("trainer", "logger", "data.root", "data.num_workers", "checkpoint", "cpu_threads", "compile")
"""Keys of a run that may be others when it is resumed."""
_MOST_NAMED = 4

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFolder:
    """A run's folder on disk; made once by rank 0, known to every process."""

    path: Path
    made: list[Path] = field(default_factory=list, compare=False)  # folders that were not there before

    @property
    def is_finished(self) -> bool:
        """Whether the run reached its end; summary.json of a killed or failed one says so itself."""
        try:
            return self.read_summary().get("status") == "FINISHED"
        except InputError:
            return False

    def read_start(self) -> dict[str, Any]:
        """start.json: {"source": config before interpolation, "cpu_threads": ...}; {} where it is missing.

        Raises:
            InputError: it cannot be understood; so of the others.
        """
        return self._read(START, f"remove it, {CONFIG} beside it says the same")

    def read_summary(self) -> dict[str, Any]:
        """summary.json, see `RunRecord.finish`; {} where it is missing."""
        return self._read(SUMMARY, f"lit-gen train resume={self.path} writes it again")

    def _read(self, name: str, way_out: str) -> dict[str, Any]:
        file = self.path / name
        try:
            return {**json.loads(file.read_text(encoding="utf-8"))} if file.is_file() else {}
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{file}: is damaged ({error}); {way_out}") from error

    def read_config(self) -> dict[str, Any]:
        """config.yaml: the configuration with every interpolation done."""
        file = self.path / CONFIG
        try:
            text = file.read_text(encoding="utf-8")
            config = yaml.safe_load(text)
        except (OSError, ValueError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())[:200]
        else:
            # "choices" comes last, and its last line is whole.
            if isinstance(config, dict) and isinstance(config.get("choices"), dict) and text[-1] == "\n":
                return config
            reason = "it is cut"
        raise InputError(
            f"{file}: is damaged ({reason}). Put it back, or train again with another output_dir="
        )

    def refuse_foreign(self, stored: Stored) -> None:
        """Raises InputError with the first keys where a checkpoint's configuration is of another run."""
        own, known = self.read_start().get("source"), dict(_leaves(stored.config))
        is_exact = own is not None
        own = dict(_leaves(own if is_exact else self.read_config()))
        # config.yaml has what an interpolation gave.
        keys = dict.fromkeys([*own, *known]) if is_exact else [k for k in known if "${" not in str(known[k])]
        later = self._later_values()
        differing = [
            f"{key}={known.get(key, 'null')}, the run has {own.get(key, 'null')}"
            for key in keys
            if known.get(key, "null") not in (own.get(key, "null"), *later.get(key, ())) and not _is_free(key)
        ]
        if differing:
            raise InputError(
                f"checkpoint {stored.path}: is of another run than {self.path}: "
                f"{'; '.join(differing[:_MOST_NAMED])}"
                + (f"; and {len(differing) - _MOST_NAMED} more" if len(differing) > _MOST_NAMED else "")
                + ". Nothing was changed. Put the run's own checkpoint back, or name another one of its own."
            )

    def stored(self, resume: str) -> Stored | None:
        """The checkpoint to go on from; None for a run that was stopped before its first one.

        Raises:
            InputError: it is of another run, or what it needs of this folder is damaged or gone.
        """
        is_file, any_left = Path(resume).is_file(), has_checkpoint(self.path)
        if is_file and Path(resume).name not in (LAST, PREVIOUS) and any_left:
            log.warning(
                "what was trained after %s is trained again, in its place; output_dir= keeps both", resume
            )
        if is_file or any_left:
            stored = read(resume if is_file else self.path)
            self.refuse_foreign(stored)
            if rank() == 0:
                MetricsFile(self.path).check(stored.num_logged)
            return stored
        # Scores come after a checkpoint, and the folder of checkpoints before everything.
        if (self.path / "scores.csv").is_file() or not (self.path / "checkpoints").is_dir():
            raise InputError(
                f"resume={self.path}: its checkpoints are gone. Nothing was changed. "
                "Put a checkpoint back into checkpoints/, or train again with another output_dir="
            )
        log.warning("%s has no checkpoint yet; the run begins again", self.path)
        return None

    def write_start(self, **values: Any) -> None:
        """Adds to start.json."""
        write_text(self.path / START, json.dumps(self.read_start() | values, indent=1))

    def changes(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """What a resume gives other values: {"trainer.devices": {"before": 1, "now": 2}, ...}."""
        leaves = [dict(_leaves(without_secrets(each))) for each in (before, now)]
        keys = [key for key in dict.fromkeys([*leaves[0], *leaves[1]]) if key != "output_dir"]
        pairs = {key: [json.loads(each.get(key, "null")) for each in leaves] for key in keys}
        return {key: {"before": old, "now": new} for key, (old, new) in pairs.items() if old != new}

    def _later_values(self) -> dict[str, list[str]]:
        """What keys have been given by resumes, as JSON."""
        found: dict[str, list[str]] = {}
        for file in self.path.glob(CHANGES.format("*")):
            try:
                for key, change in yaml.safe_load(file.read_text(encoding="utf-8")).items():
                    found.setdefault(key, []).append(json.dumps(change["now"], default=str))
            except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError) as error:
                raise InputError(f"{file}: is damaged ({type(error).__name__}); put it back") from error
        return found

    def write_changes(self, changes: Mapping[str, Any]) -> None:
        """Beside config.yaml, which stays as the run was started: config.resumed-1.yaml and so on."""
        number = 1 + len([*self.path.glob(CHANGES.format("*"))])
        write_text(self.path / CHANGES.format(number), yaml.safe_dump({**changes}, sort_keys=False))

    @cached_property
    def lock(self) -> RunLock:
        """Held by whoever writes here."""
        return RunLock(self.path)

    def make(self) -> None:
        """Makes and locks the folder of a new run, in the first process; one of a run without a step is used
        again.

        Raises:
            InputError: it is not writable, already holds something, or another process works there.
        """
        if rank() == 0:
            self.made.extend(place for place in (self.path, *self.path.parents) if not place.exists())
            writable_folder("output_dir", self.path)
            self.lock.take()
            if self._is_of_no_use:
                log.warning(
                    "%s: the run in it ended before its first step; this one takes its place", self.path
                )
                self._empty()
            if any(file.name != LOCK for file in self.path.iterdir()):
                what = "already holds another run" if (self.path / CONFIG).exists() else "is not empty"
                raise InputError(
                    f"output_dir={self.path}: {what}; nothing was changed. Go on with resume={self.path}, or "
                    "choose another output_dir."
                )
            for name in ("checkpoints", "samples"):
                (self.path / name).mkdir()
        self.hand_on()

    def hand_on(self) -> None:
        """Tells the processes that this one starts where the run is."""
        os.environ[_HANDED_ON] = str(self.path)

    def discard(self) -> None:
        """Takes back a new run that could not begin, and the folders that were made for it."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):  # another run has come into it meanwhile
            for place in self.made[1:]:
                place.rmdir()

    def branch(self, path: Path, stored: Stored | None) -> RunFolder:
        """A new run's folder, with the curves so far; InputError without a checkpoint, or a place for it."""
        if stored is None:
            raise InputError(
                f"output_dir={path}: {self.path} has no checkpoint yet that a new run could go on from; "
                "leave out output_dir= to begin it again, or resume= for a run of its own"
            )
        new = RunFolder(path)
        new.make()
        if rank() == 0 and (self.path / METRICS).is_file():
            shutil.copyfile(self.path / METRICS, path / METRICS)
        return new

    @property
    def _is_of_no_use(self) -> bool:
        """Whether a run ended here before it had logged or kept anything, and nothing else lies here."""
        try:
            status, metrics = self.read_summary().get("status"), self.path / METRICS
            rows = len(metrics.read_text(encoding="utf-8").splitlines()) - 1 if metrics.exists() else 0
        except (OSError, ValueError):
            return False
        kept = [*self.path.iterdir(), *self.path.glob("checkpoints/*"), *self.path.glob("samples/*")]
        names = {file.name for file in kept} - {LOCK}
        # Without a summary it may be running.
        return status in ("FAILED", "KILLED") and rows <= 0 and names <= _BEFORE_A_STEP

    def _empty(self) -> None:
        for name in _BEFORE_A_STEP:
            file = self.path / name
            shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)


def refuse_changes(words: Sequence[str]) -> None:
    """Raises InputError for a word with which a resumed run would compute something else. Of a stream it is
    known later, when its tasks so far are compared.
    """
    for word in words:
        if not (_may_change(key_of(word)) or is_of_stream(word)):
            raise InputError(
                f"{word}: a resumed run goes on as it began; only {', '.join(_MAY_CHANGE)} can be changed, "
                "and stream, to one that goes on with more tasks. "
                "For another run leave resume= out."
            )


def is_of_stream(word: str) -> bool:
    """Whether a word is about the stream of tasks."""
    return key_of(word).partition(".")[0] == "stream"


def _may_change(key: str) -> bool:
    return any(f"{key}.".startswith(f"{allowed}.") for allowed in _MAY_CHANGE)


def _is_free(key: str) -> bool:
    """Whether a run's checkpoint may have another value there: the run was moved, or resumed otherwise."""
    return key == "output_dir" or _may_change(key.removeprefix("choices."))


def _leaves(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and values, as JSON, which knows no tuples and no keys that are numbers."""
    if isinstance(values, dict) and values:
        for name, value in values.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, json.dumps(values, default=str)


def new_folder(output_dir: str | None, choices: dict[str, str], seed: int) -> RunFolder:
    """Where a run will be: `output_dir`, or a new name under runs/. Nothing is made yet."""
    if rank() > 0 and (handed_on := os.environ.get(_HANDED_ON)):
        return RunFolder(Path(handed_on))
    if output_dir is not None:
        return RunFolder(Path(str(output_dir)).absolute())
    parts = [choices.get(group, "none") for group in ("model", "data", "stream")]
    name = "-".join(part for part in parts if part != "none")
    return RunFolder((Path("runs") / f"{name}-s{seed}-{run_id()}").absolute())


def found_folder(resume: str) -> RunFolder:
    """The run of a folder, or of one of its checkpoints; InputError where there is none."""
    path = Path(resume).absolute()
    folder = path.parent.parent if path.is_file() and path.parent.name == "checkpoints" else path
    if not (folder / CONFIG).is_file():
        raise InputError(
            f"resume={resume}: {folder / CONFIG} is missing, so this is not the folder of a run; "
            "give a folder under runs/ or a .ckpt file in its checkpoints/"
        )
    return RunFolder(folder)
