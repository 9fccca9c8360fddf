"""Processes for tests, forked off one that has imported everything: imports are five seconds of a start."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lit_gen.__main__
from lit_gen.cli.lock import RunLock

_SERVER = multiprocessing.get_context("forkserver")


class Started:
    """A function in a process of its own, which begins at once; what it says is kept in a file.

    Args:
        function: of a module, by itself.
        environment: beside that of the tests.
    """

    def __init__(self, function: Callable[..., object], *args: object, **environment: str) -> None:
        self._said = tempfile.NamedTemporaryFile("r", encoding="utf-8", prefix="said-")  # noqa: SIM115
        _SERVER.set_forkserver_preload(["lit_gen.cli.train"])
        # By file and name: pytest imports tests under names that no other process knows.
        job = (function.__code__.co_filename, function.__name__, args)
        said = (self._said.name, {**os.environ, **environment})
        self._process = _SERVER.Process(target=_alone, args=(*said, *job))
        self._process.start()

    def send(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def reach(self, moment: Callable[[], bool]) -> Started:
        """Waits until `moment()` holds."""
        limit = time.monotonic() + 120
        while not moment():
            assert self._process.is_alive(), self.output
            assert time.monotonic() < limit, "the moment never came"
            time.sleep(0.002)
        return self

    def ended(self, code: int = 0) -> str:
        """What it said, after it has ended with this code (minus a signal's number)."""
        self._process.join(300)
        assert self._process.exitcode == code, self.output
        return self.output

    @property
    def output(self) -> str:
        return Path(self._said.name).read_text(encoding="utf-8")


@contextmanager
def locked_by_another(folder: Path) -> Iterator[int]:
    """Inside, a process with this number holds a run folder; then it is killed."""
    told, tell = os.pipe()
    if (pid := os.fork()) == 0:
        RunLock(folder).take()
        os.write(tell, b"x")
        time.sleep(120)
        os._exit(1)
    os.read(told, 1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(told), os.close(tell)


def start(*words: str, **environment: str) -> Started:
    """The command line in a process of its own."""
    return Started(command_line, *words, **environment)


def together(world: int, function: Callable[..., object], *args: object) -> None:
    """Runs a function in so many processes with the environment that torchrun gives them; all end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "none"}
    common |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "GROUP_RANK": "0"}
    ranks = [str(rank) for rank in range(world)]
    for process in [Started(function, *args, RANK=rank, LOCAL_RANK=rank, **common) for rank in ranks]:
        process.ended()


def command_line(*words: str) -> None:
    """`lit-gen` as if this process were its own."""
    # With several devices Lightning starts the program again for each of them, by what it finds here.
    sys.modules["__main__"], sys.argv = lit_gen.__main__, [lit_gen.__main__.__file__, *words]
    sys.exit(lit_gen.__main__.main(list(words)))


def _alone(said: str, environment: dict[str, str], file: str, name: str, args: tuple[object, ...]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    os.environ.clear()
    os.environ.update(environment, PYTHONPATH=os.pathsep.join(sys.path))  # for what it starts itself
    with open(said, "a", encoding="utf-8") as words:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(words.fileno(), stream.fileno())
    runpy.run_path(file)[name](*args)
