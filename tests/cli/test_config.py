"""Composition on a small conf/ of its own: torch.nn layers stand in for models and data."""

import copy
from pathlib import Path

import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_gen.cli.allowed import trusting
from lit_gen.cli.building import build, plain_errors
from lit_gen.cli.config import FIXED, compose, recompose
from lit_gen.core.types import InputError


def keep(**parts: object) -> dict[str, object]:
    return parts


@pytest.fixture(autouse=True)
def own_targets():
    with trusting([__name__]):
        yield


FILES = {
    "train": """
defaults:
  - logger: none
  - data: small
  - model: linear
  - callbacks: default
  - _self_
  - experiment: null
  - optional paper: null
  - sampler: null
  - debug: null # last
seed: 0
output_dir: null
max_phase_epochs: null
sizes: {none: 0, some: 3}
""",
    "data/small": "size: 4\ncondition: some\n",
    "data/large": "size: 40\ncondition: some\n",
    "model/linear": """
_target_: torch.nn.Linear
in_features: ${data.size}
out_features: ${sizes.${data.condition}}
""",
    "model/bilinear": "{_target_: torch.nn.Bilinear, in1_features: 2, in2_features: 3, out_features: 1}",
    "model/_parts": "in_features: 1",
    "callbacks/default": "defaults: [first, second]",
    "callbacks/first": "first: {_target_: torch.nn.Dropout, p: 0.1}",
    "callbacks/second": "second: {_target_: torch.nn.Dropout, p: 0.2}",
    "callbacks/third": "third: {_target_: torch.nn.Dropout, p: 0.3}",
    "logger/none": "",
    "logger/csv": "{_target_: torch.nn.Identity}",
    "experiment/wide": """# @package _global_
defaults: [{override /data: large}, {override /callbacks: [default, third]}]
seed: 7
""",
    "sampler/warm": "{temperature: 2.0}",
    "sampler/none_left": "# @package data\ncondition: none\n",
    "model/narrow": """
defaults: [/net@_here_: few, _self_]
_target_: torch.nn.Linear
in_features: ${data.size}
""",
    "model/tower": f"{{defaults: [narrow@inner, _self_], _target_: {__name__}.keep}}",
    "net/few": "out_features: 2",
    "net/many": "out_features: 20",
    "data/small_linear": "defaults: [small, override /logger@_global_.logger: csv]",
    "debug/fast": "# @package _global_\nmax_phase_epochs: 1\n",
}


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        file = tmp_path / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return tmp_path


def refused(conf: Path, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        compose("train", overrides, conf)
    return str(caught.value)


def test_defaults_are_resolved_in_config_and_kept_as_written_in_source(conf):
    composed = compose("train", [], conf)
    assert composed.config["model"] == {"_target_": "torch.nn.Linear", "in_features": 4, "out_features": 3}
    assert composed.source["model"]["in_features"] == "${data.size}"
    assert composed.choices == {"data": "small", "model": "linear", "callbacks": "default", "logger": "none"}
    assert composed.config["choices"] == composed.source["choices"] == composed.choices
    assert "hydra" not in composed.config


def test_experiment_changes_groups_and_values_and_the_command_line_has_the_last_word(conf):
    composed = compose("train", ["experiment=wide"], conf)
    assert (composed.config["data"]["size"], composed.config["seed"]) == (40, 7)
    assert list(composed.config["callbacks"]) == ["first", "second", "third"]
    assert composed.choices["experiment"] == "wide"
    both = compose("train", ["experiment=wide", "data=small", "seed=8", "debug=fast"], conf)
    assert (both.config["data"]["size"], both.config["seed"], both.config["max_phase_epochs"]) == (4, 8, 1)


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("data.size=5", ("data", "size"), 5),
        ("model.bias=false", ("model", "bias"), False),  # not in the file, but in the signature
        ("+data.own=[1,a]", ("data", "own"), [1, "a"]),
        ("++data.deep.er={b: 2}", ("data", "deep"), {"er": {"b": 2}}),
        ("output_dir=a=b/c, d", ("output_dir",), "a=b/c, d"),  # paths are taken letter for letter
        ("output_dir=null", ("output_dir",), None),
        ("callbacks.first=null", ("callbacks", "first"), None),
        ("data.condition='some'", ("data", "condition"), "some"),
    ],
)
def test_a_value_lands_where_its_key_says(conf, word, key, value):
    node = compose("train", [word], conf).config
    for part in key:
        node = node[part]
    assert node == value


