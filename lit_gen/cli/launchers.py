"""Who has started the processes of a command: torchrun, srun, a person, or Lightning for us; and what is said
where they do not come, do not fit, or are lost. Variables left of a launcher that is not here mean nothing.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch.distributed
from lightning.fabric.strategies import Strategy
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lit_gen.core.types import InputError

_TORCHRUN, _SRUN, _HAND = "torchrun", "srun", "LOCAL_RANK"
_STEP = ("SLURM_STEP_ID", "SLURM_STEPID")  # srun's own; a batch script has the other variables, too
_SECONDS = "LIT_GEN_WAIT_SECONDS"

log = logging.getLogger(__name__)


def started_by() -> str | None:
    """Who has started this process beside others; None: nobody, whatever the other variables say."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return _TORCHRUN
    if "SLURM_NTASKS" in os.environ and any(name in os.environ for name in _STEP):
        return _SRUN
    # As Lightning's own: it sets both. Without a port the others could not be met.
    return _HAND if "LOCAL_RANK" in os.environ and "MASTER_PORT" in os.environ else None


def rank() -> int:
    """0 in the first of the processes that work together, and in one that works alone."""
    names = {_TORCHRUN: ("RANK",), _SRUN: ("SLURM_PROCID",), _HAND: ("LOCAL_RANK", "NODE_RANK")}
    return max(_number(name) for name in names.get(started_by(), ("NODE_RANK",)))


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else 0


def settle(trainer: Mapping[str, Any]) -> None:
    """Makes the environment say what the Trainer is to be: before it, or a Fabric, is built.

    Args:
        trainer: the node of a configuration.

    Raises:
        InputError: a launcher has started another number of processes, or the port is taken where they meet.
    """
    launcher, devices, nodes = started_by(), trainer.get("devices"), trainer.get("num_nodes", 1)
    wanted = len(devices) if isinstance(devices, list) else devices
    if wanted in ("auto", -1, "-1", None):
        wanted = 1 if trainer.get("accelerator") == "cpu" else max(1, torch.cuda.device_count())
    total = wanted * nodes if isinstance(wanted, int) and isinstance(nodes, int) else None
    name = {_TORCHRUN: "WORLD_SIZE", _SRUN: "SLURM_NTASKS"}.get(launcher, "")
    if total is not None and os.environ.get(name, "").isdigit() and _number(name) != total:
        raise InputError(
            f"trainer.devices={devices}, trainer.num_nodes={nodes}: {launcher} has started {_number(name)} "
            f"process(es) ({name}), one for each device; make devices times num_nodes that number, or let "
            f"{launcher} start {total}"
        )
    if launcher == _SRUN and _number(name) > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise InputError(
            f"{name}={_number(name)}: srun does not say how many of them are on each machine; start them "
            "with srun --ntasks-per-node=<trainer.devices>"
        )
    if launcher in (None, _HAND):
        left = {"RANK", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"}
        left |= {"LOCAL_RANK"} if launcher is None or total == 1 else set()
        left |= {"NODE_RANK", "GROUP_RANK"} if nodes == 1 else set()
        if found := [f"{key}={os.environ.pop(key)}" for key in sorted(left & set(os.environ))]:
            log.info("of no launcher that is here, and left aside: %s", ", ".join(found))
    if total != 1 and launcher != _TORCHRUN and rank() == 0:
        _refuse_taken_port(launcher)
    rank_zero_only.rank = rank()  # Lightning's, which its Trainers of one process leave as it was imported


def _refuse_taken_port(launcher: str | None) -> None:
    """Where nobody has named one, Lightning finds a free one; under srun all must know it beforehand."""
    if launcher != _SRUN and "MASTER_PORT" not in os.environ:
        return
    port = SLURMEnvironment(auto_requeue=False).main_port if launcher == _SRUN else _number("MASTER_PORT")
    try:
        with socket.socket() as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind(("", port))
    except (OSError, OverflowError) as error:
        raise InputError(
            f"MASTER_PORT={port}: the processes cannot meet there ({error}); set another one"
            + (" for all of them" if launcher else ", or unset it and a free one is taken")
        ) from error


def run_id() -> str:
    """Random; the same on all processes that a launcher has started together.

    Raises:
        InputError: there is nothing by which they could agree.
    """
    launcher = started_by()
    world = {_TORCHRUN: _number("WORLD_SIZE"), _SRUN: _number("SLURM_NTASKS")}.get(launcher, 1)
    if world <= 1 and rank() == 0:
        return secrets.token_hex(3)
    if launcher == _SRUN:  # no two steps have the same
        names = ("SLURM_JOB_ID", _STEP[0], _STEP[1], "SLURM_RESTART_COUNT")
        step = " ".join(os.environ.get(name, "") for name in names)
        return hashlib.sha256(step.encode()).hexdigest()[:6]
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        raise InputError("output_dir=: must be given here, since the processes cannot agree on a name")
    store = torch.distributed.TCPStore(os.environ["MASTER_ADDR"], _number("MASTER_PORT"), is_master=False)
    key = f"lit_gen/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    return store.compare_set(key, "", secrets.token_hex(3)).decode()


@contextmanager
def patience(strategy: Strategy, leave: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Inside, a process that waits for others which somebody else was to start says so after 60 s (or
    LIT_GEN_WAIT_SECONDS). The first one, which comes last, then ends the command.

    Args:
        leave: what the first one does before it ends.
    """
    launcher, world = started_by(), getattr(strategy, "num_processes", 1) * getattr(strategy, "num_nodes", 1)
    seconds = float(os.environ.get(_SECONDS, 60))
    over = threading.Event()
    name = {_TORCHRUN: "WORLD_SIZE", _SRUN: "SLURM_NTASKS", _HAND: "LOCAL_RANK"}.get(launcher)
    reason = f"{name}={os.environ.get(name)}" if name else "trainer.num_nodes"

    def watch() -> None:
        began = time.monotonic()
        while not over.wait(0.2) and not torch.distributed.is_initialized():
            if time.monotonic() - began > seconds:
                break
        else:
            return
        who = f"the other {world - 1} of {world} processes" if rank() == 0 else "process 0"
        log.error(
            "waited %g s for %s: %s says that somebody else starts them. Start them, or unset %s; %s= waits"
            " longer", seconds, who, reason, reason.partition("=")[0], _SECONDS
        )  # fmt: skip
        if rank() == 0:
            leave()
            os._exit(2)

    if world > 1 and (launcher is not None or getattr(strategy, "num_nodes", 1) > 1):
        threading.Thread(target=watch, name="patience", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def lost_processes(strategy: Strategy) -> list[str]:
    """Rank, host, process number and end of those that Lightning started from this process and that have
    ended, or end within a second; [] where all work, or another launcher started them and says so itself.

    A process that dies is seen by the others as an exchange that fails.
    """
    started, gone = getattr(strategy.launcher, "procs", []), {}
    until = time.monotonic() + 1.0
    while started and not gone and time.monotonic() < until:
        gone = {n: code for n, each in enumerate(started, 1) if (code := each.poll()) not in (None, 0)}
        time.sleep(0.05)
    ends = {n: signal.Signals(-code).name if code < 0 else f"exit code {code}" for n, code in gone.items()}
    own, host = strategy.global_rank, socket.gethostname()
    return [
        f"process {own + n} (on {host}, number {started[n - 1].pid}) was ended by {end}, and with it the run"
        for n, end in ends.items()
    ]
