"""Whole runs of Multiband GAN: a resume in every phase."""

from __future__ import annotations

import shutil

import pytest
import torch
from multiband_gan_toys import make_multiband_gan
from toys import CopyingCheckpoints, make_data, make_trainer

from callbacks.task_switch import TaskSwitch
from lit_gen.core.stages import fit_stages

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
        place = (switch["stage"], switch["phase"])
        if place in places:  # one resume for each
            continue
        places.add(place)
        # Other first weights, so that nothing is right by chance.
        resumed, again = run(tmp_path / copy.stem, copy, seed=5, **options)
        assert again.current_epoch == trainer.current_epoch
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), f"{name} after {copy.name}"
        shutil.rmtree(tmp_path / copy.stem)
    later = (0, 2, 3) if options is INVERTING else (0, 1, 2)
    assert places >= {(0, 0), *((1, phase) for phase in later)}
    assert len(copies) == 2 + 5 + 2