def test_deleted_keys_are_gone_and_null_means_the_choice_called_none(conf):
    assert list(compose("train", ["~callbacks.first"], conf).config["callbacks"]) == ["second"]
    assert compose("train", ["logger=null"], conf).choices["logger"] == "none"
    assert "experiment" not in compose("train", ["experiment=null", "~debug"], conf).choices


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("model=linaer", ["model=linaer", "bilinear, linear, narrow, tower", "Did you mean linear?"]),
        ("model=_parts", ["there is no such choice"]),
        ("paper=some", ["paper=some", "nothing yet"]),
        ("experiment=wild", ["wide"]),
        ("net=many", ["net=many: there is nothing to choose; choose logger, data"]),
        ("model=null", ["must be one of bilinear, linear, narrow, tower"]),
        ("model={a: 1}", ["is the name of a file in conf/model"]),
        ("sede=1", ["'sede'", "Did you mean seed?", "output_dir"]),
        ("data.szie=1", ["'data.szie'", "Did you mean data.size?", "+data.szie=..."]),
        ("in_features=2", ["Did you mean model.in_features?"]),
        ("model.in_faetures=2", ["model.in_faetures", "Did you mean model.in_features?"]),
        ("callbacks.first=3", ["callbacks.first is a node with the keys _target_, p"]),
        ("seed.deep=3", ["seed is 0, it has no keys of its own"]),
        ("+seed=3", ["is there already", "write seed=3"]),
        ("~sede", ["Did you mean seed?"]),
        ("seed", ["'seed' is no key=value"]),
        ("model.bias={", ["cannot be read", "Quote"]),
        ("seed=1,2", ["list of values to sweep", "seed=[1,2]"]),
        ("data.condition=sone", ["sizes.sone", "sizes has none, some", "Did you mean sizes.some?"]),
        ("data.size=???", ["data.size: a value must be given"]),
        ("model.in_features=abc", ["model.in_features: expected int, got 'abc'"]),
        ("data.size=abc", ["data.size: expected int, got 'abc' (it is model.in_features)"]),
        ("seed=-1", ["seed: expected int >= 0 and < 4294967296, got -1"]),
    ],
)
def test_a_mistake_is_named_with_what_there_is_and_the_nearest_name(conf, word, parts):
    message = refused(conf, word)
    for part in parts:
        assert part in message, message


def test_all_mistakes_in_words_come_in_one_message(conf):
    assert refused(conf, "sede=1", "data.size=5", "~nothing", "data.szie=1").count("there is no key") == 3
    assert refused(conf, "model=linaer", "data=smal", "sede=1").count("Did you mean") == 2
    assert len(refused(conf, "seed", "name", "data.size=[").splitlines()) == 3


def test_a_key_below_a_reference_is_refused_with_the_key_it_refers_to(conf):
    (conf / "data" / "small.yaml").write_text("size: 4\ncondition: some\nsame: ${sizes}\n")
    assert "Set sizes.none instead" in refused(conf, "data.same.none=1")


def test_a_broken_file_is_the_users_mistake_and_named(conf):
    (conf / "model" / "linear.yaml").write_text("a: [1\n")
    assert "model/linear.yaml" in refused(conf).replace("\\", "/")
    (conf / "experiment" / "wide.yaml").write_text(
        "# @package _global_\ndefaults: [{override /data: none}]\n"
    )
    (conf / "model" / "linear.yaml").write_text(
        "{_target_: torch.nn.Linear, in_features: 1, out_features: 1}"
    )
    assert "data/none" in refused(conf, "experiment=wide")


def test_recompose_replaces_a_node_by_a_file_and_references_follow(conf):
    stored = compose("train", ["model.bias=false", "seed=3"], conf).source
    before = copy.deepcopy(stored)
    again = recompose(stored, ["data=large", "callbacks=third", "callbacks.third.p=0.5"], conf=conf)
    assert again.config["model"] == {
        "_target_": "torch.nn.Linear",
        "in_features": 40,
        "out_features": 3,
        "bias": False,
    }
    assert again.config["callbacks"] == {"third": {"_target_": "torch.nn.Dropout", "p": 0.5}}
    assert again.config["seed"] == 3
    assert again.choices == {"data": "large", "model": "linear", "callbacks": "third", "logger": "none"}
    assert stored == before
    assert recompose(stored, conf=conf).source == stored


def test_recompose_takes_debug_for_the_whole_config_and_an_empty_file_as_it_is(conf):
    stored = compose("train", ["logger=csv"], conf).source
    assert recompose(stored, ["debug=fast"], conf=conf).config["max_phase_epochs"] == 1
    assert not recompose(stored, ["logger=none"], conf=conf).config["logger"]


def test_a_group_that_a_file_brings_along_is_chosen_where_it_stands(conf):
    composed = compose("train", ["model=narrow", "net=many"], conf)
    assert composed.config["model"]["out_features"] == 20 and "net" not in composed.config
    assert (composed.choices["model"], composed.choices["net"]) == ("narrow", "many")
    inside = compose("train", ["net=many", "model=tower"], conf)
    assert inside.config["model"]["inner"]["out_features"] == 20
    assert inside.choices["net"] == "many"
    # A model that replaces another one brings its own.
    again = recompose(composed.source, ["model=tower"], conf=conf)
    assert again.config["model"]["inner"]["out_features"] == 2 and again.choices["net"] == "few"


