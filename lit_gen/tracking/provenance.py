"""What a result depends on beside its configuration: commit, versions, device, images, time."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_utilities.core.apply_func import apply_to_collection

from lit_gen.core.types import StreamData
from lit_gen.tracking.masking import without_secrets

_SOURCE = Path(__file__).resolve().parents[2]
_PACKAGES = ("lit-gen", "torch", "lightning", "torchmetrics", "torchvision", "mlflow")
_LOOKED_AT = 1000  # images; enough to tell data sets and splits apart, at no cost


@cache
def git_commit() -> str | None:
    """The commit of this program's source, with "-dirty" where files differ; None outside a checkout."""
    if not (_SOURCE / ".git").exists():
        return None  # installed; a repository around it would be somebody else's
    command = ["git", "-C", str(_SOURCE), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


@cache
def package_versions() -> dict[str, str]:
    """Versions of what decides numbers, of the packages that are installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device) -> str:
    """ "cpu", or the kind of device with its model."""
    return f"cuda: {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def command_line() -> str:
    """How this process was started, without secrets."""
    program, *words = sys.argv
    name = Path(program).name
    return without_secrets(shlex.join(["lit-gen" if name == "__main__.py" else name, *words]))


class DataPart(NamedTuple):
    """One split of the data."""

    name: str
    digest: str  # 16 hexadecimal digits
    context: str  # "training" or "test"
    profile: dict[str, Any]


def describe_data(data: StreamData) -> tuple[DataPart, ...]:
    """Training and test images of all tasks of a stream.

    The digest is a SHA-256 over the number of images and over the pixels, labels and tasks of up to 1000 of
    them, spread evenly.
    """
    parts = []
    for split, context in (("train", "training"), ("test", "test")):
        images = data.dataset(split, range(len(data.tasks)))
        count = min(len(images), _LOOKED_AT)
        digest = hashlib.sha256(str(len(images)).encode())
        some = images.__getitems__([place * len(images) // count for place in range(count)])
        apply_to_collection(some, torch.Tensor, lambda part, into=digest: into.update(part.numpy().tobytes()))
        profile: dict[str, Any] = {"num_images": len(images), **data.spec._asdict()}
        if split == "train":
            profile["tasks"] = {task.name: task.num_images for task in data.tasks}
        parts.append(DataPart(type(data).__name__, digest.hexdigest()[:16], context, profile))
    return tuple(parts)


def about_run(data: StreamData, device: torch.device, world_size: int) -> dict[str, Any]:
    """What start.json keeps for MLflow: {"tags": ..., "data": parts}; plain."""
    tags = {f"version.{name}": number for name, number in package_versions().items()}
    tags |= {"device": device_name(device), "world_size": world_size}
    tags |= {"mlflow.source.name": command_line(), "mlflow.source.type": "LOCAL"}
    if (commit := git_commit()) is not None:
        tags |= {"git_commit": commit, "mlflow.source.git.commit": commit.split("-")[0]}
    parts = [part._asdict() for part in describe_data(data)]
    return {"tags": tags, "data": parts}


class PhaseTimes:
    """A stopwatch per (task, phase), with the images of all processes in each and what the model keeps."""

    def __init__(self) -> None:
        self._totals: dict[tuple[int, str], list[float]] = {}  # images, seconds
        self._memory: dict[tuple[int, str], dict[str, int]] = {}  # bytes by kind, the most of each
        self._current: list[float] = [0, 0.0]
        self._kept: dict[str, int] = {}
        self._since: float | None = None

    def enter(self, task: int, phase: str) -> None:
        """The clock of this phase runs from now on."""
        self._current = self._totals.setdefault((task, phase), [0, 0.0])
        self._kept = self._memory.setdefault((task, phase), {})
        self.go()

    def count(self, images: int) -> None:
        self._current[0] += images

    def keep(self, memory: Mapping[str, int]) -> None:
        """Bytes by kind that are kept now."""
        self._kept |= {kind: max(size, self._kept.get(kind, 0)) for kind, size in memory.items()}

    def go(self) -> None:
        if self._since is None:
            self._since = time.monotonic()

    def stop(self) -> None:
        if self._since is not None:
            self._current[1] += time.monotonic() - self._since
        self._since = None

    def load(self, report: list[dict[str, Any]]) -> None:
        """Goes on from a report."""
        self._totals = {(p["task"], p["phase"]): [p["images"], p["seconds"]] for p in report}
        self._memory = {(p["task"], p["phase"]): dict(p.get("memory_bytes", {})) for p in report}
        self._since = None

    def report(self) -> list[dict[str, Any]]:
        """One entry per phase of every task, in the order they were trained."""
        return [
            {"task": task, "phase": phase, "images": int(images), "seconds": round(seconds, 3)}
            | {"images_per_second": round(images / seconds, 1) if seconds > 0 else None}
            | {"memory_bytes": self._memory[task, phase]}
            for (task, phase), (images, seconds) in self._totals.items()
        ]


def costs(phases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A line per task of a report of `PhaseTimes`: seconds of training, images per second, and the most bytes
    of each kind that were kept in a phase of it.
    """
    lines = []
    for task in dict.fromkeys(phase["task"] for phase in phases):
        some = [phase for phase in phases if phase["task"] == task]
        images, seconds = (sum(phase[key] for phase in some) for key in ("images", "seconds"))
        kinds = dict.fromkeys(kind for phase in some for kind in phase["memory_bytes"])
        most = {k: max(phase["memory_bytes"].get(k, 0) for phase in some) for k in kinds}
        line = {"task": task, "seconds": round(seconds, 3)}
        line["images_per_second"] = round(images / seconds, 1) if seconds > 0 else None
        lines.append(line | {f"bytes_of_{kind}": size for kind, size in most.items()})
    return lines
