"""Whole runs of Multiband VAE and Multiband GAN: a resume in every phase."""

from __future__ import annotations

import shutil

import pytest
import torch
from multiband_gan_toys import make_multiband_gan
from multiband_toys import make_multiband
from toys import CopyingCheckpoints, make_data, make_trainer

from callbacks.task_switch import TaskSwitch
from lit_gen.core.stages import fit_stages

# Forgetting and clipping; a critic that begins anew, told classes; inversion. With the places that were seen.
CASES = {
    "vae": {"similarity": 0.5},
    "gan_classes": {"new_critic_every_task": True, "condition": "label"},
    "gan_inversion": {"current_pairs": "inversion", "inversion_steps": 3, "max_images": 100},
}
TRAINED = {
    "vae": {(0, 0), (1, 0), (1, 1), (1, 3), (1, 4), (2, 0), (2, 1), (2, 3), (2, 4)},
    "gan_classes": {(0, 0), (1, 0), (1, 1), (1, 2)},
    "gan_inversion": {(0, 0), (1, 0), (1, 2), (1, 3)},
}
NUM_COPIES = {"vae": 2 + 2 * 6 + 3, "gan_classes": 2 + 5 + 2, "gan_inversion": 2 + 5 + 2}


def run(case, folder, ckpt_path=None, seed=11):
    saver = CopyingCheckpoints(folder, every_seconds=0.0)
    if case == "vae":
        model, data = make_multiband(**CASES[case]), make_data(num_tasks=3)
        clipped = {"gradient_clip_val": 4.0, "gradient_clip_algorithm": "value"}
    else:
        model, data, clipped = make_multiband_gan(2, seed=seed, **CASES[case]), make_data(num_tasks=2), {}
    trainer = make_trainer(saver, limit_val_batches=1, **clipped)

    def after_task(task):
        trainer.test(model, datamodule=data, verbose=False)
        saver.save(trainer, task)

    fit_stages(trainer, model, data, ckpt_path, after_task)
    return model, trainer


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_resuming_in_any_phase_gives_the_same_bits(tmp_path, case):
    whole, trainer = run(case, tmp_path / "whole")
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
        resumed, again = run(case, tmp_path / copy.stem, copy, seed=5)
        assert again.current_epoch == trainer.current_epoch
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), f"{name} after {copy.name}"
        shutil.rmtree(tmp_path / copy.stem)
    assert places >= TRAINED[case], "every phase that trains was resumed"
    assert len(copies) == NUM_COPIES[case]
