"""From config groups and words of the command line to one checked config.

Hydra's compose API, not `hydra.main`: that one relaunches sweeps in every process and moves folders. Hydra
gets the words that choose files. Its `instantiate` is not used: configs also come from checkpoints, it builds
whatever it does not know to be harmful, and it resolves once more what a config holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from lit_gen.cli import CONF, choices, default_choices, did_you_mean, group_names, no_such_choice
from lit_gen.cli.allowed import locate
from lit_gen.cli.building import build, first_lines
from lit_gen.cli.places import absolute, at_home
from lit_gen.cli.signatures import all_keys, check, takes_path
from lit_gen.cli.words import Word, lay_over, parse, table_of, with_rows
from lit_gen.core.types import InputError, together
from lit_gen.tracking.connection import absolute_address

_INSIDE = re.compile(r"\$\{(\.*\w[\w.\[\]-]*|times:[^${}]*|oc\.env:LIT_GEN_DATA,[^${}]*)\}")
# ${times:2,${..latent_size}}
OmegaConf.register_new_resolver("times", lambda *factors: math.prod(factors), replace=True)

FIXED = ("model", "net", "stream")
"""What the weights of a checkpoint depend on."""
CHOSEN_ONCE = ("recipe", "budget", "experiment", "paper", "choices")  # also say what the model is
_STORED = "lit_gen_stored"  # what Hydra knows a checkpoint's config by
_EMPTY = "lit_gen_empty"  # and a choice without any key
# ModuleNotFoundError: a choice, such as logger=tensorboard, that needs a package which was not installed.


class Composed(NamedTuple):
    """A config that passed the check.

    Attributes:
        config: plain containers, resolved: for MLflow and config.yaml.
        source: the same before interpolation: for the checkpoint, so that a later `data=` reaches all of it.
        choices: group -> chosen file; groups without a choice are absent. Both dictionaries have them too.
    """

    config: dict[str, Any]
    source: dict[str, Any]
    choices: dict[str, str]

    def build(self, key: str, **given: Any) -> Any:
        """The object that the node at a dotted key describes; None where the node is null or empty."""
        node: Any = self.config
        for part in key.split("."):
            node = node[part]
        return build(node, key, **given)

    def replaced(self, **nodes: Any) -> Composed:
        """The same with other nodes, which are not checked."""
        source = self.source | nodes
        return Composed(_resolved(source), source, source["choices"])

    def anchored(self) -> Composed:
        """The same, whose paths and SQLite databases are where they are from any folder."""
        return self.replaced(**_anchored(self.source, self.config))


def compose(config_name: str, words: Sequence[str] = (), conf: Path = CONF) -> Composed:
    """Composes `conf/<config_name>.yaml` with the words; InputError with all that the check finds wrong.

    data.root alone, with no word about which data, is a folder of pictures.
    """
    known = default_choices(conf / f"{config_name}.yaml")
    given = together(*(partial(parse, word) for word in words))
    keys = {word.key for word in given}
    if config_name == "train" and "data.root" in keys and not keys & {"data", "experiment", "paper"}:
        given = [parse("data=image_folder"), *given]
    return _checked(*_laid_over(config_name, given, known, conf))


def recompose(
    source: Mapping[str, Any], words: Sequence[str] = (), refused: Sequence[str] = (), conf: Path = CONF
) -> Composed:
    """Lays words over a checkpoint's config. A group's file replaces what the group gave.

    A stored value that asks for what is outside, such as ${oc.env:TOKEN}, is a missing one.

    Args:
        source: `Composed.source` as it was stored; not changed.
        refused: top-level keys that belong to the checkpoint, such as "model".

    Raises:
        InputError: also for a word about a refused key.
    """

    def accept(word: Word) -> None:
        top = word.key.partition(".")[0]
        if top in (*refused, *CHOSEN_ONCE):
            raise InputError(
                f"{word.text}: {top} belongs to the checkpoint, whose weights were trained with it, and "
                f"cannot be changed here. To have it otherwise, train anew: lit-gen train {word.text}"
            )

    overrides = together(*(partial(parse, word) for word in words))
    together(*(partial(accept, word) for word in overrides))
    groups = group_names(conf)
    replaced = {word.key for word in overrides} & set(groups)
    # What is called hydra or defaults would tell Hydra where to look for files.
    left_out = (*replaced, "choices", "hydra", "defaults")
    kept = _without_outside({key: value for key, value in source.items() if key not in left_out})
    # With every group in its list, so that a file may choose what belongs to it, as data its extractor.
    listed = dict.fromkeys([*default_choices(conf / "train.yaml"), *groups])
    node = kept | {"defaults": ["_self_", *({group: None} for group in listed)]}
    ConfigStore.instance().store(_STORED, node=node)
    made, chosen = _laid_over(_STORED, overrides, groups, conf)
    # But what it chooses of the rest stays as it was.
    rest = {group for group in chosen if group in kept}
    taken = {group: choice for group, choice in chosen.items() if group not in rest}
    return _checked(
        dict.fromkeys(replaced & set(source)) | made | {group: kept[group] for group in rest},
        {**source.get("choices", {}), **taken},
    )


def _checked(source: dict[str, Any], choices: dict[str, str]) -> Composed:
    source = source | {"choices": choices}
    config = _resolved(source)
    if None in ((config.get("data") or {}).get("spec") or {}).values():
        source["data"] = source["data"] | {"spec": _spec_of_files(config["data"], source["data"]["spec"])}
        config = _resolved(source)
    check(config, source)
    return Composed(config, _without_outside(source, config), choices)


def _spec_of_files(data: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """A spec in which nothing is left to the files, as far as the data can tell from them."""
    look = getattr(locate(data["_target_"]), "spec_of", None)
    found = look(data["root"]) if look else {}
    return {key: found.get(key) if value is None else value for key, value in spec.items()}


def _without_outside(source: Any, config: Any = "???") -> Any:
    """A copy of a config before interpolation in which nothing asks for what is outside of it.

    Args:
        config: the same, resolved, whose values are taken there; "???": they are missing then.
    """
    if isinstance(source, dict | list):
        pairs = source.items() if isinstance(source, dict) else enumerate(source)
        values = [
            (key, _without_outside(value, config if config == "???" else config[key])) for key, value in pairs
        ]
        return dict(values) if isinstance(source, dict) else [value for _, value in values]
    return config if _asks_outside(source) else source


def _anchored(source: Any, config: Any, is_path: bool = False) -> Any:
    """A copy of a config before interpolation; the default of ${oc.env:LIT_GEN_DATA} is what was used.

    Args:
        config: the same, resolved.
        is_path: of a text, whether what takes it asks for a path.
    """
    if isinstance(source, dict):
        return {key: _anchored(v, config[key], takes_path(config, key)) for key, v in source.items()}
    if isinstance(source, list):
        return [_anchored(value, config[number]) for number, value in enumerate(source)]
    is_own = isinstance(source, str) and "${" not in source
    if is_own and source.startswith("sqlite:"):
        return absolute_address(source)
    if is_path and re.fullmatch(r"\$\{oc\.env:LIT_GEN_DATA,[^${}]*\}", str(source)):
        place = str(Path(config).absolute())
        return place if re.search(r"['\\${}]", place) else f"${{oc.env:LIT_GEN_DATA,'{place}'}}"
    return absolute(config) if is_path and is_own else source


def _asks_outside(value: Any) -> bool:
    """Whether a text has an interpolation other than of keys, ${times:...} and the folder of data sets.

    Inner ones are taken out first: ${${a}:TOKEN} has the name of its resolver from elsewhere.
    """
    before, text = "", value if isinstance(value, str) else ""
    while text != before:
        before, text = text, re.sub(_INSIDE, "x", text)
    return "${" in text


def _laid_over(
    name: str, words: Sequence[Word], known: Collection[str], conf: Path
) -> tuple[dict[str, Any], dict[str, str]]:
    """The config before interpolation, and its choices.

    Args:
        known: groups of the config's own defaults list.
    """
    words, groups = with_rows(words, conf), {*known, *group_names(conf)}
    inner = [word for word in words if "/" in word.key]
    words = [word for word in words if word not in inner]
    about_groups = [word for word in words if word.key in groups]
    answers = together(*(partial(_choice, word, conf) for word in about_groups))
    chosen = {word.key: choice for word, choice in zip(about_groups, answers, strict=True)}
    rows = {group: choice for group, choice in chosen.items() if table_of(conf, group, choice)}
    chosen |= {group: table_of(conf, group, row) for group, row in rows.items()}
    asked = {group: choice for group, choice in chosen.items() if group in known}
    source, taken = _ask_hydra(conf, name, asked)
    if elsewhere := chosen.keys() - set(known):
        # Of a group that another file brings along, below a node of its own: net@model.
        places = {place.partition("@")[0]: place for place in (*known, *taken)}
        for group in elsewhere - places.keys():
            there = ", ".join(places)
            raise InputError(f"{group}={chosen[group]}: there is nothing to choose; choose {there}")
        asked |= {places[group]: chosen[group] for group in elsewhere}
        source, taken = _ask_hydra(conf, name, asked)
    if inner:  # model/learner=vae
        for word in inner:
            group, place = word.key.partition("/")[0], word.key.replace("/", ".")
            there = [each.partition("@")[2] for each in taken if each.startswith(f"{group}@{group}.")]
            if place not in there:
                listed = ", ".join(there).replace(".", "/") or "none"
                raise InputError(f"{word.text}: no choice is made there; such places are: {listed}")
            asked[f"{group}@{place}"] = _choice(word._replace(key=group), conf)
        source, taken = _ask_hydra(conf, name, asked)
    source.pop("shared", None), source.pop("rows", None)
    for group in ("callbacks", "judges"):
        if group in known:
            source.setdefault(group, {})  # judges=[]
        # An experiment may set up what another choice leaves out.
        for key, node in list((source.get(group) or {}).items()):
            if isinstance(node, dict) and "_target_" not in node:
                del source[group][key]
    together(*(partial(lay_over, source, word) for word in words if word.key not in groups))
    whole = (source.get("data") or {}).get("global_batch_size")
    if whole is not None and (word := next((w for w in words if w.key == "data.batch_size"), None)):
        raise InputError(
            f"{word.text}: data.global_batch_size={whole} stands beside it and says how many images a step "
            "has over all processes. Set that one, or data.global_batch_size=null too."
        )
    by_group = {place.partition("@")[0]: choice for place, choice in taken.items() if "@" in place}
    return source, by_group | {place: choice for place, choice in taken.items() if "@" not in place} | rows


def _ask_hydra(
    conf: Path, name: str, asked: Mapping[str, str | None]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The config before interpolation and the choices, from Hydra.

    Args:
        asked: group, or "group@node", -> choice; None: no file of it.
    """
    for group in (place.partition("@")[0] for place, choice in asked.items() if choice is None):
        # Not "~group", with which what is made up from it, ${recipe}_${data}, could not be.
        ConfigStore.instance().store(_EMPTY, node={}, group=group, package="_global_")
    words = [f"{place}={choice or _EMPTY}" for place, choice in asked.items()]
    theirs = GlobalHydra.instance().hydra  # a notebook's own Hydra stays what it was
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf), job_name="lit-gen", version_base="1.3"):
            config = hydra_compose(name, words, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise InputError(f"{' '.join(words) or name}: cannot be composed. {first_lines(error)}") from error
    finally:
        GlobalHydra.instance().hydra = theirs
    taken = {
        place: str(choice)
        for place, choice in config.hydra.runtime.choices.items()
        if choice is not None
        and not place.startswith("hydra/")
        # There may be no file of an optional one that the defaults list makes up.
        and (not isinstance(choice, str) or (conf / place.partition("@")[0] / f"{choice}.yaml").is_file())
    }
    source = OmegaConf.to_container(config, resolve=False)
    del source["hydra"]
    return source, taken


def _choice(word: Word, conf: Path) -> str | None:
    """What a group word says, as Hydra reads it; InputError unless every name is a file of the group."""
    group, there = word.key, choices(word.key, conf)
    if word.value is None:
        if "none" in there or default_choices(conf / "train.yaml").get(group, "null") == "null":
            return "none" if "none" in there else None
        raise InputError(f"{word.text}: {group} must be one of {', '.join(there)}.")
    names = word.value if isinstance(word.value, list) else [word.value]
    for name in map(str, names):
        if name not in there:
            raise InputError(no_such_choice(word.text, group, name, there))
    return f"[{','.join(map(str, names))}]" if isinstance(word.value, list) else str(word.value)


def _resolved(source: dict[str, Any]) -> dict[str, Any]:
    try:
        return at_home(OmegaConf.to_container(OmegaConf.create(source), resolve=True, throw_on_missing=True))
    except (MissingMandatoryValue, InterpolationToMissingValueError) as error:
        asked = re.search(r"resolving interpolation: Missing mandatory value: (\S+)", str(error))
        key = asked[1] if asked else error.full_key
        raise InputError(f"{key}: a value must be given: {key}=...") from error
    except InterpolationKeyError as error:
        missing, keys = str(error).split("'")[1], list(all_keys(source))
        parent = missing.rpartition(".")[0]
        siblings = [key.rpartition(".")[2] for key in keys if parent and key.rpartition(".")[0] == parent]
        there = f"{parent} has {', '.join(siblings)}." if siblings else ""
        guess = did_you_mean(missing, keys)
        raise InputError(
            f"{error.full_key}: refers to {missing!r}, which is not there. {guess}{there}".rstrip()
        ) from error
    except OmegaConfBaseException as error:
        raise InputError(f"{error.full_key}: {first_lines(error)}") from error


def as_yaml(config: dict[str, Any]) -> str:
    """The config as it stands in config.yaml."""
    return OmegaConf.to_yaml(OmegaConf.create(config))
