"""Tells when something that we undo is no longer done."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
from types import SimpleNamespace

import lightning.fabric
from lightning.pytorch.loops.fit_loop import _FitLoop
from toys import make_trainer

from lit_gen.cli.launchers import lost_processes
from lit_gen.core.lightning_internals import without_gpu_checks


def test_a_run_on_a_cpu_does_not_ask_the_driver_for_gpus(monkeypatch):
    name = "PYTORCH_NVML_BASED_CUDA_CHECK"
    assert name in inspect.getsource(lightning.fabric), "Lightning sets it no more: drop without_gpu_checks"
    monkeypatch.setenv(name, "1")
    without_gpu_checks(make_trainer())
    assert name not in os.environ


def test_a_process_that_was_killed_is_named():
    trainer, (killed, working) = make_trainer(), (subprocess.Popen(["sleep", "60"]) for _ in range(2))
    trainer.strategy._launcher = SimpleNamespace(procs=[working])
    assert lost_processes(trainer.strategy) == []
    trainer.strategy._launcher.procs.append(killed)
    killed.kill()
    (said,) = lost_processes(trainer.strategy)
    assert re.search(rf"process 2 \(on .+, number {killed.pid}\) was ended by SIGKILL", said)
    working.kill()


def test_lightning_logs_an_epoch_after_its_last_callback():
    source = inspect.getsource(_FitLoop.on_advance_end)
    order = [source.index(call) for call in ("monitoring_callbacks=True", "update_train_epoch_metrics()")]
    assert order == sorted(order), "Lightning logs before the callbacks: drop log_epoch_now"