def test_recompose_puts_a_file_where_its_header_says_and_leaves_the_rest(conf):
    stored = compose("train", [], conf)
    again = recompose(stored.source, ["sampler=warm", "sampler.temperature=0.5"], conf=conf)
    assert again.config["sampler"] == {"temperature": 0.5} and again.choices["sampler"] == "warm"
    assert recompose(stored.source, ["sampler=none_left"], conf=conf).config["data"]["condition"] == "none"
    assert recompose(again.source, ["sampler=null"], conf=conf).config["sampler"] is None
    assert compose("train", ["data=small_linear"], conf).choices["logger"] == "csv"
    other = recompose(stored.source, ["data=small_linear"], conf=conf)
    assert other.choices["logger"] == "none" and not other.config["logger"]


def test_recompose_refuses_what_belongs_to_the_checkpoint(conf):
    words = ["model=bilinear", "model.bias=false", "~model.bias", "net=many", "experiment=wide", "seed=1"]
    with pytest.raises(InputError, match="weights were trained with it") as caught:
        recompose(compose("train", [], conf).source, words, refused=FIXED, conf=conf)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == words[:-1]


def test_composing_leaves_another_hydra_as_it_was(conf, tmp_path):
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        theirs = GlobalHydra.instance().hydra
        compose("train", [], conf)
        assert GlobalHydra.instance().hydra is theirs


def test_build_makes_plain_containers_and_hands_given_objects_over_uncopied(conf):
    composed = compose("train", [], conf)
    assert composed.build("model").weight.shape == (3, 4)
    assert build({}, "logger") is None
    layer = torch.nn.Identity()
    made = build({"_target_": "torch.nn.Sequential", "_args_": []}, "x")
    assert len(made) == 0
    node = {"_target_": f"{__name__}.keep", "sizes": [1, {"a": 2}]}
    made = build(node, "x", layer=layer, layers=[layer])
    assert type(made["sizes"]) is list and type(made["sizes"][1]) is dict
    assert made["layer"] is layer and made["layers"][0] is layer


def raise_it(kind: str, text: str = "too many") -> None:
    errors = [ValueError, MisconfigurationException, InputError, RuntimeError]
    raise {error.__name__: error for error in errors}[kind](text)


@pytest.mark.parametrize("kind", ["ValueError", "MisconfigurationException", "InputError"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("too many", "model.part: too many"),
        ("size=3: too many", "model.part.size=3: too many"),
        ("spec.size=3: too many", "model.part.spec.size=3: too many"),
        ("data must be there", "model.part: data must be there"),
    ],
)
def test_what_a_constructor_refuses_is_the_users_mistake_with_the_nodes_key(kind, text, said):
    node = {"_target_": f"{__name__}.raise_it", "kind": kind, "text": text}
    with pytest.raises(InputError) as caught:
        build({"_target_": f"{__name__}.keep", "part": node}, "model")
    assert str(caught.value) == said
    with pytest.raises(InputError) as caught:
        build({"_target_": f"{__name__}.raise_it", "kind": kind}, "model", text=text)
    assert str(caught.value) == said.replace(".part", "")


def test_a_constructor_may_name_a_whole_key_itself():
    node = {"_target_": f"{__name__}.raise_it", "kind": "InputError"}
    for text in ("stream.num_tasks=9, but there are 4", "model.part: nothing", "data: nothing"):
        with pytest.raises(InputError) as caught:
            build(node | {"text": text}, "model")
        assert str(caught.value) == text


def test_another_failure_while_building_stays_what_it_is():
    with pytest.raises(RuntimeError, match="too many"):
        build({"_target_": f"{__name__}.raise_it", "kind": "RuntimeError"}, "model")
    with pytest.raises(KeyError), plain_errors("x"):
        {}["a"]


def test_a_target_that_could_harm_is_refused():
    with pytest.raises(InputError, match=r"os\.remove"):
        build({"_target_": "os.remove", "path": "nothing"}, "model")


def test_slurm_outside_slurm_is_the_users_mistake(monkeypatch):
    monkeypatch.delenv("SLURM_NODEID", raising=False)
    environment = "lightning.pytorch.plugins.environments.SLURMEnvironment"
    node = {"_target_": "lightning.Trainer", "accelerator": "cpu", "logger": False, "strategy": "ddp"}
    with pytest.raises(InputError, match=r"srun"):
        build(node | {"devices": 2, "plugins": [{"_target_": environment, "auto_requeue": False}]}, "trainer")


def test_a_loss_reaches_the_model_as_the_function_itself():
    """Hydra's partials look up their target again at every call, a sixth of a small network's step."""
    from lit_gen.losses.reconstruction import squared_error

    assert compose("train", ["model=vae", "data=synthetic"]).build("model").reconstruction is squared_error


def test_settings_of_a_callback_that_was_not_chosen_are_left_out():
    config = compose("train", ["experiment=quickstart", "callbacks=progress"]).config
    assert list(config["callbacks"]) == ["progress"]
    with pytest.raises(InputError, match=r"judges\.quality"):
        compose("train", ["experiment=quickstart", "judges=terms", "judges.quality.num_samples=5"])
