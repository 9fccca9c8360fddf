"""A folder is its holder's while that one lives, and no longer."""

from __future__ import annotations

import json
import os
import threading
import time

import pytest
from processes import locked_by_another

from lit_gen.cli import lock
from lit_gen.cli.lock import LOCK, RunLock
from lit_gen.core.types import InputError


def test_a_living_holder_is_named_and_a_killed_one_keeps_nobody_out(tmp_path):
    with (
        locked_by_another(tmp_path) as pid,
        pytest.raises(InputError, match=rf"process {pid} on .*, started 20\d\d-"),
    ):
        RunLock(tmp_path).take()
    own = RunLock(tmp_path)
    own.take()
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    own.release()
    assert not (tmp_path / LOCK).exists()
    own.release()  # twice is as once


@pytest.mark.parametrize("works", [True, False], ids=["locks of one machine only", "no locks at all"])
def test_on_a_network_file_system_a_heart_beat_tells_who_lives(tmp_path, monkeypatch, works):
    monkeypatch.setattr(lock, "_SILENCE", 0.5)
    monkeypatch.setattr(lock, "_BEAT", 0.1)
    if not works:
        monkeypatch.setattr(lock, "fcntl", None)
    file, there = tmp_path / LOCK, threading.Event()
    file.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": "2026"}))

    def beat() -> None:
        while not there.wait(0.1):
            os.utime(file)

    other = threading.Thread(target=beat)
    other.start()
    with pytest.raises(InputError, match="process 1 on elsewhere, started 2026"):
        RunLock(tmp_path).take()
    there.set(), other.join()
    own = RunLock(tmp_path)
    own.take()  # after half a second without a sign of life
    before = file.stat().st_mtime_ns
    time.sleep(0.3)
    assert file.stat().st_mtime_ns > before  # beats itself
    own.release()


def test_a_look_at_the_holder_keeps_nobody_out(tmp_path):
    lock, other = RunLock(tmp_path), RunLock(tmp_path)
    assert not other.is_alive()
    lock.take()
    assert other.is_alive() and lock.is_ours and not other.is_ours
    long_ago = lock.path.stat().st_mtime - 61
    os.utime(lock.path, (long_ago, long_ago))
    assert not other.is_alive()
    lock.release()
    assert not list(tmp_path.iterdir())
