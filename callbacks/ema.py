"""Exponential moving averages of weights over training steps."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from callbacks.shared_buffers import share_buffers
from lit_gen.core.module import LitModel
from lit_gen.core.types import Fraction, InputError, NonNegative, Positive, StreamData


class AveragedWeights(Callback):
    """Averages what a phase trains of some modules: parameters and lasting floating-point buffers.

    The average is in the model everywhere but in training steps: in validation from its start to its end, in
    tests, in what phases do at their ends and beginnings (a replay teacher is a copy of it), in a
    checkpoint's `state_dict`. The weights that training goes on from are kept beside it.

    From one phase of a task to the next the average of a part goes on, as long as the part is trained. A part
    that a phase leaves alone, and every part at the end of a task, is its average from then on; when it is
    trained again, that begins from the average, and so does a new one. Counters, frozen copies and other
    modules (the critic of a GAN) are as they were trained.

    Args:
        modules: names of submodules, such as "generator"; none means the whole model.
        decay: of the average per update; of several the first is in the model, the others are kept in
            checkpoints.
        warmup: after t updates the decay is at most (1 + t) / (10 + t), or with a number g instead of true at
            most (1 - 1 / (t + 1))^(g + 1) (Karras et al. 2024, arXiv:2312.02696, section 3.1).
        update_every_n_steps: of the optimizer that trains a part. Each part has a count of its own: five
            steps of a critic are one of its generator, and every minibatch of a pool is one.
        update_starting_at_step: counted likewise from the start of the run; until then a part has no average.
        use: the one of several decays that is in the model; also for a checkpoint that keeps it.
    """

    def __init__(
        self,
        modules: Sequence[str] = (),
        decay: Fraction | Sequence[Fraction] = 0.999,
        warmup: bool | Annotated[float, Ge(0)] = False,
        update_every_n_steps: Positive = 1,
        update_starting_at_step: NonNegative | None = None,
        use: Fraction | None = None,
    ) -> None:
        decays = tuple(decay) if isinstance(decay, Sequence) else (decay,)
        if not decays or not all(0 <= each <= 1 for each in decays):
            raise ValueError(f"decay={decay}: must be from 0 to 1")
        if len(set(decays)) < len(decays):
            raise ValueError(f"decay={decay}: one of them is there twice")
        if warmup < 0:
            raise ValueError(f"warmup={warmup}: must be true, false or at least 0")
        if use is not None and use not in decays:
            raise ValueError(f"use={use}: must be one of decay={decay}")
        self.modules, self.warmup = tuple(modules), warmup
        self.decay = decays[0] if use is None else use
        self.every, self.start = update_every_n_steps, update_starting_at_step or 0
        self._is_in_use = True  # the average is in the model
        self._ages: dict[str, int] = {}  # updates of every average that goes on
        self._beside: dict[str, Tensor] = {}  # what training goes on from; in training, the average
        self._others: dict[float, dict[str, Tensor]] = {d: {} for d in decays if d != self.decay}
        self._task = -1
        self._steps: dict[str, int] = {}  # of every tensor's optimizer
        self._names: list[str] = []  # what the phase trains
        self._of_turn: dict[str, list[str]] = {}  # those of them that a turn trains

    def check(self, module: LightningModule, data: StreamData | None) -> None:
        """Raises InputError where the model has no such modules."""
        parts = dict(module.named_modules())
        if unknown := [name for name in self.modules if name not in parts]:
            known = ", ".join(name for name, _ in module.named_children())
            raise InputError(
                f"callbacks.ema.modules={unknown}: {type(module).__name__} has no such module; it has "
                f"{known}, and what is inside them"
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.check(pl_module, trainer.datamodule)

    def on_train_start(self, trainer: Trainer, pl_module: LitModel) -> None:
        tensors = _tensors(pl_module)
        self._names = self._trained(pl_module)
        turns = pl_module.phase.turns if pl_module.phase is not None else ()
        inside = {t.name: {id(x) for m in t.trains for x in _tensors(m).values()} for t in turns}
        # Running statistics of modules that no turn trains go with every turn.
        left = {id(tensors[name]) for name in self._names}.difference(*inside.values())
        self._of_turn = {
            turn: [name for name in self._names if id(tensors[name]) in ids | left]
            for turn, ids in inside.items()
        }
        if self._after_step not in pl_module.step_listeners:
            pl_module.step_listeners.append(self._after_step)
        task = trainer.datamodule.current_task
        self._keep(self._names if task == self._task else ())
        self._task = task
        for group in (self._beside, *self._others.values()):
            group.update({name: value.to(tensors[name].device) for name, value in group.items()})
        self._put(pl_module, averages=False)

    def _after_step(self, module: LitModel, turn: str) -> None:
        names = self._of_turn.get(turn, [])
        counts = [self._steps.get(name, 0) for name in names]
        due = [n for n, c in zip(names, counts, strict=True) if c >= self.start and c % self.every == 0]
        if due:
            self._update(_tensors(module), due)
        self._steps |= {name: count + 1 for name, count in zip(names, counts, strict=True)}

    def on_train_end(self, trainer: Trainer, pl_module: LitModel) -> None:
        pl_module.step_listeners.remove(self._after_step)
        self._put(pl_module, averages=True)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._put(pl_module, averages=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A sanity check comes before training, a validation by itself outside of it.
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._put(pl_module, averages=False)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(())  # a pass trains nothing

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        tensors = _tensors(pl_module)
        beside = self._beside
        if not self._is_in_use:
            averages = {id(tensors[name]): value for name, value in beside.items()}
            state = pl_module.state_dict(keep_vars=True)  # with every name of a shared tensor
            checkpoint["state_dict"] |= {n: averages[id(t)] for n, t in state.items() if id(t) in averages}
            beside = {name: tensors[name].detach() for name in self._beside}
        kept = {"ages": self._ages, "decay": self.decay, "beside": beside, "others": self._others}
        checkpoint["callbacks"][self.state_key] = kept | {"task": self._task, "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._is_in_use, kept = True, copy.deepcopy(state_dict)  # the checkpoint stays as it is
        self._task, self._steps, self._ages = kept["task"], kept["steps"], kept["ages"]
        self._beside, self._others = kept["beside"], kept["others"]

    def _trained(self, module: nn.Module) -> list[str]:
        """Names of what the phase trains and this averages, one for each tensor."""
        lasting = module.state_dict().keys()
        inside = tuple(f"{name}." for name in self.modules) or ("",)
        found = {}
        for name, tensor in _tensors(module).items():
            if name in lasting and name.startswith(inside) and tensor.is_floating_point():
                owner = module.get_submodule(name.rpartition(".")[0])
                if tensor.requires_grad if isinstance(tensor, nn.Parameter) else owner.training:
                    found.setdefault(id(tensor), name)
        return list(found.values())

    def _keep(self, names: Iterable[str]) -> None:
        """Averages of everything else end here."""
        for group in (self._ages, self._beside, *self._others.values()):
            for name in group.keys() - set(names):
                del group[name]

    @torch.no_grad()
    def _update(self, tensors: dict[str, Tensor], names: list[str]) -> None:
        for decay, averages in ((self.decay, self._beside), *self._others.items()):
            for age in sorted({self._ages[name] for name in names if name in self._ages}):
                some = [name for name in names if self._ages.get(name) == age]
                update = get_ema_multi_avg_fn(self._decay_at(age, decay))
                update([averages[name] for name in some], [tensors[name] for name in some], age)
            for name in names:
                if name not in self._ages:
                    averages[name] = tensors[name].detach().clone()
        self._ages |= {name: self._ages.get(name, 0) + 1 for name in names}

    def _decay_at(self, age: int, decay: float) -> float:
        """Of the update after `age` others, from 1 on."""
        if self.warmup is False:
            return decay
        most = (1 + age) / (10 + age) if self.warmup is True else (1 - 1 / (age + 1)) ** (self.warmup + 1)
        return min(decay, most)

    @torch.no_grad()
    def _put(self, module: nn.Module, averages: bool) -> None:
        """Into the model, if they are not there: the averages, or the weights that training goes on from."""
        if averages != self._is_in_use:
            tensors = _tensors(module)
            for name, value in self._beside.items():
                kept = value.clone()
                value.copy_(tensors[name])
                tensors[name].copy_(kept)
            self._is_in_use = averages
            if averages:
                share_buffers(module)


def use_average(module: nn.Module, callbacks: dict[str, Any], decay: float) -> None:
    """Puts another of a checkpoint's averages into the model that was loaded from it.

    Args:
        callbacks: their states, as the checkpoint has them.

    Raises:
        InputError: the checkpoint does not keep that average.
    """
    state = callbacks.get(AveragedWeights.__qualname__, {})
    kept = {state["decay"]: {}, **state["others"]} if state.get("ages") else {}
    if decay not in kept:
        known = ", ".join(map(str, kept)) or "none that goes on"
        raise InputError(f"callbacks.ema.use={decay}: not in this checkpoint, which keeps {known}")
    module.load_state_dict(kept[decay], strict=False)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, shared ones by each of their names."""
    buffers = dict(module.named_buffers(remove_duplicate=False))
    return dict(module.named_parameters(remove_duplicate=False)) | buffers
