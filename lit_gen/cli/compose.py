"""From config groups and overrides to one checked config, and from its nodes to objects.

Hydra's compose API, not `hydra.main`: that one relaunches sweeps in every process and moves folders. Its
`instantiate` builds the objects, because configs also come from checkpoints and it refuses targets such as
`os.remove`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, MissingMandatoryValue, OmegaConfBaseException

from lit_gen.cli import CONF, choices, did_you_mean, group_names, resolvers
from lit_gen.cli.check import check
from lit_gen.cli.overrides import Word, all_keys, lay_over, merged, parse
from lit_gen.core.types import InputError

resolvers.register()

_FIXED_BY_THE_RUN = ("experiment", "paper")
# ModuleNotFoundError: a choice, such as logger=tensorboard, that needs a package which was not installed.
_MISTAKES = (ValueError, TypeError, MisconfigurationException, ModuleNotFoundError)


@dataclass(frozen=True)
class Composed:
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


def compose(config_name: str, overrides: Sequence[str] = (), conf: Path = CONF) -> Composed:
    """Composes `conf/<config_name>.yaml` with its groups and the overrides, and checks the result.

    Raises:
        InputError: whatever is wrong with groups, keys or values.
    """
    words = parse(overrides)
    defaults = _defaults(conf / f"{config_name}.yaml")
    known = set(defaults) | set(group_names(conf))
    chosen = [
        f"{'' if word.key in defaults else '+'}{word.key}="
        + _choice(word, conf, optional=defaults.get(word.key, "") is None)
        for word in words
        if word.key in known
    ]
    source, taken = _ask_hydra(conf, config_name, chosen)
    _drop_settings_of_nothing(source)
    lay_over(source, [word for word in words if word.key not in known])
    return _finished(source, taken)


def recompose(
    source: dict[str, Any], overrides: Sequence[str] = (), refused: Sequence[str] = (), conf: Path = CONF
) -> Composed:
    """Lays overrides over a checkpoint's config. A group override replaces that node by the group's file.

    Args:
        source: `Composed.source` as it was stored; not changed.
        refused: top-level keys that belong to the checkpoint, such as "model".

    Raises:
        InputError: also for an override of a refused key.
    """
    source = copy.deepcopy(source)
    taken = dict(source.pop("choices", {}))
    words = parse(overrides)
    groups = set(group_names(conf))
    for word in words:
        top = word.key.partition(".")[0]
        if top in (*refused, *_FIXED_BY_THE_RUN, "choices"):
            raise InputError(
                f"{word.text}: {top} belongs to the checkpoint and cannot be changed here: its weights fit "
                f"no other. To have it otherwise, train anew: lit-gen train {word.text}"
            )
        if word.key in groups:
            part, part_choices = _ask_hydra(conf, None, [f"+{word.key}={_choice(word, conf, False)}"])
            # A group's file is below its own key; only files for the whole config (debug) touch others.
            source = source | part if set(part) == {word.key} or word.key in source else merged(source, part)
            taken |= part_choices
    lay_over(source, [word for word in words if word.key not in groups])
    return _finished(source, taken)


def build(node: Any, name: str, **given: Any) -> Any:
    """The object that a node with `_target_` describes, or the objects in a list or dictionary of nodes.

    Args:
        name: the node's key, for messages.
        given: arguments that no config can hold, handed over as they are.

    Raises:
        InputError: a constructor refused its arguments.
    """
    if not node:
        return None
    node = _with_plain_functions(node)
    with plain_errors(name):
        if given:
            # Through a partial: what instantiate is given becomes part of a config, and is copied on the way.
            return instantiate({**node, "_partial_": True}, _convert_="all")(**given)
        return instantiate(node, _convert_="all") if isinstance(node, dict) else instantiate(node)


@contextmanager
def plain_errors(name: str) -> Iterator[None]:
    """Turns what constructors and Lightning raise about their arguments into InputError "name: ...".

    Other exceptions leave as they were, without Hydra's wrapping.
    """
    try:
        yield
    except InstantiationException as error:
        full_key = str(error).rpartition("full_key: ")[2].strip() if "full_key: " in str(error) else ""
        where = f"{name}.{full_key}" if full_key else name
        cause = error.__cause__
        if cause is None:  # Hydra's own refusal
            raise InputError(f"{where}: {_first_lines(error)}") from error
        mistake = _as_mistake(cause, where)
        if mistake is None:
            raise cause from None
        raise mistake from (cause if mistake is not cause else None)
    except Exception as error:
        mistake = _as_mistake(error, name)
        if mistake is None or mistake is error:
            raise
        raise mistake from error


def _as_mistake(error: BaseException, where: str) -> InputError | None:
    """The InputError to raise instead; None if the error is none of the user's."""
    if isinstance(error, InputError):
        return error
    if isinstance(error, _MISTAKES):
        return InputError(f"{where}: {error}")
    if isinstance(error, KeyError) and str(error).startswith("'SLURM_"):
        return InputError(
            f"{where}: {error} is not set. trainer=slurm is for processes that srun has started, see "
            "docs/slurm.sbatch; elsewhere take trainer=ddp."
        )
    return None


