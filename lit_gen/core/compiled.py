"""torch.compile for a model's networks, in place."""

from __future__ import annotations

from torch import nn

from lit_gen.core.frozen import FrozenCopy
from lit_gen.core.module import LitModel


def compile_networks(model: nn.Module, mode: str) -> None:
    """Compiles every network that a model calls; names of its state and its copies stay what they are.

    A module that only holds others, as a wrapped model does, is not called itself: its parts are compiled.
    Losses that differentiate a gradient (gradient penalties) cannot be compiled.

    Args:
        mode: of `torch.compile`.
    """
    for part in model.children():
        if isinstance(part, LitModel | FrozenCopy) or not _is_called(part):
            compile_networks(part, mode)
        else:
            part.compile(mode=mode)


def _is_called(module: nn.Module) -> bool:
    return type(module).forward is not nn.Module.forward
