"""What a configuration may build, whoever wrote it: a checkpoint, a run's folder or the command line.

A `_target_` is a name, and whatever Python can import has one: `os.system`, `torch.hub.load`, a file in the
current folder. Its package is decided before anything is imported, its kind afterwards, by where the object
itself was defined, since modules also hold what they import. `trust=my_package` opens a package of one's own.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from lightning import Callback, Trainer
from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment, Precision
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import LayerSync
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from lit_gen.cli import did_you_mean
from lit_gen.core.types import InputError

_OF_LIGHTNING = (Trainer, Callback, Logger, Strategy, Accelerator, Profiler)
_OF_LIGHTNING += (CheckpointIO, ClusterEnvironment, Precision, LayerSync)
_ANY = (object,)
_CLASSES: dict[str, tuple[type, ...]] = {
    "torch.nn": (nn.Module,),
    "torch.optim": (Optimizer, LRScheduler),
    "torchmetrics": (Metric,),
    "lightning": _OF_LIGHTNING,
    "callbacks": (Callback,),
    "lit_gen.tracking": (Logger,),
    "datamodules": _ANY,
    "lit_gen.continual": _ANY,
    "lit_gen.core.batch": _ANY,
    "lit_gen.core.schedules": _ANY,
    "lit_gen.core.types": _ANY,
    "lit_gen.diffusion": _ANY,
    "lit_gen.evaluation.judges": _ANY,
    "lit_gen.evaluation.reports": _ANY,
    "lit_gen.families": _ANY,
    "lit_gen.losses": _ANY,
    "lit_gen.metrics": _ANY,
    "lit_gen.nets": _ANY,
}
"""Place -> the kinds of its classes. A package is not enough: `torch.load` is a function of torch."""
_FUNCTIONS = ("lit_gen.diffusion", "lit_gen.losses", "lit_gen.tracking.pictures.tensorboard")
_CLOSED = (
    *(f"torchmetrics.image.{name}" for name in ("fid", "inception", "kid", "mifid")),
    *(f"torchmetrics.image.{name}" for name in ("arniqa", "lpip", "perceptual_path_length")),
    *("torchmetrics.audio", "torchmetrics.multimodal", "torchmetrics.text"),
)
"""Their constructors read or fetch networks, and torch-fidelity's unpickle whatever lies in the file."""
_OWN = ("lit_gen", "datamodules", "callbacks")
_PACKAGES = (*dict.fromkeys(place.partition(".")[0] for place in _CLASSES), "torch_fidelity")
_NEVER = {*sys.stdlib_module_names, *_PACKAGES, "builtins", "hydra", "omegaconf"}

_trusted: ContextVar[tuple[str, ...]] = ContextVar("trusted", default=())


@contextmanager
def trusting(packages: Sequence[str]) -> Iterator[None]:
    """Inside, configurations may build whatever these packages define.

    Nothing is kept: no file that a run writes says what was trusted.

    Raises:
        InputError: one is no package of the user's own.
    """
    for name in packages:
        top = name.partition(".")[0]
        if not all(part.isidentifier() for part in name.split(".")):
            raise InputError(f"trust={name}: expected the name of a package, such as trust=my_package")
        if top in _NEVER:
            raise InputError(
                f"trust={name}: is for packages of your own; what a configuration may build of {top} is "
                "settled. A function of your own package may call the rest"
            )
        _find(top, name)
    before = _trusted.set((*_trusted.get(), *packages))
    try:
        yield
    finally:
        _trusted.reset(before)


def foreign(node: Any) -> set[str]:
    """The packages, other than those whose parts are settled, that the targets of a node are of."""
    values = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    found = set().union(*map(foreign, values))
    if isinstance(node, dict) and "_target_" in node:
        found |= {str(node["_target_"]).partition(".")[0]} - set(_PACKAGES)
    return found


def trusted() -> tuple[str, ...]:
    """The packages that are trusted here."""
    return _trusted.get()


