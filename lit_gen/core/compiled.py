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
        only_holds = type(part).forward is nn.Module.forward
        if isinstance(part, LitModel | FrozenCopy) or only_holds:
            compile_networks(part, mode)
        else:
            part.compile(mode=mode)
