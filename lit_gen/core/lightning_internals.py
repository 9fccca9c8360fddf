"""What we undo of Lightning's doings that its public settings do not reach; each with a test that tells when
it is no longer needed."""

from __future__ import annotations

import os

from lightning import Trainer


def without_gpu_checks(trainer: Trainer) -> None:
    """On a CPU, stops every optimizer step from asking the driver for GPUs again: 5 % of a small network's.

    Lightning sets this variable of torch so that processes can fork safely after the question; here nothing
    forks.
    """
    if trainer.strategy.root_device.type == "cpu":
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)


def without_own_signals(trainer: Trainer) -> None:
    """Leaves signals to the program, also between fits.

    On SIGTERM Lightning's handler sends the processes a sum of its own, between two of the training's that
    not all may have reached, and looks for it after a batch, not in a test; on SIGUSR1 under SLURM it writes
    a checkpoint that every later fit would start from.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None


def log_epoch_now(trainer: Trainer) -> None:
    """Logs the means of a training epoch, which Lightning does after the last callback of the epoch's end.

    For that last callback. Lightning finds nothing left to log then; monitors keep what they look at.
    """
    connector, loop = trainer._logger_connector, trainer.fit_loop.epoch_loop
    connector.on_epoch_end()
    loop._batches_that_stepped -= 1  # as Lightning does: the step of the last batch
    connector.update_train_epoch_metrics()
    loop._batches_that_stepped += 1
