"""A thread that carries calls to a service that may be slow or gone; the training loop never waits for it."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable


class Courier:
    """Does jobs one after another, in the order they were sent, in a thread of its own.

    The first job that raises ends the service: `on_failure` is told once, from either thread, and further
    jobs are dropped. (MLflow's own asynchronous logging tries a dead server again for every batch, has the
    process wait for it at exit, and takes no files.)
    """

    def __init__(self, on_failure: Callable[[Exception], None]) -> None:
        self.on_failure, self.failed = on_failure, False
        self._jobs: queue.Queue[Callable[[], None]] = queue.Queue()
        # A daemon: a service that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="courier", daemon=True)
        self._telling = threading.Lock()
        self._since = math.inf  # when the job at hand was begun

    def send(self, job: Callable[[], None]) -> None:
        """Puts a job at the end of the queue; returns at once."""
        if not self.failed:
            if self._thread.ident is None:
                self._thread.start()
            self._jobs.put(job)

    def wait(self, patience: float) -> bool:
        """Whether all jobs were done; a single one that takes more seconds than `patience` is a failure."""
        while self._jobs.unfinished_tasks and not self.failed:
            if time.monotonic() - self._since > patience:
                self._fail(TimeoutError(f"no answer within {patience:g} s"))
            time.sleep(0.005)
        return not self.failed

    def _work(self) -> None:
        while True:
            job, self._since = self._jobs.get(), time.monotonic()
            try:
                if not self.failed:
                    job()
            except Exception as error:  # whatever it is, the run goes on without the service
                self._fail(error)
            self._since = math.inf
            self._jobs.task_done()

    def _fail(self, error: Exception) -> None:
        with self._telling:
            if not self.failed:
                self.on_failure(error)  # before anybody can see that it failed
                self.failed = True
