"""The check, on constructors made for it and on those of torch and Lightning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Protocol

import pytest
from annotated_types import Ge, Gt, Le, MinLen
from torch import nn
from torch.optim import Optimizer
from torchmetrics import Metric

from lit_gen.cli.allowed import trusting
from lit_gen.cli.signatures import check, fits, mismatch, signature_of
from lit_gen.core import memory
from lit_gen.core.types import ImageSpec, InputError


@pytest.fixture(autouse=True)
def own_targets():
    with trusting([__name__]):
        yield


class Shape(Protocol):
    def area(self) -> float: ...


class Model(nn.Module):
    def __init__(
        self,
        encoder: nn.Module,
        latent_size: Annotated[int, Gt(0)],
        optimizer: Callable[..., Optimizer],
        beta: Annotated[float, Ge(0)] = 1.0,
        layers: Sequence[nn.Module] = (),
        rate: float | None = None,
    ) -> None:
        super().__init__()


class Pair(NamedTuple):
    left: int
    right: int = 0


def make_layer(size: int) -> nn.Module:
    return nn.Linear(size, size)


def node(name: str, **values: Any) -> dict[str, Any]:
    return {"_target_": f"{__name__}.{name}", **values}


LAYER = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 2}
ADAM = {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 1e-3, "betas": [0.9, 0.99], "fused": True}
SPEC = {"_target_": "lit_gen.core.types.ImageSpec", "channels": 1, "size": 8, "num_classes": 10}
Share = Annotated[float, Ge(0), Le(1)] | None
Some = Annotated[Sequence[nn.Module], MinLen(1)]


def model(**values: Any) -> dict[str, Any]:
    return node("Model", **({"encoder": LAYER, "latent_size": 4, "optimizer": ADAM} | values))


def wrong(config: dict[str, Any], source: dict[str, Any] | None = None) -> str:
    with pytest.raises(InputError) as caught:
        check(config, source)
    return str(caught.value)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (float, 2),
        (Share, None),
        (Share, 1),
        (Literal["none", "task"], "task"),
        (tuple[int, ...], [1, 2]),
        (str | Path, "../data"),
        (Path, "../data"),
        (object, 3),
        (Shape, LAYER),  # a protocol is not asked
        (nn.Module, node("make_layer", size=3)),
        (Callable[..., Optimizer], ADAM),
        (ImageSpec, SPEC),
        (Some, [LAYER]),
        (dict[str, nn.Module], {"a": LAYER, "b": node("make_layer", size=2)}),
        (tuple[int, nn.Module], [1, LAYER]),
        (float, {"_target_": "builtins.int"}),
    ],
)
def test_values_that_fit(hint, value):
    assert fits(hint, value)


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (float, "1.0", "expected float, got '1.0'"),
        (Annotated[float, Ge(0)], True, "expected float >= 0, got true"),
        (Annotated[float, Ge(0)], -1, "expected float >= 0, got -1"),
        (Annotated[float, Ge(0)], float("nan"), "expected float >= 0, got nan"),
        (Annotated[float, Ge(0)], None, "expected float >= 0, got null"),
        (Annotated[int, Gt(0)], 4.0, "expected int > 0, got 4.0"),
        (Share, 1.5, "expected float >= 0 and <= 1 or null, got 1.5"),
        (Literal["none", True], "tsak", "expected one of 'none', true, got 'tsak'"),
        (bool, 1, "expected bool, got 1"),
        (bool, "yes", "expected bool, got 'yes'"),
        (tuple[int, ...], [1, "a"], 'expected a list of int, got [1, "a"]'),
        (list[int | str], 3, "expected a list of int or str, got 3"),
        (dict[str, int], {"a": "b"}, 'expected a dictionary, got {"a": "b"}'),
        (nn.Module, {"size": 3}, 'expected Module (a node with _target_), got {"size": 3}'),
        (nn.Module, SPEC, "expected Module (a node with _target_), got lit_gen.core.types.ImageSpec"),
        (nn.Module, ADAM, "expected Module (a node with _target_), got torch.optim.AdamW (_partial_)"),
        (nn.Module, None, "expected Module (a node with _target_), got null"),
        (Callable[..., Optimizer], 3, "expected a function (a node with _target_), got 3"),
        (ImageSpec, [1, 8, 10], "expected ImageSpec (a node with _target_), got [1, 8, 10]"),
        (int, LAYER, "expected int, got torch.nn.Linear"),
        (Some, [], "expected a list of Module (a node with _target_), got []"),
        (Iterable[nn.Module], [LAYER, 3], "expected a list of Module (a node with _target_), got ["),
        (tuple[int, nn.Module], [LAYER, 1], "expected a list of int and Module"),
        (dict[str, nn.Module], {"a": SPEC}, "expected a dictionary, got {"),
    ],
)
def test_what_does_not_fit_is_said_with_what_is_asked_for_and_what_came(hint, value, message):
    assert not fits(hint, value)
    assert mismatch(hint, value).startswith(message)


def test_every_mistake_is_named_by_its_key_in_one_message():
    check({"model": model(beta=2, layers=[LAYER], rate=0.5)})
    values = {
        "encoder": LAYER | {"in_features": "2"},
        "latent_size": 0,
        "bteta": 1,
        "layers": [LAYER | {"bais": True}],
        "optimizer": ADAM | {"lr": "abc", "lrr": 1},
        "_partial_": "yes",
    }
    lines = wrong({"seed": -1, "cpu_threads": 0, "model": model(**values)}).splitlines()
    assert lines[:4] == [
        "seed: expected int >= 0 and < 4294967296, got -1",
        "cpu_threads: expected 'auto' or int > 0, got 0",
        "model.latent_size: expected int > 0, got 0",
        "model.bteta: Model takes no 'bteta'. Did you mean model.beta? It takes encoder, latent_size, "
        "optimizer, beta, layers, rate.",
    ]
    assert len(lines) == 9 and lines[-1] == "and 1 more"
    assert "model.layers.0.bais: Linear takes no 'bais'. Did you mean model.layers.0.bias?" in wrong(
        {"model": model(layers=[LAYER | {"bais": True}])}
    )
    assert "Did you mean model.optimizer.lr?" in wrong({"model": model(lr=1)})


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("torch.nn.Linaer", ["model._target_", "torch.nn has no 'Linaer'", "Did you mean Linear?"]),
        ("lit_gen.core.typse.ImageSpec", ["lit_gen.core has no 'typse'", "Did you mean types?"]),
        ("nowhere_at_all.Model", ["no package 'nowhere_at_all'", "trust=nowhere_at_all"]),
        ("Linear", ["expected a dotted path"]),
        ("lit_gen.core.types", ["is a module"]),
        (3, ["expected a dotted path", "got 3"]),
    ],
)
def test_a_target_that_is_not_there_is_named_with_the_nearest(target, parts):
    message = wrong({"model": {"_target_": target}})
    assert all(part in message for part in parts), message


def test_missing_arguments_are_named_unless_the_node_is_partial():
    missing = model()
    del missing["latent_size"], missing["encoder"]
    assert wrong({"model": missing}).splitlines() == [
        "model.encoder: is missing; Model needs it",
        "model.latent_size: is missing; Model needs it",
    ]
    check({"model": missing | {"_partial_": True}})


def test_signatures_of_named_tuples_functions_and_open_ends():
    assert list(signature_of(Pair).parameters) == ["left", "right"]
    assert signature_of(Pair).parameters["left"].required
    assert list(signature_of(make_layer).parameters) == ["size"]
    assert not signature_of(Model).is_open
    assert signature_of(Metric).is_open  # takes keywords that its signature does not name


def test_a_value_taken_from_elsewhere_is_reported_once_at_its_origin():
    source = {
        "stream": {"num_tasks": "many"},
        "a": node("Pair", left="${stream.num_tasks}"),
        "b": node("Pair", left="${stream.num_tasks}", right="${a}"),
    }
    config = {
        "stream": {"num_tasks": "many"},
        "a": node("Pair", left="many"),
        "b": node("Pair", left="many", right=2),
    }
    assert wrong(config, source) == "stream.num_tasks: expected int, got 'many' (it is a.left)"
    source = {"a": {"size": "x", "part": node("Pair", left="${..size}")}}
    config = {"a": {"size": "x", "part": node("Pair", left="x")}}
    assert wrong(config, source) == "a.size: expected int, got 'x' (it is a.part.left)"


def test_what_a_mistake_elsewhere_spoils_is_not_reported_beside_it():
    source = {"a": node("Pair", left="x", right="${times:2,${.left}}"), "b": node("Pair", left="${a.left}")}
    config = {"a": node("Pair", left="x", right="xx"), "b": node("Pair", left="x")}
    assert wrong(config, source) == "a.left: expected int, got 'x'"
    source["a"]["left"] = config["a"]["left"] = 1  # now only what is computed is wrong
    assert wrong(config, source).splitlines()[0] == "a.right: expected int, got 'xx'"


@pytest.mark.parametrize(
    ("name", "key", "value", "part"),
    [
        ("Adam", "lr", -1, "float >= 0, got -1"),
        ("AdamW", "lr", float("nan"), "float >= 0, got nan"),
        ("Adam", "betas", [0.5, 1], "a list of float >= 0 and < 1, got [0.5, 1]"),
        ("RMSprop", "alpha", -0.1, "float >= 0"),
        ("SGD", "momentum", -1, "float >= 0"),
        ("Adagrad", "weight_decay", -1, "float >= 0"),
    ],
)
def test_ranges_of_optimizers_are_known_before_the_training(name, key, value, part):
    node = {"_target_": f"torch.optim.{name}", "_partial_": True, key: value}
    message = wrong({"model": {"optimizer": node}})
    assert message.startswith(f"model.optimizer.{key}: expected") and part in message
    check({"model": {"optimizer": node | {key: [0.5, 0.9] if key == "betas" else 0.5}}})


def test_no_number_is_nan_infinite_or_too_large_to_count():
    assert mismatch(int, 2**32) == "expected int, got 4294967296; whole numbers end at 4294967295"
    for hint, value in ((int, 2**32), (list[int], [1, 2**32]), (int | None, 10**400), (bool | int, 10**10)):
        assert not fits(hint, value)
    assert fits(int, 2**32 - 1) and fits(float, 2**32) and fits(float | None, 10**18)
    assert not any(fits(float, value) or fits(list[float], [value]) for value in (float("inf"), float("nan")))


def test_images_that_do_not_fit_into_memory_together_are_refused(monkeypatch):
    monkeypatch.setattr(memory, "machine_memory", lambda: 10**9)
    data = {"batch_size": 10**6, "spec": {"channels": 3, "size": 10}}
    check({"data": data | {"batch_size": 833_333}})
    message = wrong({"data": data})
    assert message.startswith("data.batch_size: 1000000, with ") and "data.spec.size=10: that many" in message
    assert message.endswith("takes 1.2 GB, and this machine has 1.0 GB of memory.")
    for key, least in (
        ("callbacks.grid.num_images", 833_334),
        ("callbacks.latent_map.num_points", 125_000_001),
        ("model.pool_size", 3_333_334),
        ("model.importance_samples", 83_334),
        ("model.penalty.num_projections", 25_000_001),
    ):
        top, *way = key.split(".")
        for count in (least, least - 1):
            node: Any = count
            for part in reversed(way):
                node = {part: node}
            if key == "model.pool_size":
                check({"data": data | {"batch_size": 10}, top: node})  # which replays without a pool
                node["replay"] = "pool"
            config = {"data": data | {"batch_size": 10}, top: node}
            assert wrong(config).startswith(f"{key}: {count}") if count == least else not check(config)


@pytest.mark.parametrize("devices", [1, -1, "auto", "2", "0,2", [0, 2]])
def test_devices_that_lightning_understands_pass(devices):
    check({"trainer": {"_target_": "lightning.Trainer", "devices": devices}})


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("devices", "abc", "a number of devices (-1: all there are), a list of their indices"),
        ("devices", 0, 'such as [0,2], or "auto"'),
        ("num_nodes", 0, "int > 0"),
        ("precision", "17", "bf16-mixed"),
        ("fast_dev_run", "yes", "int or bool"),
        ("max_epcohs", 3, "Did you mean trainer.max_epochs?"),
        ("check_val_every_n_epoch", 0, "int > 0 or null, got 0"),
        ("limit_train_batches", 0, "int > 0 or float > 0 and <= 1"),
        ("limit_train_batches", 1.5, "int > 0 or float > 0 and <= 1"),
        ("limit_val_batches", -0.5, "float >= 0 and <= 1"),
        ("overfit_batches", float("nan"), "float >= 0 and <= 1"),
        ("gradient_clip_val", -1, "float >= 0"),
        ("gradient_clip_algorithm", "both", "'norm', 'value'"),
        ("log_every_n_steps", 0, "int > 0"),
        ("max_epochs", -5, "int >= -1"),
        ("val_check_interval", 2.5, "float > 0 and <= 1 or a time DD:HH:MM:SS"),
        ("max_time", "soon", "a time DD:HH:MM:SS"),
        ("devices", 10**6, "a number of devices"),
    ],
)
def test_keys_of_the_trainer_are_checked(key, value, part):
    message = wrong({"trainer": {"_target_": "lightning.Trainer", key: value}})
    assert message.startswith(f"trainer.{key}: ") and part in message, message
