"""One process at a time writes into the folder of a run; one that died keeps nobody out."""

from __future__ import annotations

import json
import logging
import os
import socket
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lit_gen.core.types import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"
_BEAT, _SILENCE = 10.0, 60.0  # seconds

log = logging.getLogger(__name__)


class RunLock:
    """The file `.lock` of a run folder, with host, process id and start of the process that works there.

    The operating system tells whether that process lives: it holds a lock of `fcntl` on the file, which goes
    with it however it ends. On a network file system such a lock may count on one machine only, or not exist;
    so the holder also renews the file's time every 10 s, and one on another machine (without locks: any one)
    is taken for dead when 60 s have passed without. Until then a second process waits and looks. All times
    are the file system's own: the clocks of the machines may differ.
    """

    def __init__(self, folder: Path, name: str = LOCK) -> None:
        self.path = folder / name
        self._file: int | None = None
        self._released = threading.Event()

    def take(self) -> None:
        """Holds the folder; InputError where a living process has it, or it cannot be written."""
        dead = None
        while self._file is None:
            try:
                file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise InputError(f"{self.path}: cannot be written ({error.strerror})") from error
            got, holder = _locked(file), _read(file)
            is_near = got is not None and holder.get("host") == socket.gethostname()
            if got is not False and (not holder or is_near or holder == dead):
                if self._is_there(file):
                    self._file = file
                else:  # its holder has removed it meanwhile
                    os.close(file)
                continue
            os.close(file)
            if got is False or self._beats():
                pid, host, started = (holder.get(key, "?") for key in ("pid", "host", "started"))
                raise InputError(
                    f"{self.path.parent}: process {pid} on {host}, started {started}, "
                    "works on this run. Nothing was changed; wait until it has ended, or stop it."
                )
            dead = holder
        note = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        }
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps(note).encode(), 0)
        self._released.clear()
        threading.Thread(target=self._beat, args=(self._file,), name="lock", daemon=True).start()

    @property
    def is_ours(self) -> bool:
        return self._file is not None

    def is_alive(self) -> bool:
        """Whether its holder gave a sign of life in the last 60 s. Keeps nobody out, not for a moment."""
        with suppress(OSError):
            last = self.path.stat().st_mtime
            with tempfile.TemporaryFile(dir=self.path.parent) as now:
                return os.fstat(now.fileno()).st_mtime - last < _SILENCE
        return False

    def release(self) -> None:
        """Lets others in; nothing where it was not held."""
        if self._file is not None:
            self._released.set()
            self.path.unlink(missing_ok=True)
            # The file must not be opened and closed elsewhere in this process: that ends the lock, too.
            os.close(self._file)
            self._file = None

    def _is_there(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self.path.stat())
        except FileNotFoundError:
            return False

    def _beat(self, file: int) -> None:
        while not self._released.wait(_BEAT):
            with suppress(OSError):
                os.utime(file)

    def _beats(self) -> bool:
        """Whether the file's time is renewed before it is 60 s old; False at once where it is."""
        with tempfile.TemporaryFile(dir=self.path.parent) as now:
            first = self._time()
            left = _SILENCE - (os.fstat(now.fileno()).st_mtime - first)
        if left > 0:
            log.warning("%s: looking for at most %.0f s whether its process lives", self.path, left)
        end = time.monotonic() + left
        while time.monotonic() < end:
            time.sleep(min(1.0, left))
            if self._time() != first:
                return True
        return False

    def _time(self) -> float:
        """Of the last sign of life, -inf for none. Opened anew, so that network file systems ask."""
        try:
            with self.path.open("rb") as file:
                return os.fstat(file.fileno()).st_mtime
        except OSError:
            return -float("inf")


def _locked(file: int) -> bool | None:
    """Whether the lock is ours now; None where the file system has none."""
    if fcntl is None:
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _read(file: int) -> dict[str, Any]:
    """Who holds it; {} where nobody has said so."""
    try:
        found = json.loads(os.pread(file, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
