"""A thread that carries calls to a service that may be slow or gone; the training loop never waits for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class Courier:
    """Does jobs one after another, in the order they were sent, in a thread of its own.

    The first job that raises ends the service: `on_failure` is told once, and further jobs are dropped.
    (MLflow's own asynchronous logging tries a dead server again for every batch, has the process wait for it
    at exit, and takes no files.)

    Args:
        on_failure: called with what went wrong, from either thread.
    """

    def __init__(self, on_failure: Callable[[Exception], None]) -> None:
        self.on_failure, self.failed = on_failure, False
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._sent = self._done = 0

    def send(self, job: Callable[[], None]) -> None:
        """Puts a job at the end of the queue; returns at once."""
        if self.failed:
            return
        if self._thread is None:
            # A daemon: a service that hangs must not keep the process alive.
            self._thread = threading.Thread(target=self._work, name="courier", daemon=True)
            self._thread.start()
        with self._changed:
            self._sent += 1
        self._jobs.put(job)

    def wait(self, patience: float) -> bool:
        """Whether all jobs were done; a single one that takes more seconds than `patience` is a failure."""
        with self._changed:
            while (done := self._done) < self._sent and not self.failed:
                if not self._changed.wait_for(lambda n=done: self._done > n or self.failed, patience):
                    self._fail(TimeoutError(f"no answer within {patience:g} s"))
        return not self.failed

    def _work(self) -> None:
        while True:
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
            if not self.failed:
                self.on_failure(error)  # before anybody can see that it failed
                self.failed = True
            self._changed.notify_all()
