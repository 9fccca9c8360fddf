"""Exponential moving average of some of a model's modules; Lightning's callback takes the whole model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from callbacks.shared_buffers import share_buffers
from lit_gen.core.frozen import FrozenCopy
from lit_gen.core.types import InputError


class ModuleAveraging(EMAWeightAveraging):
    """Averages the parameters and floating-point buffers of some modules over the steps of each fit.

    Validation and what follows a fit use the averages; a checkpoint's `state_dict` holds them. All else stays
    as trained: other modules (the critic of a GAN), counters, and frozen copies.

    List it after the callbacks that sample in validation: it puts the averages in when a validation epoch
    starts and takes them out when it ends.

    Args:
        modules: names of submodules, such as "generator"; none means the whole model.
        decay: of the average per update.
    """

    def __init__(
        self,
        modules: Sequence[str] = (),
        decay: float = 0.999,
        update_every_n_steps: int = 1,
        update_starting_at_step: int | None = None,
    ) -> None:
        if not 0 <= decay <= 1:
            raise InputError(f"callbacks.ema.decay={decay}: it must be from 0 to 1")
        if update_every_n_steps < 1:
            raise InputError(
                f"callbacks.ema.update_every_n_steps={update_every_n_steps}: it must be at least 1"
            )
        super().__init__(
            decay=decay,
            update_every_n_steps=update_every_n_steps,
            update_starting_at_step=update_starting_at_step,
        )
        self.modules, self.decay = tuple(modules), decay

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._average_model = _PartAverage(pl_module, self.modules, self.decay)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        # What changes the model between two fits must reach a checkpoint that is written there.
        self._average_model = None

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._average_model is not None:
            self._average_model.take_rest_from(pl_module)
            super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def _swap_models(self, pl_module: LightningModule) -> None:
        share_buffers(self._average_model)
        self._average_model.swap(pl_module)

    def _copy_average_to_current(self, pl_module: LightningModule) -> None:
        share_buffers(self._average_model)
        self._average_model.copy_to(pl_module)


class _PartAverage(AveragedModel):
    """A copy of the model in which some tensors are averages; `take_rest_from` updates the others."""

    def __init__(self, model: LightningModule, modules: tuple[str, ...], decay: float) -> None:
        super().__init__(model, device=model.device, use_buffers=True)
        self.modules_averaged, self.decay = modules, decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        mine, theirs = self._averaged(self.module), self._averaged(model)
        if self.n_averaged == 0:
            torch._foreach_copy_(mine, theirs)
        else:
            torch._foreach_lerp_(mine, theirs, 1 - self.decay)
        self.n_averaged += 1

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        # Before the first update the copy is older than the model.
        if self.n_averaged > 0:
            for mine, theirs in zip(self._averaged(self.module), self._averaged(model), strict=True):
                kept = mine.clone()
                mine.copy_(theirs)
                theirs.copy_(kept)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        if self.n_averaged > 0:
            torch._foreach_copy_(self._averaged(model), self._averaged(self.module))

    @torch.no_grad()
    def take_rest_from(self, model: nn.Module) -> None:
        averaged = {id(t) for t in self._averaged(self.module)} if self.n_averaged > 0 else set()
        source = model.state_dict(keep_vars=True)
        for name, mine in self.module.state_dict(keep_vars=True).items():
            if id(mine) not in averaged:
                mine.copy_(source[name])

    def _averaged(self, model: nn.Module) -> list[Tensor]:
        parts = dict(model.named_modules())
        unknown = [name for name in self.modules_averaged if name not in parts]
        if unknown:
            known = ", ".join(name for name, _ in model.named_children())
            raise InputError(
                f"callbacks.ema.modules={list(unknown)}: {type(model).__name__} has no such "
                f"module; it has {known}, and what is inside them"
            )
        roots = [parts[name] for name in self.modules_averaged] or [model]
        found = {id(t): t for root in roots for t in _floating(root)}
        return list(found.values())


def _floating(module: nn.Module) -> Iterator[Tensor]:
    """Floating-point parameters and lasting buffers, without those of frozen copies."""
    if isinstance(module, FrozenCopy):
        return
    lasting = (b for n, b in module._buffers.items() if n not in module._non_persistent_buffers_set)
    for tensor in (*module._parameters.values(), *lasting):
        if tensor is not None and tensor.is_floating_point():
            yield tensor
    for child in module.children():
        yield from _floating(child)
