"""Deep generative models and continual generative learning on PyTorch Lightning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lit_gen.core.module import LitModel

__version__ = "0.2.0"


def load(path: str | Path) -> LitModel:
    """The model of a checkpoint or of a run folder, ready to use: `lit_gen.load("runs/...").sample(64)`.

    It is rebuilt from the configuration inside the checkpoint, on the CPU and in evaluation mode.

    Raises:
        InputError: the file is missing, damaged or not a checkpoint of this program.
    """
    # Not at the top: the command line's --help must not wait for torch.
    from lit_gen.cli.rebuild import rebuild
    from lit_gen.core.checkpoint import read

    return rebuild(read(path)).module
