"""What Lightning does per batch for nothing, left out: a small network's step is hardly longer."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from lightning import Callback, LightningModule
from lightning.pytorch.profilers import Profiler

_BATCH_HOOKS = (
    *("on_train_batch_start", "on_train_batch_end", "on_before_zero_grad"),
    *("on_before_backward", "on_after_backward", "on_before_optimizer_step"),
)


class NoProfiler(Profiler):
    """Measures nothing. Lightning's own way of doing so makes some seventy generators per batch."""

    _NOTHING = nullcontext()

    def start(self, action_name: str) -> None:
        pass

    def stop(self, action_name: str) -> None:
        pass

    def profile(self, action_name: str) -> AbstractContextManager[None]:
        return self._NOTHING


def without_empty_hooks(module: LightningModule, callbacks: Iterable[Callback]) -> None:
    """Takes the batch hooks that do nothing away; Lightning skips a hook that cannot be called."""
    for part, base in ((module, LightningModule), *((callback, Callback) for callback in callbacks)):
        for name in _BATCH_HOOKS:
            if getattr(type(part), name) is getattr(base, name):
                setattr(part, name, None)


@contextmanager
def old_objects_left_alone() -> Iterator[None]:
    """Inside, Python's collector does not walk through what was there before: all the loaded packages."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
