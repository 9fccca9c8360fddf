"""Whole runs of Multiband VAE: a resume in every phase, and several processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from multiband_toys import make_multiband
from toys import CopyingCheckpoints, make_data, make_trainer

from callbacks.task_switch import TaskSwitch, fit_stages


def run(folder, ckpt_path=None):
    """A run with everything in it: forgetting, clipping, two tasks after the first."""
    saver = CopyingCheckpoints(folder, every_seconds=0.0)
    trainer = make_trainer(saver, gradient_clip_val=4.0, gradient_clip_algorithm="value", limit_val_batches=1)
    model, data = make_multiband(similarity=0.5), make_data(num_tasks=3)

    def after_task(task):
        trainer.test(model, datamodule=data, verbose=False)
        saver.save(trainer, task)

    fit_stages(trainer, model, data, ckpt_path, after_task)
    return model, trainer


@pytest.mark.slow
def test_resuming_in_any_phase_gives_the_same_bits(tmp_path):
    whole, trainer = run(tmp_path / "whole")
    copies = sorted((tmp_path / "whole").glob("copy-*.ckpt"))
    places = set()
    for copy in copies:
        state = torch.load(copy, weights_only=True)
        switch = next(s for k, s in state["callbacks"].items() if k.startswith(TaskSwitch.__name__))
        places.add((switch["stage"], switch["phase"]))
        resumed, again = run(tmp_path / copy.stem, copy)
        assert again.current_epoch == trainer.current_epoch
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), f"{name} after {copy.name}"
        shutil.rmtree(tmp_path / copy.stem)
    trained = {(0, 0), (1, 0), (1, 1), (1, 3), (1, 4), (2, 0), (2, 1), (2, 3), (2, 4)}
    assert places >= trained, "every phase that trains was resumed"
    assert len(copies) == 2 + 2 * 6 + 3


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights_and_replay_different_images(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, __file__, str(tmp_path)], check=True, timeout=300, env=environment)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first["weights"].keys() == second["weights"].keys()
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name]), name
    for ours, theirs in zip(first["noise"], second["noise"], strict=True):
        assert not torch.equal(ours, theirs)
    # The prior counts every image of every shard, once.
    counted = first["weights"]["prior.num_counted"].flatten().tolist()
    assert counted == [float(task.num_images) for task in make_data(num_tasks=3).tasks]


def _train(folder: Path) -> None:
    """What each of two processes runs; Lightning starts the second one."""
    noise = []
    model = make_multiband(similarity=0.5, batch_size=8)
    draw = model.prior.draw_shared

    def noted(count: int, num_tasks: int) -> tuple[torch.Tensor, torch.Tensor]:
        code, task = draw(count, num_tasks)
        noise.append(code[:, :3])
        return code, task

    model.prior.draw_shared = noted
    trainer = make_trainer(
        devices=2,
        strategy="ddp",
        gradient_clip_val=4.0,
        gradient_clip_algorithm="value",
        limit_val_batches=0,
    )
    fit_stages(trainer, model, make_data(num_tasks=3, batch_size=8))
    torch.save({"weights": model.state_dict(), "noise": noise}, folder / f"{trainer.global_rank}.pt")
    trainer.strategy.barrier()


if __name__ == "__main__":
    _train(Path(sys.argv[1]))
