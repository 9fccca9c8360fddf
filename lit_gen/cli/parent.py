"""A process that Lightning starts for a further device ends with the first one, whenever that dies."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_FIRST = "LIT_GEN_FIRST_PROCESS"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@contextmanager
def bound_to_first_process() -> Iterator[None]:
    """Inside, the processes that this one starts by its own command line end with it; it may be one itself.

    Those of torchrun and srun are their launcher's: they inherit no number of a first process.
    """
    first = os.environ.get(_FIRST)
    if first and os.environ.get("LOCAL_RANK", "0") != "0":
        _end_with(int(first))
        yield
        return
    os.environ[_FIRST] = str(os.getpid())
    try:
        yield
    finally:
        os.environ.pop(_FIRST, None)


def _end_with(parent: int) -> None:
    """From now on; at once where it is dead already. Nothing is lost: only the first process writes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    elif os.name == "posix":
        threading.Thread(target=_watch, args=(parent,), name="parent", daemon=True).start()
    if os.name == "posix" and os.getppid() != parent:
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
