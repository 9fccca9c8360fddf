"""Where tasks lie in a latent space, and the picture of it."""

from __future__ import annotations

import torch
from multiband_toys import SHORT, make_multiband, make_parts
from PIL import Image
from toys import ToyGenerator, make_data, make_trainer

from callbacks.latent_map import LatentMap, principal_axes
from lit_gen.continual.multiband_local import MultibandLocal
from lit_gen.continual.replay import GenerativeReplay
from lit_gen.core.stages import fit_stages


def test_principal_axes_turn_points_of_a_plane_back_into_the_plane():
    """Points in a plane of a 7-dimensional space, of unlike extent, come back up to the signs of the axes."""
    torch.manual_seed(0)
    flat = torch.randn(200, 2, dtype=torch.float64) * torch.tensor([5.0, 1.0], dtype=torch.float64)
    flat = flat - flat.mean(0)
    flat = principal_axes(flat)  # uncorrelated from here on
    basis, _ = torch.linalg.qr(torch.randn(7, 2, dtype=torch.float64))
    found = principal_axes(flat @ basis.T + 3.0)
    torch.testing.assert_close(found.abs(), flat.abs())
    assert found[:, 0].var() > found[:, 1].var()


def test_every_task_gets_a_picture_and_training_is_not_disturbed(tmp_path):
    results = []
    for number, callbacks in enumerate([[], [LatentMap(num_points=20)]]):
        model, data = make_multiband(num_tasks=2, epochs=SHORT), make_data(num_tasks=2)
        trainer = make_trainer(*callbacks, default_root_dir=tmp_path)
        fit_stages(
            trainer, model, data, after_task=lambda t, m=model, d=data, r=trainer: r.test(m, d, verbose=False)
        )
        results.append(model.state_dict())
        files = sorted(file.name for file in (tmp_path / "latent_map").glob("*")) if number else []
    assert files == ["task0.png", "task1.png"]
    first, second = (Image.open(tmp_path / "latent_map" / name) for name in files)
    assert first.size == second.size and first.tobytes() != second.tobytes()
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


def test_a_wrapped_model_counts_and_one_without_a_common_space_gets_no_picture(tmp_path):
    learner = MultibandLocal(**make_parts(2), epochs=1)
    for folder, model in (("with", GenerativeReplay(learner, num_tasks=2)), ("without", ToyGenerator())):
        data = make_data(num_tasks=2)
        trainer = make_trainer(LatentMap(num_points=5), default_root_dir=tmp_path / folder)
        data.current_task = 1
        trainer.test(model, datamodule=data, verbose=False)
    assert [file.name for file in tmp_path.rglob("*.png")] == ["task1.png"]
    assert (tmp_path / "with" / "latent_map" / "task1.png").exists()
