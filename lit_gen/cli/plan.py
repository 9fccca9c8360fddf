"""lit-gen plan: what a run will take, from a short trial of all that it does."""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from annotated_types import Gt
from lightning import seed_everything

from lit_gen.cli.assembly import Parts, assemble
from lit_gen.cli.config import compose
from lit_gen.cli.launchers import settle
from lit_gen.cli.lean import old_objects_left_alone
from lit_gen.cli.log import log_to
from lit_gen.cli.run_folder import new_folder, rank
from lit_gen.cli.stop import told_to_stop
from lit_gen.cli.trial import Points, Trial, TriedPhase
from lit_gen.cli.words import key_of, own_words
from lit_gen.core.files import writable_file, write_json
from lit_gen.core.memory import peak_memory
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import Diverged, InputError, Positive, StreamData, Task
from lit_gen.evaluation.tables import as_text
from lit_gen.tracking.provenance import device_name, package_versions

HELP = """lit-gen plan [experiment=NAME] [GROUP=NAME ...] [KEY=VALUE ...] [seconds=5] [devices=1,2] [out=FILE]

What a run will take, from a short trial: stages, steps, images, time, memory, disk, values for the tracker.

Takes what lit-gen train takes. Every phase of every task is begun and trained for a moment in a folder that
is removed again, and models are scored with few images; neither runs/ nor MLflow sees anything of it.

  seconds    the most that each kind of phase is trained, all tasks together; more is more exact. What a phase
             does before its first step, such as drawing a pool of old images, is done whole
  devices    numbers of processes that the time is told for; with trainer=ddp trainer.devices=N it is measured
             with N, and what processes tell each other is in it
  out        also writes everything as JSON

Examples
  lit-gen plan experiment=quickstart
  lit-gen plan paper=multiband/mnist_ci5 data.root=~/data seconds=30 out=plan.json
  lit-gen plan experiment=vae_mnist data.root=~/data devices=1,4,8
"""

_OWN = {"seconds": Annotated[float, Gt(0)], "devices": list[Positive], "out": Path}


class Line(NamedTuple):
    """What one phase, or the scores after a task, will be: seconds apart by what more processes share."""

    task: str
    phase: str
    epochs: int
    steps: int
    images: int
    points: int
    alone: float  # seconds that every process takes, however many there are
    shared: float
    may_end_early: bool = False

    def seconds(self, ratio: float = 1.0) -> float:
        """With so many times the processes of the trial."""
        return self.alone + self.shared / ratio


def run(words: list[str]) -> int:
    imported = time.process_time()
    own, others = own_words(words, _OWN)
    if refused := [word for word in others if key_of(word) == "resume"]:
        raise InputError(f"{refused[0]}: lit-gen plan looks at a whole run from its beginning; leave it out")
    if (out := own.get("out")) is not None:
        writable_file("out", out)
    with told_to_stop(), ExitStack() as at_the_end:
        place = at_the_end.enter_context(tempfile.TemporaryDirectory(prefix="lit-gen-plan-"))
        plan = _plan(others, own.get("seconds", 5.0), Path(place), imported, at_the_end)
    if rank() == 0:
        print(_as_text(plan, own.get("devices") or sorted({1, 2, 4, plan["processes"]})))
        if out is not None:
            write_json(out, plan)
    return 0


def _plan(
    words: Sequence[str], seconds: float, place: Path, imported: float, at_the_end: ExitStack
) -> dict[str, Any]:
    """All that is known after a trial in a folder; plain."""
    start = time.perf_counter()
    composed = compose("train", words)
    config = composed.config
    if config["trainer"].get("fast_dev_run"):
        raise InputError("trainer.fast_dev_run: such a run takes a moment; leave it out to plan a whole one")
    settle(config["trainer"])
    config["logger"], config["trainer"] = None, config["trainer"] | {"max_time": None}
    folder = new_folder(str(place / "run"), composed.choices, config["seed"])
    at_the_end.callback(folder.lock.release)
    folder.make()
    log_to(None, logging.ERROR)  # what would be said of scores is about a model that learned nothing
    seed_everything(config["seed"], workers=True, verbose=False)
    parts = assemble(composed, folder, None, {})
    trainer, module, data, _, saver = parts
    phases = [phase.name for task in data.stages for phase in module.phases(task)]
    scored = {0, 1, len(data.stages) - 1}
    shares = {name: seconds / phases.count(name) for name in phases}
    trial = Trial(shares, seconds / len(scored), Points())
    trainer.loggers = [*trainer.loggers, trial.points]
    trainer.callbacks.insert(trainer.callbacks.index(saver), trial)
    saver.every_seconds = float("inf")
    beginning = imported + time.perf_counter() - start
    trial.begin(trainer)

    def after_task(task: Task) -> None:
        if data.stages.index(task) in scored:
            trial.score(trainer, module, task, lambda: saver.save(trainer, task))

    try:
        with old_objects_left_alone():
            fit_stages(trainer, module, data, None, after_task, config["max_phase_epochs"])
    except Diverged as error:
        raise InputError(f"the trial ended where the run would, too: {error}") from error
    lines = [Line("", "beginning", 0, 0, 0, 0, beginning, 0.0), *_lines(parts, trial, config)]
    checkpoint = max(file.stat().st_size for file in (folder.path / "checkpoints").iterdir())
    pictures = [trial.scores[stage].num_bytes for stage in sorted(scored & trial.scores.keys())]
    device, is_cuda = trainer.strategy.root_device, trainer.strategy.root_device.type == "cuda"
    return {
        "lines": [line._asdict() | {"seconds": line.seconds()} for line in lines],
        "seconds": sum(line.seconds() for line in lines),
        "processes": trainer.world_size,
        "steps": sum(line.steps for line in lines),
        "images": sum(line.images for line in lines),
        "points": sum(line.points for line in lines),
        "memory_bytes": peak_memory(),
        "device_memory_bytes": torch.cuda.max_memory_allocated(device) if is_cuda else None,
        "checkpoint_bytes": checkpoint,
        "disk_bytes": checkpoint * (len(data.stages) + 1) + int(np.mean(pictures) * len(data.stages)),
        "trial_seconds": time.perf_counter() - start,
        "device": device_name(device),
        "cpu_threads": torch.get_num_threads(),
        "versions": package_versions(),
        "words": list(words),
    }


