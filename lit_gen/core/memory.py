"""What would take more memory than this machine has is refused unmade; what is kept is counted."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from lit_gen.core.types import InputError

try:
    import resource
except ImportError:  # on Windows
    resource = None

_MAKERS = {torch.arange, torch.empty, torch.eye, torch.full, torch.linspace, torch.ones, torch.zeros}
_MAKERS |= {torch.rand, torch.randint, torch.randn, torch.randperm}
_ALLOWED = Path("/sys/fs/cgroup/memory.max")
_BEYOND = ("overflow", "can't allocate memory")  # in what torch says of a size that cannot be


def kept_by(modules: Iterable[nn.Module]) -> dict[str, int]:
    """Bytes that these keep of the past beside what learns, on this process: "images", "parameters" and
    "codes". A module says by `memory_bytes` what it keeps, or else its parts do.
    """
    kept = dict.fromkeys(("images", "parameters", "codes"), 0)
    for module in modules:
        found = module.memory_bytes() if hasattr(module, "memory_bytes") else kept_by(module.children())
        kept |= {kind: kept[kind] + size for kind, size in found.items()}
    return kept


class OutOfMemory(InputError):
    """More is asked for than there is."""


def machine_memory() -> int:
    """Bytes of main memory, used or not; in a container, what it is allowed."""
    # Windows tells it in no such way; more than any machine has is no bound.
    there = (
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else sys.maxsize
    )
    with suppress(OSError, ValueError):  # no such file outside Linux, and "max" where there is no limit
        return min(there, int(_ALLOWED.read_text(encoding="ascii")))
    return there


def peak_memory() -> int | None:
    """Bytes of main memory that this process had at most; None where the system does not tell."""
    if resource is None:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def refuse_beyond_memory(num_bytes: float, what: str) -> None:
    """Raises OutOfMemory "<what> takes 256.0 GB, and this machine has 23.4 GB of memory."."""
    if num_bytes > (there := machine_memory()):
        size = f"{num_bytes / 1e9:,.1f} GB" if num_bytes < 1e21 else "more than can be numbered"
        raise OutOfMemory(f"{what} takes {size}, and this machine has {there / 1e9:,.1f} GB of memory.")


def is_beyond_memory(error: BaseException) -> bool:
    """Whether this is what torch, numpy or Python say where memory does not suffice."""
    text = str(error).lower()
    return isinstance(error, MemoryError | OverflowError) or any(words in text for words in _BEYOND)


class WithinMemory(TorchFunctionMode):
    """While it is entered, a tensor that does not fit beside those made before is refused unmade.

    Raises:
        OutOfMemory: in place of torch making the tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self._taken = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _MAKERS and str(kwargs.get("device") or "cpu") != "meta":
            plain = {name: value for name, value in kwargs.items() if name not in ("generator", "pin_memory")}
            try:
                self._taken += func(*args, **plain | {"device": "meta"}).nbytes
            except (RuntimeError, TypeError, ValueError) as error:
                self._taken += math.inf if is_beyond_memory(error) else 0
            sizes = " and ".join(map(str, args))
            refuse_beyond_memory(self._taken, f"a tensor of {sizes}, with those made before it,")
        return func(*args, **kwargs)
