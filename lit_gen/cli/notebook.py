"""Runs from objects, in a notebook or a script: trained, scored and opened again without a configuration."""

from __future__ import annotations

import dataclasses
import logging
import tempfile  # noqa: F401 (of the example)
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml
from lightning import Callback

import lit_gen
from callbacks.progress import SessionProgress
from datamodules.tasks import ClassSplit, TaskSplit
from lit_gen.cli import CONF
from lit_gen.cli.allowed import foreign, trusting
from lit_gen.cli.assembly import Given
from lit_gen.cli.config import Composed, compose
from lit_gen.cli.described import Undescribed, described
from lit_gen.cli.open_run import read_own, recomposed
from lit_gen.cli.run_folder import RunFolder
from lit_gen.cli.stop import told_to_stop
from lit_gen.cli.train import resume as go_on
from lit_gen.cli.train import start
from lit_gen.core.module import LitModel
from lit_gen.core.types import InputError, StreamData
from lit_gen.evaluation.board import Row
from lit_gen.evaluation.context import Context
from lit_gen.evaluation.scores_file import read_board
from lit_gen.metrics.features import FeatureExtractor

if TYPE_CHECKING:
    from datamodules.base import StreamDataModule

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Run:
    """A run folder; what it holds is read when it is first asked for.

        >>> with tempfile.TemporaryDirectory() as out:  # doctest: +ELLIPSIS, +NORMALIZE_WHITESPACE
        ...     data, options = lit_gen.Digits(), {"max_epochs": 1, "enable_progress_bar": False}
        ...     run = lit_gen.fit(lit_gen.VAE(data.spec), data, out, "logger=csv", "judges=none", **options)
        ...     list(lit_gen.open_run(out).model.sample(3).shape)
        <BLANKLINE>
        Run folder: ...
        [3, 1, 8, 8]

    Attributes:
        path: of the folder.
        trust: packages of one's own whose classes its configuration may build.
    """

    path: Path
    trust: Sequence[str] = ()
    given: LitModel | None = None

    @cached_property
    def model(self) -> LitModel:
        """As the newest checkpoint has it, on the CPU and in evaluation mode."""
        return lit_gen.load(self.path, self.trust, self.given)

    @cached_property
    def data(self) -> StreamData:
        """The data that it was trained on, set up, at the last task seen."""
        stored = read_own(self.path)
        with trusting(self.trust):
            data = recomposed(stored).build("data")
        data.prepare_data()
        data.setup("test")
        data.current_task = data.stages[stored.stage].index
        return data

    @property
    def scores(self) -> pd.DataFrame:
        """All scores so far, as in scores.csv: a row for each, with the task after which it was given."""
        found = read_board(self.path).rows
        return _frame(
            [{"after_task": after} | row._asdict() for after, rows in found.items() for row in rows]
        )

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.yaml."""
        return RunFolder(self.path).read_config()


def fit(
    model: LitModel,
    data: StreamDataModule,
    out: str | Path | None = None,
    *words: str,
    tasks: int | TaskSplit | None = None,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    resume: str | Path | None = None,
    **trainer: Any,
) -> Run:
    """Trains a model on data, task after task, as `lit-gen train` does, into the same kind of folder.

    Lightning's progress bar says task, phase and loss. What was stopped goes on with `resume=FOLDER`, here or
    of `lit-gen train`. Model and data are described in config.yaml by what they were made with; a model that
    holds networks made by hand is not, and `load` and `open_run` ask for it.

    Args:
        model: is trained in place.
        data: is not changed; what was trained on is `data` of the answer.
        out: the run folder; None: a new one under runs/.
        words: more, as on the command line: "logger=csv", "judges=terms", "callbacks=[default,best]".
        tasks: into which the data are dealt: so many, by classes, or a split; None: as the data say.
        seed: of the noise of batches and scores.
        callbacks: more of them, for this run only.
        resume: a run of this model, these data and tasks, which goes on, with other words and options of the
            trainer where they are given; `out` and `seed` are its own then.
        trainer: of `lightning.Trainer`, such as max_epochs, accelerator and devices.

    Raises:
        InputError: something does not fit, such as the model and the number of tasks.
        KeyboardInterrupt: it was stopped; it can go on.
        RuntimeError: the loss has left the numbers, or the disk is full; log.txt says it.
    """
    if tasks is not None:
        split = ClassSplit(tasks) if isinstance(tasks, int) else tasks
        data = dataclasses.replace(data, split=split, num_tasks=split.num_tasks)
    stream = ["recipe=stream"] if data.num_tasks > 1 else []
    composed = _around(data, [*stream, *words, f"seed={seed}"])
    if out is not None:
        composed.source["output_dir"] = str(Path(out).expanduser().absolute())
    try:
        described_model = described(model, "model")
    except Undescribed as reason:
        described_model = None
        log.warning(
            "config.yaml cannot hold %s; lit_gen.open_run(run, model=...) takes the model made again", reason
        )
    (composed.source["callbacks"] or {}).pop("progress", None)
    composed = composed.replaced(
        model=described_model,
        trainer=composed.source["trainer"] | trainer,
        choices=composed.choices | {"model": type(model).__name__},
    )
    at_hand = foreign([composed.source["model"], composed.source["data"]])  # what was given is trusted
    given = Given(model, data, [SessionProgress(), *callbacks])
    try:
        with told_to_stop() as stop, ExitStack() as at_the_end, trusting(sorted(at_hand)):
            if resume is None:
                folder = start(composed, stop, at_the_end, given)
            else:
                changed = [*words, *(f"trainer.{name}={value}" for name, value in trainer.items())]
                folder = go_on(str(resume), changed, stop, at_the_end, given)
    except SystemExit as ended:
        if ended.code == stop.exit_code:
            raise KeyboardInterrupt from None
        raise RuntimeError(f"the run has ended early (exit code {ended.code}); see its log") from None
    run = Run(folder.path, given=model)
    run.model, run.data = model.eval(), data
    return run


def score(
    model: LitModel,
    data: StreamDataModule,
    metrics: Sequence[str] | None = None,
    extractor: str | FeatureExtractor | None = None,
    num_samples: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """What a model scores on the test images of all tasks: a row for every metric and task.

    Args:
        metrics: "fid", "precision", "recall", ..., and terms of the model's own, such as "loss"; None: all.
        extractor: a name of conf/extractor, or one; None: that of the data, or Inception.
        num_samples: the most images that are drawn for a task.

    Raises:
        InputError: there is no such metric, or the extractor has no weights here.
    """
    words = ["judges=[quality,terms]", "judges.terms.single_task=true", f"seed={seed}"]
    words += [f"judges.quality.num_samples={num_samples}", "judges.quality.per_task=true"]
    own = isinstance(extractor, FeatureExtractor)
    composed = _around(data, words + ([f"extractor={extractor}"] if extractor and not own else []))
    if own:
        composed.config["judges"]["quality"].pop("extractor")
    quality = composed.build("judges.quality", **({"extractor": extractor} if own else {}))
    if metrics is not None:
        quality.metrics = [metric for metric in quality.metrics if set(metric.names) & set(metrics)]
    data.prepare_data()
    data.setup("test")
    context = Context(model, data, len(data.tasks), seed=seed)
    judges = [composed.build("judges.terms"), *([quality] if quality.metrics else [])]
    rows: list[Row] = []
    for judge in judges:
        judge.check(context)
        rows += judge.rows(context, "test")
    there = dict.fromkeys([*(row.metric for row in rows), *quality.better])
    if missing := set(metrics or ()) - set(there):
        raise InputError(f"metrics={sorted(missing)}: there is {', '.join(there)}")
    return _frame([row._asdict() for row in rows if metrics is None or row.metric in metrics])


def open_run(run: str | Path, trust: Sequence[str] = (), model: LitModel | None = None) -> Run:
    """A run of `fit` or `lit-gen train`: its model, data, scores and configuration.

    Args:
        run: its folder.
        trust: names of packages of your own whose classes its configuration may build, or "__main__" for
            those of the notebook.
        model: made again, into which the weights go, where config.yaml cannot hold what it is made of.

    Raises:
        InputError: there is no run.
    """
    opened = Run(Path(run).expanduser().absolute(), trust, model)
    RunFolder(opened.path).read_config()
    return opened


def _around(data: StreamDataModule, words: Sequence[str]) -> Composed:
    """What a run of these data is composed of, with the data described as they are and some model."""
    target = f"{type(data).__module__}.{type(data).__qualname__}"
    files = sorted((CONF / "data").glob("[!_]*.yaml"))
    named = [f.stem for f in files if yaml.safe_load(f.read_text(encoding="utf-8")).get("_target_") == target]
    composed = compose("train", [*(f"data={name}" for name in named[:1]), *words])
    node = described(data, "data")
    choices = composed.choices | {"data": type(data).__name__, "stream": type(data.split).__name__}
    stream = {name: node[name] for name in ("num_tasks", "joint", "split")}
    return composed.replaced(data=node, stream=stream, choices=choices)


def _frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """With "all" for the tasks together."""
    frame = pd.DataFrame(rows, columns=None if rows else ["after_task", *Row._fields])
    return frame.assign(on_task=["all" if pd.isna(task) else int(task) for task in frame["on_task"]])
