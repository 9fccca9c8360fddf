"""A thread that carries calls to a service that may be slow or gone; the training loop never waits for it."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class Courier:
    """Runs jobs one after another, in the order they were sent, in a thread of its own.

    The first job that raises ends the service: `on_failure` is told once, and all further jobs are dropped.

    Args:
        name: of the thread.
        on_failure: called with what went wrong, from either thread.
    """

    def __init__(self, name: str, on_failure: Callable[[Exception], None]) -> None:
        self.name, self.on_failure = name, on_failure
        self.failed = False
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._sent = self._done = 0
        self._told = False

    def send(self, job: Callable[[], None]) -> None:
        """Puts a job at the end of the queue; returns at once."""
        if self.failed:
            return
        if self._thread is None:
            # A daemon: a service that hangs must not keep the process alive.
            self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
            self._thread.start()
        self._sent += 1
        self._jobs.put(job)

    def wait(self, patience: float) -> bool:
        """Waits until all jobs are done.

        Args:
            patience: seconds that a single job may take; after that the service counts as failed.

        Returns:
            Whether all jobs were done.
        """
        seen, deadline = -1, 0.0
        with self._changed:
            while self._done < self._sent and not self.failed:
                if self._done != seen:
                    seen, deadline = self._done, time.monotonic() + patience
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            finished = self._done >= self._sent
        if not finished and not self.failed:
            self._fail(TimeoutError(f"no answer within {patience:g} s"))
        return not self.failed

    def _work(self) -> None:
        while not self.failed:
            job = self._jobs.get()
            try:
                if not self.failed:
                    job()
            except Exception as error:  # whatever it is, the run goes on without the service
                self._fail(error)
            with self._changed:
                self._done += 1
                self._changed.notify_all()

    def _fail(self, error: Exception) -> None:
        with self._changed:
            first, self._told = not self._told, True
        if first:
            self.on_failure(error)  # before anybody can see that it failed
        with self._changed:
            self.failed = True
            self._changed.notify_all()
