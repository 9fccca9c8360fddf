"""Where words go: to the terminal and to log.txt of the run, from rank 0 alone."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

_OURS = ("lit_gen", "callbacks", "datamodules")


def log_to(file: Path | None, level: int | None = None) -> None:
    """Sends what our modules say to the terminal and to the file.

    Lightning's and MLflow's hints that do not concern a user of this program are left out.

    Args:
        level: what is less important is left out; None: everything where there is a file, and only errors
            where there is none, as in other processes than the first.
    """
    quiet = file is None and level is None
    level = level if level is not None else logging.ERROR if quiet else logging.INFO
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    handlers[0].setFormatter(logging.Formatter("%(message)s"))
    if file is not None:
        handlers.append(logging.FileHandler(file, encoding="utf-8"))
        handlers[1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in _OURS:
        logger = logging.getLogger(name)
        for old in logger.handlers:
            old.close()
        logger.handlers = list(handlers)
        logger.setLevel(level)
        logger.propagate = False
    for name in ("lightning.pytorch", "lightning.fabric", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for hint in (
        ".*in eval mode at the start of training.*",  # frozen parts, on purpose
        ".*predict returned None.*",  # phases that train nothing, on purpose
        ".*does not have many workers.*",  # data in memory needs none
        ".*is smaller than the logging interval.*",  # the rest of an epoch is logged at its end
        ".*treespec, LeafSpec.*",
        ".*srun. command is available.*",
        ".*Checkpoint directory .* exists and is not empty.*",
    ):
        warnings.filterwarnings("ignore", hint)
    if quiet:
        warnings.simplefilter("ignore")
