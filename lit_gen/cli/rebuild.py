"""From a checkpoint to the configuration and the model that it was trained as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lit_gen.cli.compose import Composed, recompose
from lit_gen.core.checkpoint import Stored, load_weights
from lit_gen.core.module import LitModel

FIXED = ("model", "stream")
"""What the weights depend on; other parts of the configuration may be changed."""


class Rebuilt(NamedTuple):
    """A model as it was when the checkpoint was written."""

    composed: Composed
    module: LitModel
    stage: int  # place in the stages of its datamodule
    current_task: int  # the last task seen


def rebuild(stored: Stored, overrides: Sequence[str] = (), refused: Sequence[str] = FIXED) -> Rebuilt:
    """Lays the overrides over the stored configuration, builds the model and loads its weights.

    Raises:
        InputError: an override is refused or wrong, or the weights fit no more.
    """
    composed = recompose(stored.config, overrides, refused)
    module = composed.build("model")
    load_weights(module, stored)
    stage = stored.state.get("callbacks", {}).get("TaskSwitch", {}).get("stage", 0)
    stream = composed.config["stream"]
    current_task = stream["num_tasks"] - 1 if stream["joint"] else stage
    return Rebuilt(composed, module.eval(), stage, current_task)
