"""Many runs of lit-gen train, one after the other, each in a process of its own; what is done stays done."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import lit_gen.__main__
from lit_gen.cli.allowed import trusted
from lit_gen.cli.config import compose
from lit_gen.cli.run_folder import CONFIG, RunFolder
from lit_gen.cli.stop import told_to_stop
from lit_gen.core.checkpoint import read_newest
from lit_gen.core.files import write_json
from lit_gen.core.progress import stored_epochs
from lit_gen.core.types import InputError
from lit_gen.tracking.masking import without_secrets

SETTINGS = "compare.json"
_TRIAL = "trial"
_PATIENCE = 60.0  # seconds for a run that was told to stop to write its checkpoint
# Processes are forked off one that has imported everything, which takes longer than many a run, and has done
# nothing else: no run sees what another one left behind.
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


class Combination(NamedTuple):
    """One run of a series."""

    name: str  # of its model or experiment
    seed: int
    folder: Path

    def __str__(self) -> str:
        return f"{self.name} seed {self.seed}"


class Series:
    """Every model or experiment with every seed, in `out/<name>/seed-<k>`.

    Args:
        group: what the names are choices of, "model" or "experiment".
        out: remembers with what settings it was begun, so that runs of other settings are not mixed in.
        overrides: words for every run.
        epochs: of every run; None leaves each its own, or what `minutes` gives.
        minutes: of training; each name gets as many epochs as fit by a trial of it.

    Raises:
        InputError: `out` holds a series with other settings.
    """

    def __init__(
        self,
        group: str,
        names: Sequence[str],
        seeds: Sequence[int],
        out: Path,
        overrides: Sequence[str],
        epochs: int | None = None,
        minutes: float | None = None,
    ) -> None:
        self.group, self.out, self.overrides, self.minutes = group, out.absolute(), list(overrides), minutes
        self.runs = [
            Combination(name, seed, self.out / name / f"seed-{seed}") for name in names for seed in seeds
        ]
        settings = {"epochs": epochs, "minutes": minutes, "overrides": without_secrets(self.overrides)}
        self._settings = {"names": f"{group}s", **settings}
        self._epochs: dict[str, int] = self._remembered()

    def train(self, run: Combination) -> str | None:
        """Trains what is left of a run; what to say where it failed.

        Its words go to out/logs/<name>-seed-<k>.txt.
        """
        folder = RunFolder(run.folder)
        place = f"[{self.runs.index(run) + 1}/{len(self.runs)}] {run}"
        if folder.is_finished:
            print(f"{place}: was finished before", flush=True)
            return None
        began = time.monotonic()
        words = [f"resume={folder.path}"]
        if not (folder.path / CONFIG).is_file():
            try:
                epochs = self._epochs_of(run)
            except InputError as mistake:
                return f"{run}: {mistake}"
            words = [*self._words(run), f"output_dir={folder.path}"]
            words += [f"trainer.max_epochs={epochs}"] if epochs else []
        text = self.out / "logs" / f"{run.name}-seed-{run.seed}.txt"
        print(f"{place}: training, see {text}", flush=True)
        code = _train(words, text)
        if code == 0 and folder.is_finished:
            print(f"{place}: done in {time.monotonic() - began:.0f} s", flush=True)
            return None
        reason = f"exit code {code}, {_last_line(text)}" if code else "it stopped before its end"
        print(f"{place}: failed ({reason})", flush=True)
        return f"{run}: {reason}; see {text}"

    def _words(self, run: Combination) -> list[str]:
        return [f"{self.group}={run.name}", f"seed={run.seed}", *self.overrides]

    def _epochs_of(self, run: Combination) -> int | None:
        """The epochs of the runs of a name; None: its own."""
        if self.minutes is None:
            return self._settings["epochs"]
        if run.name not in self._epochs:
            self._epochs[run.name] = self._by_trial(run)
            self._remember(self._epochs)
        return self._epochs[run.name]

    def _by_trial(self, run: Combination) -> int:
        """How many epochs of training fit into the minutes, from a run of a tenth of them, 20 s at most.

        Raises:
            InputError: the trial failed.
        """
        budget = self.minutes * 60
        seconds = max(1, min(20, round(budget / 10)))
        number = sum(1 for _ in (self.out / run.name).glob(f"{_TRIAL}*"))
        folder = self.out / run.name / f"{_TRIAL}-{number}"
        words = [*self._words(run), f"output_dir={folder}", "logger=csv", "trainer.max_epochs=1000000"]
        words += [f"trainer.max_time=00:00:00:{seconds:02d}", "trainer.limit_val_batches=0"]
        text = self.out / "logs" / f"{run.name}-{_TRIAL}.txt"
        print(f"{run.name}: a trial of {seconds} s", flush=True)
        code = _train(words, text)
        if code:
            raise InputError(f"the trial failed with exit code {code}, {_last_line(text)}; see {text}")
        done = stored_epochs(read_newest(folder).state)
        per_epoch = sum(phase["seconds"] for phase in RunFolder(folder).read_summary()["phases"]) / max(
            1, done
        )
        stream = compose("train", self._words(run)).config["stream"]
        stages = 1 if stream["joint"] else stream["num_tasks"]
        epochs = max(1, math.floor(budget / (per_epoch * stages))) if per_epoch > 0 else 1
        print(f"{run.name}: {per_epoch:.3g} s an epoch, so {epochs} epochs", flush=True)
        return epochs

    def _remembered(self) -> dict[str, int]:
        file = self.out / SETTINGS
        if not file.is_file():
            self._remember({})
            return {}
        try:
            known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            before, epochs = known["settings"], dict(known["epochs"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file}: cannot be read ({error}); choose another out=") from error
        if before != self._settings:
            raise InputError(
                f"out={self.out}: was begun with {_in_words(before)}, now it is {_in_words(self._settings)}. "
                "Runs of other settings do not belong into one table: choose another out=, or give the same."
            )
        return epochs

    def _remember(self, epochs: dict[str, int]) -> None:
        write_json(self.out / SETTINGS, {"settings": self._settings, "epochs": epochs})


def _train(words: Sequence[str], text: Path) -> int:
    """lit-gen train in a process of its own, with what it says in a file: its exit code."""
    text.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context(_METHOD)
    if _METHOD == "forkserver":
        context.set_forkserver_preload(["lit_gen.cli.train", __name__])
    trust = [f"trust={name}" for name in trusted()]
    process = context.Process(target=_run_alone, args=(["train", *words, *trust], str(text)))
    with told_to_stop():
        process.start()
        try:
            process.join()
        except BaseException:
            # Told to stop it ends its files first, and goes on from there another time. Not by SIGINT, which
            # is ignored by what a shell has started in the background.
            process.terminate()
            process.join(_PATIENCE)
            process.kill()
            raise
    return process.exitcode


def _run_alone(words: list[str], text: str) -> None:
    """The whole command line in this process, which has nothing else to do."""
    threading.Thread(target=_stop_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    with open(text, "a", encoding="utf-8") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    # With several devices Lightning starts the program again for each of them, by what it finds here.
    sys.argv = [lit_gen.__main__.__file__, *words]
    sys.exit(lit_gen.__main__.main(words))


def _stop_with(parent: BaseProcess) -> None:
    """Stops this process, as a signal does, when the one that wants its result has died."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _last_line(text: Path) -> str:
    lines = [line.strip() for line in text.read_text(encoding="utf-8").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "nothing said"


def _in_words(settings: dict[str, Any]) -> str:
    given = [f"{key}={settings[key]}" for key in ("epochs", "minutes") if settings.get(key) is not None]
    return " ".join([f"{settings.get('names', 'experiments')}=...", *given, *settings.get("overrides", [])])
