"""From a configuration to all that a run is made of: data, model, callbacks, loggers, the Trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ProgressBar

from callbacks.checkpoints import RunCheckpoints
from callbacks.ema import AveragedWeights
from callbacks.run_record import RunRecord
from callbacks.scoring import Scoring
from callbacks.shared_buffers import SharedBuffers
from callbacks.task_switch import TaskSwitch
from lit_gen.cli.building import build, plain_errors
from lit_gen.cli.config import Composed
from lit_gen.cli.launchers import rank
from lit_gen.cli.lean import NoProfiler, without_empty_hooks
from lit_gen.cli.log import run_logger
from lit_gen.cli.open_run import built_model, check_parts
from lit_gen.cli.run_folder import RunFolder
from lit_gen.cli.threads import use_threads
from lit_gen.core.checkpoint import Stored
from lit_gen.core.compiled import compile_networks
from lit_gen.core.lightning_internals import without_gpu_checks, without_own_signals
from lit_gen.core.memory import refuse_beyond_memory
from lit_gen.core.module import LitModel
from lit_gen.core.one_fit import RunTimer
from lit_gen.core.stages import check_stages
from lit_gen.core.types import InputError, StreamData
from lit_gen.metrics.features import NoWeights
from lit_gen.tracking.metrics_file import MetricsFile
from lit_gen.tracking.provenance import about_run

# Whatever order the user names them in: the switch seeds before anything draws; averages are in the model
# before anything looks at it; scores are there before the record keeps them; checkpoints hold all states.
_FIRST = (TaskSwitch, SharedBuffers, AveragedWeights, Scoring)
_LAST = (RunRecord, RunCheckpoints)


class Parts(NamedTuple):
    """What a run is made of."""

    trainer: Trainer
    module: LitModel
    data: StreamData
    record: RunRecord
    saver: RunCheckpoints


class Given(NamedTuple):
    """What a run is made of that its configuration only describes."""

    module: LitModel
    data: StreamData
    callbacks: Sequence[Callback]


def assemble(
    composed: Composed,
    folder: RunFolder,
    stored: Stored | None,
    start: Mapping[str, Any],
    given: Given | None = None,
) -> Parts:
    """Builds everything that a run needs, and settles seed and number of threads.

    Args:
        start: start.json of a run that is resumed.
        given: see `start`.

    Raises:
        InputError: something in the configuration or the files cannot be used.
    """
    config = composed.config
    seed_everything(config["seed"], workers=True, verbose=False)
    data = given.data if given else composed.build("data")
    data.prepare_data()
    data.setup("fit")
    saved = folder.path / "split"
    if stored is not None and (changes := data.changes_since(saved)):
        is_moved = stored.config["stream"] != composed.source["stream"]
        what = "the first tasks of this stream" if is_moved else "the data"
        raise InputError(
            f"resume={folder.path}: {what} are not those that this run was trained on.\n  "
            + "\n  ".join(changes)
            + "\nNothing was changed. Put the data back (or say where they are, data.root=), or go on with "
            f"these as a new run: lit-gen train resume={folder.path} output_dir=<a new folder>"
        )
    if rank() == 0 and (stored is None or not data.is_saved(saved)):
        data.save_split(saved)
    module = given.module if given else built_model(composed)
    saver = RunCheckpoints(config["checkpoint"]["min_seconds"])
    scoring = scoring_of(composed, asks=config.get("scores", "now") == "now")
    record = RunRecord(config, composed.source, scoring.board)
    own = [TaskSwitch(config["seed"]), SharedBuffers(), scoring, record, saver]
    callbacks = [*own, *_chosen(composed), *(given.callbacks if given else ())]
    if not config["trainer"].get("enable_progress_bar", True):
        callbacks = [each for each in callbacks if not isinstance(each, ProgressBar)]
    callbacks = _in_order(callbacks)
    check_parts(module, data, callbacks)  # before a logger begins a run
    last_step = stored.state["callbacks"]["RunRecord"]["last_step"] if stored is not None else None
    logger = run_logger(composed, folder.path, None if last_step is None else last_step + 1)
    fixed = {"max_time": None} | ({} if config["trainer"].get("profiler") else {"profiler": NoProfiler()})
    trainer = build(
        config["trainer"] | fixed,
        "trainer",
        callbacks=[*callbacks, *_timer(config["trainer"].get("max_time"))],
        logger=[MetricsFile(folder.path), *([logger] if logger is not None else [])],
        default_root_dir=str(folder.path),
    )
    if trainer.strategy.root_device.type == "cpu":
        num_bytes = 4 * sum(weight.nbytes for weight in module.parameters() if weight.requires_grad)
        with plain_errors("model", config["model"]):
            refuse_beyond_memory(num_bytes, "training it, with gradients and what an optimizer keeps,")
    check_stages(trainer, module, data, config["trainer"])
    chosen = stored.record.get("cpu_threads") if stored is not None else start.get("cpu_threads")
    before = stored.config if stored is not None else start.get("source", {})
    if before.get("cpu_threads", config["cpu_threads"]) != config["cpu_threads"]:
        chosen = None  # another number was asked for
    record.cpu_threads = use_threads(config["cpu_threads"], chosen, trainer, module, data)
    without_gpu_checks(trainer)
    without_own_signals(trainer)
    without_empty_hooks(module, trainer.callbacks)
    if config["compile"] is not None:
        compile_networks(module, config["compile"])
    if rank() == 0:
        record.about = about_run(data, trainer.strategy.root_device, trainer.world_size)
    return Parts(trainer, module, data, record, saver)


def scoring_of(composed: Composed, **settings: Any) -> Scoring:
    """The callback that asks the judges of a configuration, with these settings. Those whose extractor nobody
    chose are left out where its weights are not there.
    """
    judges, left_out = {}, {}
    for name in composed.config["judges"] or {}:
        try:
            judges[name] = composed.build(f"judges.{name}")
        except NoWeights as reason:
            if composed.choices.get("extractor") != "default":
                raise
            left_out[name] = str(reason)
    collapse, published = composed.build("mode_collapse"), composed.config["published"]
    return Scoring(judges, published, collapse, left_out=left_out, **settings)


def _chosen(composed: Composed) -> list[Callback]:
    """The callbacks of the configuration; those that are null are left out."""
    built = [composed.build(f"callbacks.{name}") for name in composed.config["callbacks"] or {}]
    return [callback for callback in built if callback is not None]


def _in_order(callbacks: Sequence[Callback]) -> list[Callback]:
    """By their places in `_FIRST` and `_LAST`, what stands in neither between them as it was given."""

    def place(callback: Callback) -> int:
        before = [number for number, kind in enumerate(_FIRST, -len(_FIRST)) if isinstance(callback, kind)]
        after = [number for number, kind in enumerate(_LAST, 1) if isinstance(callback, kind)]
        return [*before, *after, 0][0]

    return sorted(callbacks, key=place)


def _timer(limit: Any) -> list[Callback]:
    """In place of Lightning's own, which stops inside an epoch, from where no run is resumed."""
    with plain_errors(f"trainer.max_time={limit!r}"):
        return [] if limit is None else [RunTimer(limit)]
