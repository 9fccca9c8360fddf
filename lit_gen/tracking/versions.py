"""What a result depends on beside its configuration: commit, versions, device."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_SOURCE = Path(__file__).resolve().parents[1]
_PACKAGES = ("lit-gen", "torch", "lightning", "torchmetrics", "torchvision", "mlflow")


@cache
def git_commit() -> str | None:
    """The commit of this program's source, with "-dirty" where files differ; None outside a checkout."""
    if not (_SOURCE / ".git").exists():
        return None  # installed; a repository around it would be somebody else's
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return None
    return f"{commit}-dirty" if _git("status", "--porcelain", "--untracked-files=no") else commit


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


def _git(*words: str) -> str:
    try:
        answer = subprocess.run(
            ["git", "-C", str(_SOURCE), *words], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
