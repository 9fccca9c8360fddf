"""A picture goes to every logger in the way that it takes one."""

from types import SimpleNamespace

import numpy as np
import torch
from lightning.pytorch.loggers import CometLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

from lit_gen.tracking.pictures import log_picture


def silent(kind: type, **parts):
    """A logger of this kind without its service."""
    return type(kind.__name__, (kind,), {"__init__": lambda self: None, **parts})()


class Own:
    def log_image(self, key, image, step):
        self.got = (key, image, step)


def test_each_logger_gets_what_it_takes():
    image, calls = torch.arange(24, dtype=torch.uint8).view(2, 4, 3), []

    def note(*given, **named):
        calls.append((given, named))

    service, own = SimpleNamespace(log_image=note, add_image=note), Own()
    loggers = [
        silent(CometLogger, experiment=service),
        silent(MLFlowLogger, experiment=service, run_id="r"),
        silent(TensorBoardLogger, experiment=service),
        silent(WandbLogger, log_image=lambda self, key, images, step=None: note(key, images, step=step)),
        *(own, object()),
    ]
    log_picture(loggers, "grid", image, 7)
    (comet, mlflow, board, wandb), pixels = calls, image.numpy()
    assert np.array_equal(comet[0][0], pixels) and comet[1] == {"name": "grid", "step": 7}
    assert mlflow[0][0] == "r" and np.array_equal(mlflow[0][1], pixels)
    assert mlflow[1] == {"key": "grid", "step": 7}
    assert board[0][0] == "grid" and board[0][2] == 7 and board[1] == {"dataformats": "HWC"}
    (key, images), named = wandb
    assert (key, named) == ("grid", {"step": 7}) and isinstance(images, list)
    assert np.array_equal(images[0], pixels) and own.got == ("grid", image, 7)
