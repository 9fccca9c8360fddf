"""A thread that carries calls to a service that may be slow or gone; the training loop never waits for it."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable

LONGEST_PAUSE = 60.0  # seconds between two tries
_FIRST_PAUSE = 0.05
_MOST_WAITING = 1000  # jobs; half an hour's, and what they hold is in the run folder too


class Courier:
    """Does jobs one after another, in the order they were sent, in a thread of its own.

    A job that fails is tried again, with pauses that grow, until it goes well; the others wait behind it.
    (MLflow's own asynchronous logging has the process wait for a dead server at exit, and takes no files.)

    Args:
        helps: whether trying again can help after this exception; else the job is dropped.
        on_trouble: told once of every time in which nothing goes, when that has lasted for `bearable`
            seconds, and with None when it is over.
        on_refusal: told of the first job that was dropped for its exception. Called by the thread.

    Attributes:
        takes_all: whether also more than 1000 jobs may wait.
        lacks: whether a job was dropped, for its exception or because too many were waiting.
    """

    def __init__(
        self,
        helps: Callable[[Exception], bool],
        on_trouble: Callable[[Exception | None], None],
        on_refusal: Callable[[Exception], None],
        bearable: float = 1.0,
    ) -> None:
        self.helps, self.on_trouble, self.on_refusal, self.bearable = helps, on_trouble, on_refusal, bearable
        self.takes_all = self.lacks = self.in_trouble = False
        self._jobs: queue.Queue[Callable[[], None]] = queue.Queue()
        # A daemon: a service that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="courier", daemon=True)
        self._is_awaited, self._telling = threading.Event(), threading.Lock()
        self._done = 0

    def send(self, job: Callable[[], None]) -> None:
        """Puts a job at the end of the queue; returns at once."""
        if not self.takes_all and self._jobs.qsize() >= _MOST_WAITING:
            self.lacks = True
            return
        if self._thread.ident is None:
            self._thread.start()
        self._jobs.put(job)

    def wait(self, patience: float, through_trouble: bool = True) -> bool:
        """Whether all jobs are done; False after so many seconds in which none was.

        Args:
            through_trouble: False: also as soon as there is trouble.
        """
        done, since = self._done, time.monotonic()
        self._is_awaited.set()
        while self._jobs.unfinished_tasks:
            if self._done != done:
                done, since = self._done, time.monotonic()
            if time.monotonic() - since > patience or (self.in_trouble and not through_trouble):
                break
            time.sleep(0.005)
        self._is_awaited.clear()
        return self.is_idle

    def say_trouble(self, error: Exception | None) -> None:
        """Tells of trouble, or with None of its end, unless that was told."""
        with self._telling:
            if self.in_trouble != (error is not None):
                self.on_trouble(error)
                self.in_trouble = error is not None

    @property
    def is_idle(self) -> bool:
        """Whether all jobs are done."""
        return not self._jobs.unfinished_tasks

    def _work(self) -> None:
        while True:
            self._do(self._jobs.get())
            self._done += 1
            self._jobs.task_done()

    def _do(self, job: Callable[[], None]) -> None:
        pause, start = _FIRST_PAUSE, time.monotonic()
        while True:
            try:
                job()
            except Exception as error:  # whatever it is, the run goes on without the service
                if not self.helps(error):
                    if not self.lacks:
                        self.on_refusal(error)
                    self.lacks, self.in_trouble = True, False
                    return
                if time.monotonic() - start > self.bearable:
                    self.say_trouble(error)
            else:
                self.say_trouble(None)
                return
            # Others may be waiting for the same lock. Not from the global generator: it is the training's.
            self._rest(pause * random.SystemRandom().uniform(0.5, 1))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _rest(self, seconds: float) -> None:
        """Waits so long, or a second where somebody waits for the jobs."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not (seconds > 1 and self._is_awaited.is_set()):
            time.sleep(min(left, 0.1))
        if left > 0:
            time.sleep(min(left, 1))
