"""Whole runs of Multiband VAE: a resume in every phase."""

from __future__ import annotations

import shutil

import pytest
import torch
from multiband_toys import make_multiband
from toys import CopyingCheckpoints, make_data, make_trainer

from callbacks.task_switch import TaskSwitch
from lit_gen.core.stages import fit_stages


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
        place = (switch["stage"], switch["phase"])
        if place in places:  # one resume for each
            continue
        places.add(place)
        resumed, again = run(tmp_path / copy.stem, copy)
        assert again.current_epoch == trainer.current_epoch
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), f"{name} after {copy.name}"
        shutil.rmtree(tmp_path / copy.stem)
    trained = {(0, 0), (1, 0), (1, 1), (1, 3), (1, 4), (2, 0), (2, 1), (2, 3), (2, 4)}
    assert places >= trained, "every phase that trains was resumed"
    assert len(copies) == 2 + 2 * 6 + 3