def _lines(parts: Parts, trial: Trial, config: Mapping[str, Any]) -> list[Line]:
    lines, epochs, batches = [], 0, 0
    trainer, stages = parts.trainer, parts.data.stages
    scores = [trial.scores[stage] for stage in sorted(trial.scores)]
    kept = max(config["checkpoint"]["min_seconds"], 1e-9)

    def at(stage: int, values: Sequence[float]) -> float:
        """Between the stages that were scored."""
        return float(np.interp(stage, sorted(trial.scores), values))

    for number, phase in enumerate(trial.phases):
        length = Length.of(phase, trainer.accumulate_grad_batches)
        validations = _validations(phase, length, epochs, batches, trial.validates_every)
        points = phase.per_validation * validations
        points += phase.per_window * _windows(length, batches, trainer.log_every_n_steps)
        alone, shared = _seconds(phase, length)
        shared += validations * float(np.mean(phase.validated or [0.0]))
        looks_at = {name: every for name, every in trial.looks.items() if every and scores}
        for name, every in looks_at.items():
            looks = (epochs + length.epochs) // every - epochs // every
            is_judge = name.startswith("judges.")
            time_each, values = (
                at(phase.stage, [each.parts.get(name, (0.0, 0))[part] for each in scores]) for part in (0, 1)
            )
            if is_judge:
                looks *= validations > 0
                points += looks * round(values)
                time_each *= _share_of_validation(parts.data, trial.most[name])
            shared += looks * time_each
        if scores and length.epochs:
            saves = (alone + shared) // max(kept, (alone + shared) / length.epochs) - 1
            alone += max(0.0, saves) * scores[0].checkpoint_seconds
        # A step of a process is as long, however many there are, where each has batches of its own.
        if phase.course.steps and not config["data"].get("global_batch_size"):
            alone, shared = alone + shared, 0.0
        place = (phase.task, phase.name) if len(stages) > 1 else ("", phase.name)
        counts = (length.epochs, length.steps if phase.trains else 0, length.images, points)
        lines.append(Line(*place, *counts, alone, shared, phase.may_end_early))
        if phase.trains:
            epochs, batches = epochs + length.epochs, batches + length.batches
        is_last = number + 1 == len(trial.phases) or trial.phases[number + 1].stage != phase.stage
        if is_last and scores:
            seconds, points = (
                at(phase.stage, [getattr(each, what) for each in scores]) for what in ("seconds", "points")
            )
            saved = at(phase.stage, [each.checkpoint_seconds for each in scores])
            lines.append(Line(place[0], "scores", 0, 0, 0, round(points), saved, seconds))
    return lines


