"""Ranges that no signature says: of the Trainer's and the optimizers' arguments, and of what memory holds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Annotated, Any, Literal

import annotated_types as at
from lightning import Trainer
from pydantic import AfterValidator, StringConstraints
from torch import Tensor
from torch.optim import Optimizer

from lit_gen.core.memory import refuse_beyond_memory
from lit_gen.core.types import Fraction, InputError, NonNegative, Positive

AtLeast0 = Annotated[float, at.Ge(0)]
_BelowOne = Annotated[float, at.Ge(0), at.Lt(1)]
_Seldom = NonNegative | Fraction | None
_Time = Annotated[
    Annotated[str, StringConstraints(pattern=r"^\d+:\d\d:\d\d:\d\d$")]
    | Annotated[dict[Literal["weeks", "days", "hours", "minutes", "seconds"], AtLeast0], at.MinLen(1)]
    | timedelta,
    "a time DD:HH:MM:SS",
]


def _known_strategy(node: dict[str, Any]) -> dict[str, Any]:
    place, _, name = str(node.get("_target_")).rpartition(".")
    is_spawned = node.get("start_method", "popen") != "popen"
    if is_spawned or (place.startswith("lightning.") and name not in ("DDPStrategy", "SingleDeviceStrategy")):
        raise ValueError
    return node


# Lightning takes any text and any number here and says what is wrong with it only later.
_OF_TRAINER: dict[str, Any] = {
    "devices": Annotated[
        Annotated[int, at.Gt(0), at.Le(1024)]
        | Literal[-1]
        | Annotated[list[Annotated[int, at.Ge(0), at.Le(1024)]], at.MinLen(1)]
        | Annotated[str, StringConstraints(pattern=r"^(auto|-1|\d{1,3}(,\d{1,3})*,?)$")],
        'a number of devices (-1: all there are), a list of their indices such as [0,2], or "auto"',
    ],
    "strategy": Annotated[
        Literal["auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true"]
        | Annotated[dict[str, Any], AfterValidator(_known_strategy)],
        "auto, ddp, ddp_find_unused_parameters_false, ddp_find_unused_parameters_true, or DDPStrategy as a "
        "node: phases, averages and checkpoints need the whole model in every process, and processes that "
        "are started as this one was (no FSDP, DeepSpeed or other shards, none that is spawned or forked)",
    ],
    "precision": Annotated[
        Literal["32-true", "32", 32, "bf16-mixed", "bf16", "16-mixed", "16", 16, None],
        "32-true, bf16-mixed or 16-mixed: noise, samplers and judges are float32, as weights must be",
    ],
    "num_nodes": Positive,
    "accumulate_grad_batches": Positive,
    "max_epochs": Annotated[int, at.Ge(-1)] | None,
    "min_epochs": NonNegative | None,
    "max_steps": Annotated[int, at.Ge(-1)],
    "min_steps": NonNegative | None,
    "max_time": _Time | None,
    # Of none of the batches nothing can be trained.
    "limit_train_batches": Positive | Annotated[float, at.Gt(0), at.Le(1)] | None,
    "limit_val_batches": _Seldom,
    "limit_test_batches": _Seldom,
    "limit_predict_batches": _Seldom,
    "overfit_batches": NonNegative | Fraction,
    "check_val_every_n_epoch": Positive | None,
    "val_check_interval": Positive | Annotated[float, at.Gt(0), at.Le(1)] | _Time | None,
    "num_sanity_val_steps": Annotated[int, at.Ge(-1)] | None,
    "log_every_n_steps": Positive | None,
    "gradient_clip_val": AtLeast0 | None,
    "gradient_clip_algorithm": Literal["norm", "value"] | None,
    "reload_dataloaders_every_n_epochs": NonNegative,
}
# And the optimizers of torch, whose constructors know, run when the training begins.
_NUMBERS_OF_TORCH = (float, float | Tensor, tuple[float, float], tuple[float | Tensor, float | Tensor])
_OF_OPTIMIZERS: dict[str, Any] = {
    **dict.fromkeys(("lr", "eps", "weight_decay", "momentum", "alpha", "lambd", "lr_decay"), AtLeast0),
    "betas": tuple[_BelowOne, _BelowOne],
    "rho": Fraction,
}


def narrower(target: Callable[..., Any], name: str, hint: Any) -> Any:
    """The hint, or what is known to be allowed where the signature of a library allows more."""
    if target is Trainer:
        return _OF_TRAINER.get(name, hint)
    if inspect.isclass(target) and issubclass(target, Optimizer) and hint in _NUMBERS_OF_TORCH:
        return _OF_OPTIMIZERS.get(name, hint)
    return hint


def too_large(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys that count what is in memory at once, mostly as float32, and finds no room there; and why."""
    data = config.get("data") or {}
    spec, batch_size = data.get("spec") or {}, data.get("batch_size", 1)
    if not {"channels", "size"} <= spec.keys():
        return
    image = 4 * spec["channels"] * spec["size"] ** 2
    num_bytes = {
        "data.batch_size": image,
        "callbacks.grid.num_images": image,
        "callbacks.latent_map.num_points": 8,
        "model.pool_size": image // 4 if (config.get("model") or {}).get("replay") == "pool" else 0,
        "model.importance_samples": batch_size * image,
        "model.penalty.num_projections": batch_size * 4,
        "model.penalty.num_probes": batch_size * 4,
    }
    for key, size in num_bytes.items():
        count: Any = config
        for part in key.split("."):
            count = count.get(part) if isinstance(count, dict) else None
        try:
            refuse_beyond_memory((count or 0) * size, "that many")
        except InputError as error:
            beside = f"data.spec.channels={spec['channels']}, data.spec.size={spec['size']}"
            yield key, f"{count}, with data.batch_size={batch_size}, {beside}: {error}"
