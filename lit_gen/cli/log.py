"""Where words and numbers go: words to the terminal and to log.txt of the run, from rank 0 alone."""

from __future__ import annotations

import inspect
import logging
import warnings
from pathlib import Path

from lightning.pytorch.loggers import Logger

from lit_gen.cli.allowed import locate
from lit_gen.cli.building import build
from lit_gen.cli.config import Composed
from lit_gen.tracking.connection import with_secrets
from lit_gen.tracking.masking import without_secrets

_HINTS = (
    ".*in eval mode at the start of training.*",  # frozen parts, on purpose
    ".*predict returned None.*",  # phases that train nothing, on purpose
    ".*does not have many workers.*",  # data in memory needs none
    ".*is smaller than the logging interval.*",  # the rest of an epoch is logged at its end
    ".*treespec, LeafSpec.*",
    ".*srun. command is available.*",
    ".*Checkpoint directory .* exists and is not empty.*",
)


def log_to(file: Path | None, level: int | None = None) -> None:
    """Sends what our modules say to the terminal and to the file.

    Hints of others that concern no user of this program are left out.

    Args:
        level: what is less important is left out; None: everything where there is a file, and only errors
            where there is none, as in other processes than the first.
    """
    level = level or (logging.ERROR if file is None else logging.INFO)
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    handlers[0].setFormatter(_Formatter())
    if file is not None:
        handlers.append(_LogFile(file, encoding="utf-8"))
        handlers[1].setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("lit_gen", "callbacks", "datamodules"):
        logger = logging.getLogger(name)
        for old in logger.handlers:
            old.close()
        logger.handlers, logger.propagate = list(handlers), False
        logger.setLevel(level)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for hint in (".*",) if level == logging.ERROR else _HINTS:
        warnings.filterwarnings("ignore", hint)


class _Formatter(logging.Formatter):
    """Shows no secret, whoever speaks and whatever was typed."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


class _LogFile(logging.FileHandler):
    """Silent about a disk that is full: whoever writes what matters says so."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


def run_logger(composed: Composed, folder: Path, next_step: int | None = None) -> Logger | None:
    """The configured logger, told the run's `folder` and `next_step` if it takes them.

    Args:
        next_step: that a resumed run logs first, whatever it had logged before it was stopped.

    Raises:
        InputError: its arguments cannot be used, or a secret of a stored configuration was not given again.
    """
    node = with_secrets(composed.config)["logger"]
    known = inspect.signature(locate(node["_target_"])).parameters if node else ()
    given = {"folder": str(folder), "next_step": next_step}
    return build(node, "logger", **{name: value for name, value in given.items() if name in known})
