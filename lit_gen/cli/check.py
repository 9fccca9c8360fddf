"""lit-gen check: whether what a long run needs of this machine is there, found out by short ones."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lit_gen.cli.config import compose
from lit_gen.cli.ground import EPOCHS, LIMIT, Failed, Ground, Skipped, kill
from lit_gen.cli.launchers import started_by
from lit_gen.cli.run_folder import METRICS, RunFolder
from lit_gen.cli.stop import told_to_stop
from lit_gen.cli.words import key_of, own_words
from lit_gen.core.checkpoint import LAST, read
from lit_gen.core.files import writable_file, write_json
from lit_gen.core.types import InputError
from lit_gen.evaluation.tables import as_text
from lit_gen.tracking.connection import connect, find_address, import_quietly, sqlite_file
from lit_gen.tracking.masking import without_secrets
from lit_gen.tracking.mlflow import TrackingLogger
from lit_gen.tracking.provenance import git_commit, package_versions

HELP = """lit-gen check [trainer=NAME] [trainer.KEY=VALUE ...] [logger=NAME] [logger.KEY=VALUE ...] [out=FILE]

Whether this machine does what a long run needs of it, by minutes of short runs before a job of a week.

  processes     what they sum up, gather and hand on is right
  training      a small run on all of them comes to its end
  kill, resume  a run that is killed and goes on ends with the same weights, to the bit
  same scores   one process and all of them give the same FID
  bf16-mixed    trains without numbers that are none; on a GPU
  compile       compile=default trains; on a GPU
  data path     images come faster than they are trained on
  disk          room and speed where runs/ is, and a checkpoint that can be read back
  tracker       the store of MLflow takes a run, which is deleted again

  trainer    as in training: trainer=ddp trainer.devices=4
  logger     as in training; without it MLflow at MLFLOW_TRACKING_URI or beside runs/
  out        also writes all of it as JSON, with versions and devices, for a report of a bug

Ends with 1 where something failed. Run it once, in the folder and the environment of the runs to come.

Examples
  lit-gen check
  lit-gen check trainer=ddp trainer.devices=4 out=check.json
  lit-gen check trainer=ddp trainer.accelerator=cpu trainer.devices=2 logger=csv
