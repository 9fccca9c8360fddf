"""Signals that tell a program to stop: of `kill`, a closed terminal, a cluster. Ctrl-C is Python's own."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_gen.cli.launchers import rank

_NAMES = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
_PATIENCE = 10.0  # seconds for the first process to end the run


class Stop:
    """What was told to this process.

    The first of several processes stops where it is, as after Ctrl-C; its checkpoint is an epoch or ten
    seconds old, whichever is longer. The others go on until it has ended: it may wait for them in the middle
    of a sum.

    Attributes:
        code: 128 and the number of the signal that told the program to stop; None so far.
        is_late: there is nothing left to stop; the end is not to be disturbed.
    """

    def __init__(self) -> None:
        self.code, self.is_late = None, False
        self._process = os.getpid()

    @property
    def exit_code(self) -> int:
        """Of a program that was told to stop, by Ctrl-C where it was no other way."""
        return self.code or 128 + signal.SIGINT

    def __call__(self, number: int, frame: FrameType | None) -> None:
        # Workers that load data inherit this. A terminal that closes tells it twice.
        if os.getpid() != self._process or self.is_late or self.code is not None:
            return
        self.code = 128 + number
        if hasattr(signal, "SIGCHLD"):
            # What was told with us ends now, and is no reason for torch to raise.
            signal.signal(signal.SIGCHLD, lambda *_: None)
        if rank() == 0:
            raise SIGTERMException(self.code)
        last = threading.Timer(_PATIENCE, os._exit, [self.code])
        last.daemon = True
        last.start()


@contextmanager
def told_to_stop() -> Iterator[Stop]:
    """Inside, a signal that tells the program to stop raises SIGTERMException, a SystemExit, once.

    What is ignored, as SIGHUP under nohup, stays so, and so do handlers of others. Ctrl-C ends without a
    traceback.
    """
    stop = Stop()
    ours: list[int] = []
    if threading.current_thread() is threading.main_thread():
        there = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
        ours = [number for number in there if signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, stop)
    try:
        yield stop
    except (KeyboardInterrupt, SIGTERMException):  # a run that had begun has said more
        sys.stderr.write("lit-gen: stopped\n")
        raise SystemExit(stop.exit_code) from None
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