class Length(NamedTuple):
    """How long a phase is as a whole."""

    epochs: int
    batches: int
    steps: int
    images: int
    per_epoch: int  # batches

    @classmethod
    def of(cls, phase: TriedPhase, accumulated: int) -> Length:
        """The first of its limits that is reached, at the end of a step.

        Raises:
            InputError: it has none.
        """
        many, course = phase.batches, phase.course
        if not phase.trains or many == 0:
            return cls(int(not phase.trains), many, 0, sum(phase.images), many)
        ends = [min(number * accumulated, many) for number in range(1, phase.steps + 1)]  # of steps
        reached = np.cumsum(phase.images)[np.array(ends) - 1]
        limits = []
        if course.epochs is not None:
            limits.append(course.epochs * many)
        if course.steps is not None:
            whole, rest = divmod(max(0, course.steps - 1), phase.steps)
            limits.append(whole * many + ends[rest])
        if course.images is not None:
            whole, rest = divmod(max(0, course.images - 1), int(reached[-1]))
            limits.append(whole * many + ends[int(np.searchsorted(reached, rest + 1))])
        if not limits:
            raise InputError(
                f"phase {phase.name} of task {phase.task} has no end; give trainer.max_epochs= or "
                "max_phase_epochs="
            )
        whole, rest = divmod(min(limits), many)
        steps = whole * phase.steps + -(-rest // accumulated)
        images = whole * sum(phase.images) + sum(phase.images[:rest])
        return cls(whole + (rest > 0), min(limits), steps, images, many)

    def parts(self) -> list[int]:
        """Batches of each epoch."""
        whole, rest = divmod(self.batches, self.per_epoch) if self.per_epoch else (0, 0)
        return [self.per_epoch] * whole + ([rest] if rest else [])


def _seconds(phase: TriedPhase, length: Length) -> tuple[float, float]:
    """Of the beginning of a phase, and of its epochs without validation."""
    seen = phase.epochs[1:] or phase.epochs
    if not seen:
        return phase.before, 0.0
    inside, several = sum(each.inside for each in seen), sum(each.batches - 1 for each in seen)
    if len(phase.epochs) == 1 and len(phase.marks) > 3:
        # The first batches of a phase are slow; those after an eighth count.
        number, moment = phase.marks[-4]
        inside, several = seen[0].head + seen[0].inside - moment, seen[0].batches - number
    per_batch = inside / several if several > 0 else seen[-1].head
    head = float(np.mean([each.head for each in seen])) if len(phase.epochs) > 1 else per_batch
    tail = float(np.mean([each.tail for each in seen]))
    first = max(0.0, phase.epochs[0].head - head)
    later = max(0, length.batches - length.epochs) * per_batch
    return phase.before + first, length.epochs * (head + tail) + later


def _windows(length: Length, before: int, every: int) -> int:
    """How often means are logged: every so many batches of the run, and at the end of an epoch."""
    count = 0
    for batches in length.parts():
        after = before + batches
        count += after // every - before // every + (after % every != 0)
        before = after
    return count


def _validations(phase: TriedPhase, length: Length, epochs: int, batches: int, every: int | None) -> int:
    often = phase.validation_every
    if not often or not phase.validated:
        return 0
    if every is None:
        return (batches + length.batches) // often - batches // often
    parts = enumerate(length.parts(), epochs + 1)
    return sum(max(1, part // often) for number, part in parts if number % every == 0)


def _share_of_validation(data: StreamData, most: Mapping[str, int]) -> float:
    """Images that a judge looks at in a validation, for each in a test."""
    val, test = (
        sum(min(len(data.dataset(split, [task.index])), most.get(split, sys.maxsize)) for task in data.tasks)
        for split in ("val", "test")
    )
    return val / test if test else 0.0


def _as_text(plan: Mapping[str, Any], devices: Sequence[int]) -> str:
    lines = [Line(**{name: each[name] for name in Line._fields}) for each in plan["lines"]]
    table = [
        {
            "task": line.task,
            "phase": line.phase,
            "epochs": line.epochs or "",
            "steps": f"{line.steps:,}" if line.steps else "",
            "images": f"{line.images:,}" if line.images else "",
            "time": ("at most " if line.may_end_early else "") + duration(line.seconds()),
        }
        for line in lines
    ]
    if not any(line.task for line in lines):
        table = [{name: cell for name, cell in row.items() if name != "task"} for row in table]
    world, own = plan["processes"], plan["device_memory_bytes"]
    times = ", ".join(
        f"{count}: {duration(sum(line.seconds(count / world) for line in lines))}" for count in devices
    )
    said = (
        "counted as if processes did not wait for each other"
        if world == 1
        else f"measured with {world}, what they tell each other included"
    )
    main = plan["memory_bytes"]
    memory = "not told by this system" if main is None else f"{_size(main)} of each process"
    if own is not None:
        memory += f", {_size(own)} of each GPU"
    return "\n".join(
        [
            as_text(table),
            "",
            f"in all    {plan['steps']:,} steps, {plan['images']:,} images; replayed ones come on top",
            f"time      {duration(plan['seconds'])}, on {world} x {plan['device']}",
            f"devices   {times} ({said}; as many are needed)",
            f"memory    {memory}",
            f"disk      {_size(plan['disk_bytes'])}, with checkpoints of {_size(plan['checkpoint_bytes'])}",
            f"tracker   {plan['points']:,} values",
            f"trial     {duration(plan['trial_seconds'])}; what else this machine does is in the times",
        ]
    )


def duration(seconds: float) -> str:
    """ "3.2 s", "4 min 05 s", "7 h 30 min", "3 d 04 h"."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min {rest:02d} s"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours:02d} h" if days else f"{hours} h {minutes:02d} min"


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:,.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"
