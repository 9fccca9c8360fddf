"""The rank is the Trainer's, whatever launchers have left in the environment; what does not fit is said."""

from __future__ import annotations

import os
import socket

import pytest
import torch.distributed
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from processes import start
from test_resumed import TINY

from lit_gen.__main__ import main
from lit_gen.cli.launchers import rank, run_id, settle
from lit_gen.core.types import InputError

NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_PORT", "MASTER_ADDR")
HAND = {"LOCAL_RANK": "1", "MASTER_PORT": "29987"}
SRUN = {"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "WORLD_SIZE": "2"}


@pytest.fixture
def variables(monkeypatch):
    """Sets these alone of all that launchers set."""
    monkeypatch.setattr(rank_zero_only, "rank", 1)

    def only(**values: str) -> None:
        for name in [n for n in os.environ if n in NAMES or n.startswith(("SLURM_", "TORCHELASTIC_"))]:
            monkeypatch.delenv(name)
        for name in (*NAMES, "SLURM_NTASKS", "SLURM_PROCID"):  # whatever is set meanwhile goes with the test
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return only


@pytest.mark.parametrize(
    "left",
    [
        *({name: "1"} for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK")),
        HAND | {"RANK": "1", "WORLD_SIZE": "2"},
        {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"},
    ],
    ids=" ".join,
)
def test_a_trainer_of_one_process_is_the_first(left, variables):
    variables(**left)
    settle({"devices": 1, "num_nodes": 1})
    assert rank() == rank_zero_only.rank == 0
    assert not {"RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "SLURM_NTASKS"} & set(os.environ)


@pytest.mark.parametrize("launcher", [HAND, SRUN | {"SLURM_NTASKS_PER_NODE": "2"}, TORCHRUN], ids=" ".join)
def test_of_two_that_work_together_one_is_the_second(launcher, variables):
    variables(**launcher)
    settle({"devices": [0, 1], "num_nodes": 1})
    assert rank() == rank_zero_only.rank == 1


@pytest.mark.parametrize(
    ("launcher", "devices", "said"),
    [
        (SRUN, 1, r"trainer.devices=1, .*srun has started 2"),
        (TORCHRUN, 1, r"torchrun has started 2"),
        (SRUN, 2, r"SLURM_NTASKS=2: .*--ntasks-per-node"),
    ],
)
def test_processes_that_do_not_work_together_are_refused(launcher, devices, said, variables):
    variables(**launcher)
    with pytest.raises(InputError, match=said):
        settle({"devices": devices, "num_nodes": 1})


def test_a_port_that_is_taken_is_refused(variables):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        variables(MASTER_PORT=str(taken.getsockname()[1]))
        with pytest.raises(InputError, match=r"MASTER_PORT=\d+: .*a free one is taken"):
            settle({"devices": 2, "num_nodes": 1})
        settle({"devices": 1, "num_nodes": 1})


def test_names_of_runs_are_random_unless_processes_must_agree(variables):
    variables(SLURM_JOB_ID="77")
    assert run_id() != run_id()
    found = []
    for step in ("0", "1"):
        for process in ("0", "1"):
            variables(**SRUN | {"SLURM_STEP_ID": step, "SLURM_PROCID": process})
            found.append(run_id())
    assert found[0] == found[1] != found[2] == found[3]
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    agent = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    agent |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    variables(**TORCHRUN | agent)
    first = run_id()
    assert first == run_id()
    variables(**TORCHRUN | agent | {"TORCHELASTIC_RESTART_COUNT": "1"})
    assert first != run_id()
    variables(**TORCHRUN)
    with pytest.raises(InputError, match="output_dir="):
        run_id()


def test_what_was_asked_for_is_written_whatever_the_environment_says(variables, tmp_path):
    variables(**HAND | {"RANK": "1", "SLURM_PROCID": "1"})
    folder, out = tmp_path / "run", tmp_path / "r.json"
    assert main(["train", *TINY, "trainer.max_epochs=1", f"output_dir={folder}"]) == 0
    for name in ("config.yaml", "log.txt", "metrics.csv", "split", "summary.json"):
        assert (folder / name).exists(), name
    variables(**HAND)
    rank_zero_only.rank = 1
    assert main(["evaluate", f"ckpt={folder}", "judges=terms", f"out={out}"]) == 0 and out.exists()


@pytest.mark.slow
def test_who_waits_says_for_whom_and_why_and_leaves_nothing(variables, tmp_path):
    variables()
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", f"output_dir={tmp_path}/run"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    waits = start("train", *TINY, *two, LOCAL_RANK="0", MASTER_PORT=port, LIT_GEN_WAIT_SECONDS="1")
    said = waits.ended(2)
    assert "waited 1 s for the other 1 of 2 processes: LOCAL_RANK=0 says" in said
    assert not (tmp_path / "run").exists()
