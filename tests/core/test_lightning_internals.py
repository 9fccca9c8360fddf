"""Tells when something that we undo is no longer done."""

from __future__ import annotations

import inspect
import os

import lightning.fabric
from toys import make_trainer

from lit_gen.core.lightning_internals import without_gpu_checks


def test_a_run_on_a_cpu_does_not_ask_the_driver_for_gpus(monkeypatch):
    name = "PYTORCH_NVML_BASED_CUDA_CHECK"
    assert name in inspect.getsource(lightning.fabric), "Lightning sets it no more: drop without_gpu_checks"
    monkeypatch.setenv(name, "1")
    without_gpu_checks(make_trainer())
    assert name not in os.environ