"""

_FEW_EPOCHS = 3
_EXPERIMENT = "lit-gen check"
_FREE, _WRITTEN = 1e9, 64 * 2**20  # bytes


class Verdict(NamedTuple):
    """One line of the table."""

    check: str
    verdict: str  # passed, failed, skipped
    found: str
    to_do: str = ""


def run(words: list[str]) -> int:
    own, others = own_words(words, {"out": Path}, others=("trainer", "logger"))
    if (out := own.get("out")) is not None:
        writable_file("out", out)
    composed = compose("train", others)
    if started_by() in ("torchrun", "srun") or composed.choices["trainer"] == "slurm":
        raise InputError(
            "lit-gen check starts its processes itself: run it once on a machine of the job, without torchrun"
            " and srun, and with trainer=ddp trainer.devices=<processes on it>"
        )
    about_trainer = [word for word in others if key_of(word).partition(".")[0] == "trainer"]
    runs, verdicts = Path("runs"), []
    place = runs if runs.is_dir() and os.access(runs, os.W_OK) else Path.cwd()
    with told_to_stop(), tempfile.TemporaryDirectory(prefix=".check-", dir=place) as folder:
        ground = Ground(composed, about_trainer, Path(folder).absolute(), LIMIT)
        for name, check in CHECKS.items():
            verdicts.append(verdict := judged(name, check, ground))
            print(f"{verdict.verdict:<8} {name}", file=sys.stderr, flush=True)
    shown = Verdict._fields[:-1]
    print(as_text([{name: getattr(verdict, name) for name in shown} for verdict in verdicts]))
    failed = [verdict for verdict in verdicts if verdict.verdict == "failed"]
    for verdict in failed:
        print(f"\n{verdict.check}: {verdict.to_do}")
    if out is not None:
        gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        about = {"python": platform.python_version(), "system": platform.platform(), "gpus": gpus}
        about |= {"processors": os.cpu_count(), "cuda": torch.version.cuda, "versions": package_versions()}
        about |= {"git_commit": git_commit(), "words": others}
        write_json(out, without_secrets(about | {"checks": [verdict._asdict() for verdict in verdicts]}))
    return 1 if failed else 0


def judged(name: str, check: Callable[[Ground], str], ground: Ground) -> Verdict:
    """What a check found, whatever it raises; without secrets."""
    try:
        found = ("passed", check(ground))
    except Skipped as reason:
        found = ("skipped", str(reason))
    except Failed as failure:
        found = ("failed", *failure.args)
    except Exception as error:  # a report is wanted of any
        found = ("failed", f"{type(error).__name__}: {error}", "mend what it says, and check again")
    return Verdict(name, *(" ".join(without_secrets(text).split()) for text in found))


def processes(ground: Ground) -> str:
    found = ground.processes
    if found["wrong"]:
        raise Failed(
            f"wrong numbers of {', '.join(found['wrong'])} over {found['world']} processes",
            "numbers are spoilt on their way: try NCCL_P2P_DISABLE=1, NCCL_IB_DISABLE=1, other devices",
        )
    if found["world"] == 1:
        return f"1 process, {found['device']}; trainer=ddp trainer.devices=N looks at N"
    rate = f"{found['megabytes_per_second']:,.0f} MB/s summed up"
    return f"{found['world']} processes, {found['device']}, {rate}"


def training(ground: Ground) -> str:
    rate = _rate(ground.whole)
    if not (loss := _last_loss(ground.whole)) < math.inf:
        raise Failed(f"the loss is {loss}", "run lit-gen train experiment=quickstart, and look at its curves")
    return f"{EPOCHS} epochs of digits, {rate:,.0f} images/s, loss {loss:.4g}"


def kill_and_resume(ground: Ground) -> str:
    whole, folder = ground.whole, ground.place / "killed"
    words = (*ground.run_words, f"trainer.max_epochs={EPOCHS}", f"output_dir={folder}")
    process, last = ground.start("lit_gen", "train", *words), folder / "checkpoints" / LAST
    try:
        while not last.exists() and process.poll() is None and time.monotonic() < ground.end:
            time.sleep(0.01)
    finally:
        kill(process)
    if RunFolder(folder).is_finished or not last.exists():
        raise Failed(
            "the run had ended before it was killed, or had no checkpoint yet",
            "look at `training` first; else check again when the machine is less busy",
        )
    epochs = read(last).state["epoch"] + 1
    ground.ended(ground.start("lit_gen", "train", f"resume={folder}"), "the killed run did not go on")
    differing = _differing(read(whole.path).state, read(folder).state)
    if differing:
        raise Failed(
            f"{len(differing)} tensors differ after the resume, such as {differing[0]}",
            "a resumed run is as good, but not the same; set trainer.deterministic=true, and give every run "
            "the same kind of device",
        )
    how = " with trainer.deterministic=true" if ground.is_gpu else ""
    return f"killed after epoch {epochs} of {EPOCHS}, then the same weights to the bit{how}"


def same_scores(ground: Ground) -> str:
    if (world := ground.processes["world"]) == 1:
        raise Skipped("there is one process")
    # trainer= comes first: it replaces what the trainer was.
    alone = [word for word in ground.words if key_of(word) in ("trainer.accelerator", "trainer.precision")]
    fid = {}
    for count, words in ((1, ["trainer=default", *alone]), (world, ground.words)):
        out = ground.place / f"scores-{count}.json"
        asked = ("evaluate", f"ckpt={ground.whole.path}", *words, f"out={out}")
        ground.ended(ground.start("lit_gen", *asked), f"{count} processes gave no scores")
        rows = json.loads(out.read_text(encoding="utf-8"))
        fid[count] = next(row["value"] for row in rows if row["metric"] == "fid")
    if not math.isclose(*fid.values(), rel_tol=1e-5):
        raise Failed(
            f"FID is {fid[1]:.8g} with one process, {fid[world]:.8g} with {world}",
            "compare scores of the same number of processes only, and please report this with out=check.json",
        )
    return f"FID {fid[1]:.6g} with 1 and with {world}, {abs(fid[1] - fid[world]):.1g} apart"


def bf16(ground: Ground) -> str:
    return _trains(ground, "bf16", "trainer.precision=bf16-mixed")


def compiled(ground: Ground) -> str:
    return _trains(ground, "compiled", "compile=default")


def data_path(ground: Ground) -> str:
    rate = _rate(ground.whole)
    data = ground.composed.build("data")
    data.prepare_data()
    data.setup("fit")
    device = torch.device("cuda" if ground.is_gpu else "cpu")
    for _ in range(2):  # the first time does not count
        start, images = time.perf_counter(), 0
        while time.perf_counter() - start < 0.5:
            images += sum(batch.to(device).ready().size for batch in data.train_dataloader())
        loads = images / (time.perf_counter() - start)
    found = f"{loads:,.0f} images/s alone, {rate:,.0f} images/s are trained on by all processes"
    if loads * ground.processes["world"] < rate:
        raise Failed(found, "training waits for its images: more processors, data.num_workers=4 or so")
    return found


def disk(ground: Ground) -> str:
    free, file, written = shutil.disk_usage(ground.place).free, ground.place / "bytes", os.urandom(_WRITTEN)
    start = time.perf_counter()
    with file.open("wb") as out:
        out.write(written)
        out.flush()
        os.fsync(out.fileno())
    rate = _WRITTEN / (time.perf_counter() - start) / 1e6
    is_same = hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(written).digest()
    file.unlink()
    found = f"{free / 1e9:,.1f} GB free, {rate:,.0f} MB/s"
    with suppress(Skipped):  # where no run came to its end, the rest is of interest all the same
        stored = read(ground.whole.path / "checkpoints" / LAST)
        found += f", a checkpoint of {len(stored.state['state_dict'])} tensors read and checked"
    if not is_same:
        raise Failed(
            "what was written reads otherwise", "have the disk looked at; give output_dir= on another"
        )
    if free < _FREE:
        raise Failed(
            found, "make room, or give output_dir= on another disk; lit-gen plan tells what a run needs"
        )
    return found


def tracker(ground: Ground) -> str:
    node = ground.composed.config["logger"]
    if not node or node["_target_"] != f"{TrackingLogger.__module__}.{TrackingLogger.__name__}":
        raise Skipped("the logger is not MLflow")
    try:
        import_quietly()
        address = find_address(node["tracking_uri"], Path("runs") / "check")
        if (file := sqlite_file(address)) is not None and not file.exists():
            # One is made for the first run; nothing is to be left here.
            address = f"sqlite:///{ground.place / 'mlflow.db'}"
        start, client = time.perf_counter(), connect(address)
        database = sqlite_file(address)
        files = database and database.resolve().parent / "mlartifacts" / "lit-gen_check"
        if (there := client.get_experiment_by_name(_EXPERIMENT)) is None:
            client.create_experiment(_EXPERIMENT, files and files.as_uri())
        elif there.lifecycle_stage != "active":
            client.restore_experiment(there.experiment_id)
        experiment = client.get_experiment_by_name(_EXPERIMENT).experiment_id
        try:
            note = client.create_run(experiment, run_name="lit-gen check").info.run_id
            client.log_metric(note, "check", 1.0)
            client.log_text(note, "check", "check.txt")
            if client.get_run(note).data.metrics != {"check": 1.0}:
                raise ValueError("a run that was written reads otherwise")
        finally:
            client.delete_experiment(experiment)  # and its runs
            if files:
                shutil.rmtree(files, ignore_errors=True)
        scheme = address.partition(":")[0]
        return f"{scheme}: a run written, read and deleted in {time.perf_counter() - start:.1f} s"
    except Exception as error:
        raise Failed(
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            "start the server, or give its address (logger.tracking_uri=, MLFLOW_TRACKING_URI) and user "
            "(MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD); runs go on without it, and lit-gen track "
            "tells it later; logger=csv needs none",
        ) from error


CHECKS: Mapping[str, Callable[[Ground], str]] = {
    "processes": processes,
    "training": training,
    "kill, resume": kill_and_resume,
    "same scores": same_scores,
    "bf16-mixed": bf16,
    "compile": compiled,
    "data path": data_path,
    "disk": disk,
    "tracker": tracker,
}
"""In order, and by the names that the table has for them."""


def _trains(ground: Ground, name: str, word: str) -> str:
    if not ground.is_gpu:
        raise Skipped("there is no GPU here")
    folder = ground.trained(name, _FEW_EPOCHS, word)
    if not (loss := _last_loss(folder)) < math.inf:
        raise Failed(f"the loss is {loss}", f"train without {word}")
    return f"{_FEW_EPOCHS} epochs, {_rate(folder):,.0f} images/s, loss {loss:.4g}"


def _rate(run: RunFolder) -> float:
    """Images that it trained on in a second."""
    phases = run.read_summary()["phases"]
    return sum(phase["images"] for phase in phases) / sum(phase["seconds"] for phase in phases)


def _last_loss(run: RunFolder) -> float:
    """NaN counts as infinite."""
    with (run.path / METRICS).open(encoding="utf-8") as file:
        losses = [float(row["value"]) for row in csv.DictReader(file) if row["metric"] == "train/loss"]
    return losses[-1] if losses and math.isfinite(losses[-1]) else math.inf


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of weights, and of what optimizers keep, that differ in any bit."""

    def tensors(value: Any, name: str) -> dict[str, torch.Tensor]:
        if isinstance(value, torch.Tensor):
            return {name: value}
        parts = enumerate(value) if isinstance(value, list) else getattr(value, "items", tuple)()
        return {key: part for n, each in parts for key, part in tensors(each, f"{name}.{n}").items()}

    kept = ("state_dict", "optimizer_states")
    a, b = ({key: t for name in kept for key, t in tensors(of[name], name).items()} for of in (one, other))
    return [name for name in a | b if name not in a or name not in b or not torch.equal(a[name], b[name])]
