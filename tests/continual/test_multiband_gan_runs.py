"""Whole runs of Multiband GAN: a resume in every phase, and several processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from multiband_gan_toys import make_multiband_gan
from toys import CopyingCheckpoints, make_data, make_trainer

from callbacks.task_switch import TaskSwitch, fit_stages

INVERTING = {"current_pairs": "inversion", "inversion_steps": 3, "max_images": 100}


def run(folder, ckpt_path=None, seed=11, **options):
    saver = CopyingCheckpoints(folder, every_seconds=0.0)
    trainer = make_trainer(saver, limit_val_batches=1)
    model, data = make_multiband_gan(2, seed=seed, **options), make_data(num_tasks=2)

    def after_task(task):
        trainer.test(model, datamodule=data, verbose=False)
        saver.save(trainer, task)

    fit_stages(trainer, model, data, ckpt_path, after_task)
    return model, trainer


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"new_critic_every_task": True, "condition": "label"}, INVERTING])
def test_resuming_in_any_phase_gives_the_same_bits(tmp_path, options):
    whole, trainer = run(tmp_path / "whole", **options)
    copies = sorted((tmp_path / "whole").glob("copy-*.ckpt"))
    places = set()
    for copy in copies:
        state = torch.load(copy, weights_only=True)
        switch = next(s for k, s in state["callbacks"].items() if k.startswith(TaskSwitch.__name__))
        places.add((switch["stage"], switch["phase"]))
        # Other first weights, so that nothing is right by chance.
        resumed, again = run(tmp_path / copy.stem, copy, seed=5, **options)
        assert again.current_epoch == trainer.current_epoch
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), f"{name} after {copy.name}"
        shutil.rmtree(tmp_path / copy.stem)
    later = (0, 2, 3) if options is INVERTING else (0, 1, 2)
    assert places >= {(0, 0), *((1, phase) for phase in later)}
    assert len(copies) == 2 + 5 + 2


@pytest.mark.slow
def test_two_processes_agree_and_invert_every_image_once(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, __file__, str(tmp_path)], check=True, timeout=300, env=environment)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first["weights"].keys() == second["weights"].keys()
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name]), name
    number = make_data(num_tasks=2).tasks[1].num_images
    noise = first["weights"]["found.noise"]
    assert noise[:number].ne(0).all() and noise[number:].eq(0).all()
    # int(8 * 0.5) on each process, of fresh noise.
    for ours, theirs in zip(first["replayed"], second["replayed"], strict=True):
        assert len(ours) == len(theirs) == 4
        assert not torch.equal(ours, theirs)


def _train(folder: Path) -> None:
    """What each of two processes runs; Lightning starts the second one."""
    replayed = []
    model = make_multiband_gan(2, batch_size=8, **INVERTING)
    align_loss = model.align_loss

    def noted(pool, progress):
        replayed.append(pool.noise[pool.is_replayed])
        return align_loss(pool, progress)

    model.align_loss = noted
    trainer = make_trainer(devices=2, strategy="ddp_find_unused_parameters_true", limit_val_batches=0)
    data = make_data(num_tasks=2, batch_size=8)
    fit_stages(trainer, model, data)
    # As after every task of a run; from here on batch norm's averages of the last step are rank 0's.
    trainer.test(model, datamodule=data, verbose=False)
    torch.save({"weights": model.state_dict(), "replayed": replayed}, folder / f"{trainer.global_rank}.pt")
    trainer.strategy.barrier()


if __name__ == "__main__":
    _train(Path(sys.argv[1]))
