"""The check, on constructors made for it and on those of torch and Lightning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Protocol

import pytest
from annotated_types import Ge, Gt, Interval, Le
from pydantic import Field
from torch import nn
from torch.optim import Optimizer
from torchmetrics import Metric

from lit_gen.cli.check import check
from lit_gen.cli.hints import describe, fits
from lit_gen.cli.signatures import signature_of
from lit_gen.core.types import ImageSpec, InputError

if TYPE_CHECKING:
    from nowhere import Unknown


class Shape(Protocol):
    def area(self) -> float: ...


class Base(nn.Module):
    def __init__(
        self, spec: ImageSpec, optimizer: Callable[..., Optimizer], rate: float | None = None
    ) -> None:
        super().__init__()


class Model(Base):
    def __init__(
        self,
        encoder: nn.Module,
        latent_size: Annotated[int, Gt(0)],
        beta: Annotated[float, Ge(0)] = 1.0,
        condition: Literal["none", "task"] = "none",
        share: Annotated[float, Interval(ge=0, le=1)] | None = None,
        verbose: bool = False,
        layers: Sequence[nn.Module] = (),
        widths: tuple[int, ...] = (),
        root: str | Path = "",
        other: Unknown = None,
        shape: Shape | None = None,
        **base: Any,
    ) -> None:
        super().__init__(**base)


class Small(Base):
    """Fixes two arguments of its base, one by name and one by place."""

    def __init__(self, size: int, **base: Any) -> None:
        super().__init__(ImageSpec(1, size, 0), optimizer=None, **base)


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


def model(**values: Any) -> dict[str, Any]:
    return node("Model", **({"encoder": LAYER, "latent_size": 4, "spec": SPEC, "optimizer": ADAM} | values))


def wrong(config: dict[str, Any], source: dict[str, Any] | None = None) -> str:
    with pytest.raises(InputError) as caught:
        check(config, source)
    return str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"beta": 2},  # an int is a float
        {"share": None},
        {"share": 1},
        {"condition": "task"},
        {"layers": [LAYER, node("make_layer", size=2)]},
        {"widths": [1, 2]},
        {"root": "../data"},
        {"other": object},
        {"other": 3},  # a hint that only a type checker can evaluate says nothing
        {"shape": LAYER},  # a protocol is not asked
        {"encoder": node("make_layer", size=3)},
        {"rate": 0.5},
    ],
)
def test_values_that_fit_pass(values):
    check({"model": model(**values)})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beta": "abc"}, "model.beta: expected float >= 0, got 'abc'"),
        ({"beta": "1.0"}, "model.beta: expected float >= 0, got '1.0'"),
        ({"beta": True}, "model.beta: expected float >= 0, got true"),
        ({"beta": -1}, "model.beta: expected float >= 0, got -1"),
        ({"beta": float("nan")}, "model.beta: expected float >= 0, got nan"),
        ({"beta": None}, "model.beta: expected float >= 0, got null"),
        ({"latent_size": -3}, "model.latent_size: expected int > 0, got -3"),
        ({"latent_size": 4.0}, "model.latent_size: expected int > 0, got 4.0"),
        ({"share": 1.5}, "model.share: expected float >= 0 and <= 1 or null, got 1.5"),
        ({"condition": "tsak"}, "model.condition: expected one of 'none', 'task', got 'tsak'"),
        ({"verbose": 1}, "model.verbose: expected bool, got 1"),
        ({"verbose": "yes"}, "model.verbose: expected bool, got 'yes'"),
        ({"widths": [1, "a"]}, "model.widths: expected a list of int, got [1, \"a\"]"),
        ({"widths": 3}, "model.widths: expected a list of int, got 3"),
        ({"encoder": 3}, "model.encoder: expected Module (a node with _target_), got 3"),
        ({"encoder": {"size": 3}}, 'model.encoder: expected Module (a node with _target_), got {"size": 3}'),
        ({"encoder": SPEC}, "expected Module (a node with _target_), got lit_gen.core.types.ImageSpec"),
        ({"encoder": LAYER | {"_partial_": True}}, "got torch.nn.Linear (_partial_)"),
        ({"encoder": None}, "model.encoder: expected Module (a node with _target_), got null"),
        ({"layers": [LAYER, SPEC]}, "model.layers: expected a list of Module"),
        ({"optimizer": 3}, "model.optimizer: expected a function (a node with _target_), got 3"),
        ({"spec": [1, 8, 10]}, "model.spec: expected ImageSpec (a node with _target_), got [1, 8, 10]"),
        ({"rate": "fast"}, "model.rate: expected float or null, got 'fast'"),
        ({"latent_size": LAYER}, "model.latent_size: expected int > 0, got torch.nn.Linear"),
        ({"bteta": 1}, "model.bteta: Model takes no 'bteta'. Did you mean model.beta?"),
        ({"optimizer": ADAM | {"lrr": 1}}, "AdamW takes no 'lrr'. Did you mean model.optimizer.lr?"),
        ({"lr": 1}, "Did you mean model.optimizer.lr?"),
        ({"optimizer": ADAM | {"lr": "abc"}}, "model.optimizer.lr: expected float"),
        ({"optimizer": ADAM | {"betas": 3}}, "model.optimizer.betas: expected a list of float"),
        ({"encoder": LAYER | {"in_features": "2"}}, "model.encoder.in_features: expected int, got '2'"),
        ({"layers": [LAYER | {"bais": True}]}, "model.layers.0.bais: Linear takes no 'bais'. Did you"),
        ({"_partial_": "yes"}, "model._partial_: expected bool, got 'yes'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_with_key_expectation_and_value(values, message):
    assert message in wrong({"model": model(**values)})


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("torch.nn.Linaer", ["model._target_", "torch.nn has no 'Linaer'", "Did you mean Linear?"]),
        ("lit_gen.core.typse.ImageSpec", ["lit_gen.core has no 'typse'", "Did you mean types?"]),
        ("nowhere_at_all.Model", ["no package 'nowhere_at_all'"]),
        ("Linear", ["no dotted path"]),
        ("lit_gen.core.types", ["is a module"]),
        (3, ["expected a dotted path, got 3"]),
    ],
)
def test_a_target_that_is_not_there_is_named_with_the_nearest(target, parts):
    message = wrong({"model": {"_target_": target}})
    assert all(part in message for part in parts), message


def test_missing_arguments_are_named_unless_the_node_is_partial():
    missing = model()
    del missing["latent_size"], missing["spec"]
    message = wrong({"model": missing})
    assert "model.latent_size: is missing; Model needs it" in message
    assert "model.spec: is missing" in message  # of the base's constructor
    check({"model": missing | {"_partial_": True}})


def test_arguments_that_a_class_gives_its_base_are_not_the_configs():
    assert set(signature_of(Small).parameters) == {"size", "rate"}
    check({"model": node("Small", size=3, rate=0.1)})
    assert "Small takes no 'optimizer'" in wrong({"model": node("Small", size=3, optimizer=ADAM)})


def test_signatures_of_named_tuples_functions_and_open_ends():
    assert list(signature_of(Pair).parameters) == ["left", "right"]
    assert signature_of(Pair).parameters["left"].required
    assert list(signature_of(make_layer).parameters) == ["size"]
    assert not signature_of(Model).is_open  # its keywords end in Base, which takes no others

    class Open(Metric):  # Metric takes keywords that its signature does not name
        def __init__(self, num: int, **rest: Any) -> None:
            super().__init__(**rest)

    assert signature_of(Open).is_open


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


def test_what_a_mistake_elsewhere_spoils_is_not_reported_beside_it():
    source = {"a": node("Pair", left="x", right="${times:2,${.left}}"), "b": node("Pair", left="${a.left}")}
    config = {"a": node("Pair", left="x", right="xx"), "b": node("Pair", left="x")}
    assert wrong(config, source) == "a.left: expected int, got 'x'"
    source["a"]["left"] = config["a"]["left"] = 1  # now only what is computed is wrong
    assert wrong(config, source).splitlines()[0] == "a.right: expected int, got 'xx'"


def test_relative_references_are_followed_to_their_origin():
    source = {"a": {"size": "x", "part": node("Pair", left="${..size}")}}
    config = {"a": {"size": "x", "part": node("Pair", left="x")}}
    assert wrong(config, source) == "a.size: expected int, got 'x' (it is a.part.left)"


def test_what_the_run_will_give_later_may_be_null_until_then():
    source = {"output_dir": None, "a": node("Pair", left="${output_dir}")}
    check({"output_dir": None, "a": node("Pair", left=None)}, source)
    assert "output_dir: expected int, got 'x'" in wrong(
        {"output_dir": "x", "a": node("Pair", left="x")}, source
    )


def test_several_mistakes_come_in_one_message():
    message = wrong({"seed": -1, "cpu_threads": 0, "model": model(beta="a", latent_size=0)})
    assert [line.partition(":")[0] for line in message.splitlines()] == [
        "seed",
        "cpu_threads",
        "model.latent_size",
        "model.beta",
    ]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("seed", True, "int"),
        ("seed", 1.5, "int"),
        ("cpu_threads", "all", "'auto' or int > 0"),
        ("max_phase_epochs", 0, "int > 0 or null"),
        ("output_dir", 5, "str or null"),
    ],
)
def test_top_level_values_have_types_too(key, value, expected):
    assert f"{key}: expected {expected}" in wrong({key: value})


@pytest.mark.parametrize("devices", [1, 4, -1, "auto", "2", "0,2", [0, 2]])
def test_devices_that_lightning_understands_pass(devices):
    check({"trainer": {"_target_": "lightning.Trainer", "devices": devices}})


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("devices", "abc", 'a number of devices (-1: all there are), a list of their indices'),
        ("devices", 0, "a number of devices"),
        ("devices", 1.5, 'such as [0,2], or "auto"'),
        ("num_nodes", 0, "int > 0"),
        ("max_epochs", "ten", "int"),
        ("precision", "17", "'bf16-mixed'"),
        ("fast_dev_run", "yes", "int or bool"),
        ("max_epcohs", 3, "Did you mean trainer.max_epochs?"),
    ],
)  # fmt: skip
def test_keys_of_the_trainer_are_checked(key, value, part):
    message = wrong({"trainer": {"_target_": "lightning.Trainer", key: value}})
    assert message.startswith(f"trainer.{key}: ") and part in message, message


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (float, "float"),
        (int | None, "int or null"),
        (Annotated[int, Gt(0), Le(9)], "int > 0 and <= 9"),
        (Annotated[float, Field(ge=0, lt=1)], "float >= 0 and < 1"),
        (Literal["a"], "'a'"),
        (Literal["a", True], "one of 'a', true"),
        (dict[str, int], "a dictionary"),
        (list[int | str], "a list of int or str"),
        (str | Path, "str or Path"),
        (nn.Module, "Module (a node with _target_)"),
    ],
)
def test_hints_are_said_in_words(hint, text):
    assert describe(hint) == text


def test_bounds_of_pydantics_own_field_are_honoured():
    assert fits(Annotated[int, Field(gt=0)], 1) and not fits(Annotated[int, Field(gt=0)], 0)