def locate(path: Any) -> Callable[..., Any]:
    """The class or function at a dotted path, if a configuration may build it.

    Raises:
        InputError: there is none, or it may not; an ImportError inside an allowed module is not caught.
    """
    parts = path.split(".") if isinstance(path, str) else []
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise InputError(f"expected a dotted path such as lit_gen.families.vae.VAE, got {path}")
    is_own = _is_in(path, trusted())
    if not is_own:
        _refuse_place(path)
    _find(parts[0], path)
    found: Any = importlib.import_module(parts[0])
    for depth, part in enumerate(parts[1:], 1):
        way, inside = ".".join(parts[:depth]), getattr(found, "__path__", None)
        if not hasattr(found, part) and inside and importlib.util.find_spec(f"{way}.{part}"):
            importlib.import_module(f"{way}.{part}")
        if not hasattr(found, part):
            names = [*dir(found), *(module.name for module in pkgutil.iter_modules(inside or ()))]
            raise InputError(f"{path}: {way} has no {part!r}. {did_you_mean(part, names)}".rstrip())
        found = getattr(found, part)
        is_last = depth == len(parts) - 1
        # Whatever a module has imported can be reached through it: lit_gen.core.files.os.
        is_elsewhere = isinstance(found, ModuleType) and found.__name__ != f"{way}.{part}"
        if is_elsewhere or not (
            is_last or isinstance(found, ModuleType) or (is_own and inspect.isclass(found))
        ):
            raise InputError(f"{path}: {way}.{part} is no part of {way}; name a target where it is defined")
    if not callable(found):
        raise InputError(f"{path} is a {type(found).__name__}; a target is a class or a function.")
    _refuse_kind(path, found)
    return found


def _refuse_place(path: str) -> None:
    """Raises InputError for what need not even be imported to know that it is not allowed."""
    top, around = path.partition(".")[0], path.rpartition(".")[0]
    if top == "hydra":
        raise InputError(
            f"the configuration asks for {path}, which builds what nobody has looked at; for a class or a "
            "function itself write {_target_: <its path>, _partial_: true}"
        )
    if top in _NEVER and top not in _PACKAGES:
        raise InputError(f"the configuration asks for {path}, which no part of a model is made of")
    if top not in _PACKAGES:
        text = f"the configuration asks for {path}; if you wrote it or trust it: trust={top}"
        missing = "" if importlib.util.find_spec(top) else f". {_missing(top)}"
        raise InputError(f"{text}{missing}. {did_you_mean(top, _PACKAGES)}".rstrip(". "))
    # A class may be named where it is defined, or in a package around: lightning.Trainer.
    is_near = _is_in(path, (*_OWN, *_CLASSES)) or any(_is_in(place, (around,)) for place in _CLASSES)
    if not is_near or _is_in(path, _CLOSED):
        raise _not_allowed(path)
    if any(part.startswith("_") for part in path.split(".")):
        raise InputError(f"the configuration asks for {path}, which is private there")


def _refuse_kind(path: str, found: Any) -> None:
    """Raises InputError unless the object is of a kind that its own place is open for."""
    home = getattr(found, "__module__", None)
    where = f"{home}.{getattr(found, '__qualname__', '')}"
    if not isinstance(home, str) or not (inspect.isclass(found) or inspect.isroutine(found)):
        raise InputError(f"{path} is a {type(found).__name__}; a target is a class or a function.")
    if _is_in(where, trusted()):
        return
    if inspect.isclass(found):
        kinds = [kind for place, of in _CLASSES.items() if _is_in(where, (place,)) for kind in of]
        is_allowed = issubclass(found, tuple(kinds)) and not _is_in(where, _CLOSED)
    else:
        is_allowed = inspect.isfunction(found) and _is_in(where, _FUNCTIONS)
    if not is_allowed:
        raise _not_allowed(path, where if where.partition(".")[0] != path.partition(".")[0] else "")


def _not_allowed(path: str, where: str = "") -> InputError:
    is_other = f", which is {where}" if where else ""
    return InputError(
        f"the configuration asks for {path}{is_other}; a package is not enough. Configurations build "
        "modules, losses, priors, splits, data, optimizers, schedules, callbacks, metrics, judges, loggers, "
        "and the Trainer with its plugins. What else you need, put into a package of your own: "
        "trust=my_package"
    )


def _find(package: str, asked: str) -> None:
    """Raises InputError where there is no such package; imports nothing."""
    if package not in sys.modules and importlib.util.find_spec(package) is None:  # "__main__" has no spec
        raise InputError(f"{asked}: {_missing(package)}")


def _missing(package: str) -> str:
    return (
        f"There is no package {package!r} here: install it, or if it lies in the current folder, write "
        "PYTHONPATH=. before the command."
    )


def _is_in(path: str, places: Iterable[str]) -> bool:
    return any(f"{path}.".startswith(f"{place}.") for place in places)
