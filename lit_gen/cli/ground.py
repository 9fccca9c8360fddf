"""Short runs in processes of their own, by which `lit-gen check` looks at a machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lit_gen.cli.config import Composed
from lit_gen.cli.run_folder import RunFolder

LIMIT = 300.0  # seconds
_RUN = (
    *("model=vae", "data=digits", "callbacks=[]", "logger=csv", "seed=0", "cpu_threads=1"),
    *("judges=quality", "judges.quality.every_n_epochs=0", "checkpoint.min_seconds=0"),
    "judges.quality.metrics=[{_target_: lit_gen.metrics.frechet.FrechetDistance, _partial_: true}]",
)
EPOCHS = 20


class Failed(Exception):
    """What was found, and what to do."""


class Skipped(Exception):
    """Why."""


class Ground:
    """What the checks share: where they work, on what, and how long they may.

    Attributes:
        words: about the trainer.
        place: a folder beside the runs, removed at the end.
    """

    def __init__(self, composed: Composed, words: Sequence[str], place: Path, seconds: float) -> None:
        self.composed, self.words, self.place = composed, list(words), place
        self.end = time.monotonic() + seconds
        self._made: dict[str, Any] = {}

    def once(self, check: str, make: Callable[[], Any]) -> Any:
        """What the check makes, which others need; it is not tried again where it failed."""
        if check not in self._made:
            self._made[check] = None
            self._made[check] = make()
        if self._made[check] is None:
            raise Skipped(f"needs what `{check}` looks at")
        return self._made[check]

    @property
    def processes(self) -> dict[str, Any]:
        """What lit_gen.cli.collectives printed."""

        def make() -> dict[str, Any]:
            started = self.start("lit_gen.cli.collectives", *self.words)
            return json.loads(self.ended(started, "processes were not started").splitlines()[-1])

        return self.once("processes", make)

    @property
    def is_gpu(self) -> bool:
        return self.processes["device"].startswith("cuda")

    @property
    def run_words(self) -> list[str]:
        return [*self.words, *_RUN, *(["trainer.deterministic=true"] if self.is_gpu else [])]

    @property
    def whole(self) -> RunFolder:
        """A run that nothing disturbs."""
        return self.once("training", lambda: self.trained("whole", EPOCHS))

    def trained(self, name: str, epochs: int, *words: str) -> RunFolder:
        folder = RunFolder(self.place / name)
        run = (*self.run_words, f"trainer.max_epochs={epochs}", *words, f"output_dir={folder.path}")
        self.ended(self.start("lit_gen", "train", *run), "the run did not come to its end")
        return folder

    def start(self, module: str, *words: str) -> subprocess.Popen[str]:
        """A program in a group of processes of its own; what it starts is in there, too."""
        if time.monotonic() > self.end:
            raise Skipped(f"the {LIMIT:.0f} seconds of its runs were over")
        # For CUDA to be deterministic, set before it begins.
        environment = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", **os.environ}
        for name in [name for name in environment if name.startswith("LIT_GEN_") and name != "LIT_GEN_DATA"]:
            del environment[name]
        return subprocess.Popen(
            [sys.executable, "-m", module, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def ended(self, process: subprocess.Popen[str], what: str) -> str:
        """What it printed, after it has ended well; whatever happens, nothing of it is left."""
        try:
            out, said = process.communicate(timeout=max(1.0, self.end - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Failed(
                f"{what} within {LIMIT:.0f} s",
                "processes may wait for each other: look at the network between them "
                "(NCCL_DEBUG=INFO, GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME), or at how busy this machine is",
            ) from None
        finally:
            kill(process)
        if process.returncode != 0:
            last = " ".join(said.split()[-60:])[-400:]
            raise Failed(
                f"{what}: it ended with {process.returncode}; {last}",
                "mend what it says; the same words with lit-gen train experiment=quickstart show all of it",
            )
        return out


def kill(process: subprocess.Popen[str]) -> None:
    """A program and all that it started, at once; on Windows, which knows no groups, the program."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except ProcessLookupError:
        return
    process.wait()
