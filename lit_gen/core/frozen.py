"""A network that is kept but never trained."""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor, nn


class FrozenCopy(nn.Module):
    """A copy of a network: always in evaluation mode, never with gradients, part of the state dict.

    Made in `__init__` of the model that keeps it, so that the set of state keys never changes.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).requires_grad_(False)
        super().train(False)

    def refresh(self, net: nn.Module) -> None:
        """Takes over all weights and buffers of `net`, in place."""
        copy_state(net, self.net)

    def memory_bytes(self) -> dict[str, int]:
        return {"parameters": sum(value.nbytes for value in self.net.state_dict().values())}

    def forward(self, *args: Tensor, **kwargs: Tensor | None) -> Tensor:
        return self.net(*args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode, whatever a parent module is told."""
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        if requires_grad:
            raise RuntimeError("FrozenCopy is never trained; train the network that it was copied from")
        return super().requires_grad_(False)


@torch.no_grad()
def copy_state(source: nn.Module, target: nn.Module) -> None:
    """Weights and buffers of one network into another of the same shape, in place."""
    state = source.state_dict()
    for name, value in target.state_dict().items():
        value.copy_(state[name])


def trainable(*modules: nn.Module) -> list[nn.Parameter]:
    """The modules' parameters, each once, without those inside a FrozenCopy."""
    copies = (part for module in modules for part in module.modules() if isinstance(part, FrozenCopy))
    frozen = {parameter for copy in copies for parameter in copy.parameters()}
    every = dict.fromkeys(parameter for module in modules for parameter in module.parameters())
    return [parameter for parameter in every if parameter not in frozen]