def _with_plain_functions(node: Any) -> Any:
    """Names our own functions as they are, where a node would wrap one into a partial without arguments.

    Hydra checks a partial's target again at every call, which a loss is in every step.
    """
    if isinstance(node, list):
        return [_with_plain_functions(part) for part in node]
    if not isinstance(node, dict):
        return node
    target = str(node.get("_target_", ""))
    if set(node) == {"_target_", "_partial_"} and node["_partial_"] and target.startswith("lit_gen.losses."):
        return {"_target_": "hydra.utils.get_method", "path": target}
    return {key: _with_plain_functions(part) for key, part in node.items()}


def as_yaml(config: dict[str, Any]) -> str:
    """The config as it stands in config.yaml."""
    return OmegaConf.to_yaml(OmegaConf.create(config))


def _ask_hydra(
    conf: Path, config_name: str | None, overrides: list[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The config before interpolation and the choices, from Hydra."""
    of_others = GlobalHydra.instance().hydra  # a notebook's own Hydra stays what it was
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf), job_name="lit-gen", version_base="1.3"):
            config = hydra_compose(config_name, overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise InputError(
            f"{' '.join(overrides) or config_name}: cannot be composed. {_first_lines(error)}"
        ) from error
    finally:
        GlobalHydra.instance().hydra = of_others
    taken = {
        group: str(choice)
        for group, choice in config.hydra.runtime.choices.items()
        if choice is not None and not str(group).startswith("hydra/")
    }
    source = OmegaConf.to_container(config, resolve=False)
    del source["hydra"]
    return source, taken


def _drop_settings_of_nothing(source: dict[str, Any]) -> None:
    """An experiment may set up callbacks that another choice of callbacks= leaves out."""
    nodes = source.get("callbacks") or {}
    for name in [name for name, node in nodes.items() if isinstance(node, dict) and "_target_" not in node]:
        del nodes[name]


def _finished(source: dict[str, Any], taken: dict[str, str]) -> Composed:
    source["choices"] = taken
    config = _resolved(OmegaConf.create(source))
    check(config, source)
    return Composed(config, source, taken)


def _resolved(config: DictConfig) -> dict[str, Any]:
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key
        raise InputError(f"{key}: a value must be given: {key}=...") from error
    except InterpolationKeyError as error:
        missing = str(error).partition("'")[2].partition("'")[0]
        keys = list(all_keys(OmegaConf.to_container(config, resolve=False)))
        parent, _, last = missing.rpartition(".")
        siblings = [key.rpartition(".")[2] for key in keys if parent and key.rpartition(".")[0] == parent]
        there = f" {parent} has {', '.join(siblings)}." if siblings else ""
        guess = did_you_mean(last, siblings) if siblings else did_you_mean(missing, keys)
        raise InputError(
            f"{error.full_key}: refers to {missing!r}, which is not there.{there}{guess}"
        ) from error
    except OmegaConfBaseException as error:
        raise InputError(f"{error.full_key}: {_first_lines(error)}") from error


def _choice(word: Word, conf: Path, optional: bool) -> str:
    """What a group override says, as Hydra reads it; InputError unless every name is a file of the group."""
    group, there = word.key, choices(word.key, conf)
    if word.sign == "~" or word.value is None:
        if optional:
            return "null"
        if "none" in there:
            return "none"
        raise InputError(f"{word.text}: {group} must be one of {', '.join(there)}.")
    names = word.value if isinstance(word.value, list) else [word.value]
    for name in names:
        if isinstance(name, dict):
            raise InputError(
                f"{word.text}: {group} takes the name of a file in conf/{group}; values are {group}.key=..."
            )
        if str(name) not in there:
            raise InputError(
                f"{group}={name}: there is no such choice; {group} is one of "
                f"{', '.join(there) or '(nothing yet)'}.{did_you_mean(str(name), there)}"
            )
    return f"[{','.join(map(str, names))}]" if isinstance(word.value, list) else str(word.value)


def _defaults(file: Path) -> dict[str, Any]:
    """group -> choice (None: optional) of a config's own defaults list."""
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8")).get("defaults", [])
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{file}: cannot be read ({_first_lines(error)}).") from error
    pairs = [next(iter(entry.items())) for entry in entries if isinstance(entry, dict)]
    return {key.removeprefix("optional ").removeprefix("override "): choice for key, choice in pairs}


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])
