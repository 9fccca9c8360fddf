"""Signals that stop a program, and further processes that end with the first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from lit_gen.cli.stop import told_to_stop

FURTHER = """
import time
from lit_gen.cli.parent import bound_to_first_process
with bound_to_first_process():
    print("bound", flush=True)
    time.sleep(60)
"""
FIRST = f"""
import os, subprocess, sys, time
from lit_gen.cli.parent import bound_to_first_process
with bound_to_first_process():
    further = subprocess.Popen([sys.executable, "-c", {FURTHER!r}], env=os.environ | {{"LOCAL_RANK": "1"}})
    time.sleep(60)
"""


@pytest.mark.parametrize(
    "sent", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU]
)
def test_a_signal_stops_once_with_its_number(sent, capsys):
    before = signal.getsignal(sent)
    with pytest.raises(SystemExit) as ended, told_to_stop():
        os.kill(os.getpid(), sent)
        time.sleep(1)
    assert ended.value.code == 128 + sent and capsys.readouterr().err == "lit-gen: stopped\n"
    assert signal.getsignal(sent) == before


def test_what_is_ignored_stays_so_and_an_end_is_not_disturbed():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with told_to_stop() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            stop.is_late = True
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.code is None
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_further_process_ends_with_the_first(sent):
    first = subprocess.Popen([sys.executable, "-c", FIRST], stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "bound\n"
    start = time.monotonic()
    first.send_signal(sent)
    first.wait()
    assert first.stdout.read() == ""  # ends when nobody holds its other end any more
    assert time.monotonic() - start < 30


def test_a_further_process_whose_first_has_died_before_does_not_begin():
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    variables = os.environ | {"LIT_GEN_FIRST_PROCESS": str(dead.pid), "LOCAL_RANK": "1"}
    ended = subprocess.run([sys.executable, "-c", FURTHER], env=variables, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
