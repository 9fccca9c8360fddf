"""Separate models: each task has its own, and the others do not see it."""

from __future__ import annotations

import functools

import torch
from multiband_toys import make_parts
from toys import SPEC, make_data, make_trainer

from lit_gen.continual.multiband_local import MultibandLocal
from lit_gen.continual.separate import SeparateModels
from lit_gen.core.images import to_float
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import Batch
from lit_gen.families.vae import VAE
from lit_gen.nets.mlp import DenseDecoder, DenseEncoder


def make_vae(condition, size):
    return VAE(
        SPEC,
        DenseEncoder(1, 8, 8, (16,), size),
        DenseDecoder(1, 8, 4, (16,), size),
        latent_size=4,
        condition=condition,
        condition_size=size,
        optimizer=functools.partial(torch.optim.Adam, lr=1e-2),
    )


def test_a_task_trains_its_own_model_only():
    model, data = SeparateModels(make_vae("none", 0), num_tasks=2), make_data(num_tasks=2)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    moved = []

    def after_task(task):
        moved.append({n.split(".")[1] for n, v in model.state_dict().items() if not torch.equal(v, start[n])})

    fit_stages(make_trainer(), model, data, after_task=after_task)
    assert moved == [{"0"}, {"0", "1"}]


def test_samples_come_from_the_tasks_model_in_the_order_asked():
    model = SeparateModels(make_vae("label", 4), num_tasks=2).eval()
    assert model.conditions == {"label", "task"}
    with torch.no_grad():
        for number, value in enumerate((-9.0, 9.0)):
            model.learners[number].decoder.net[-1].bias.fill_(value)
    task = torch.tensor([1, 0, 0, 1, 1])
    images = model.sample(5, label=torch.zeros(5, dtype=torch.long), task=task)
    assert (images.flatten(1).mean(1) > 0).tolist() == task.bool().tolist()


def test_evaluation_is_the_mean_over_images_of_their_own_models():
    model = SeparateModels(MultibandLocal(**make_parts(2)), num_tasks=2).eval()
    data = make_data(num_tasks=2)
    parts = [data.dataset("train", [t]).__getitems__(list(range(n))) for t, n in ((0, 3), (1, 9))]
    parts = [part._replace(image=to_float(part.image)) for part in parts]
    both = Batch(*(torch.cat(fields) for fields in zip(*parts, strict=True)))
    torch.manual_seed(0)
    expected = [model.learners[t].evaluate(part)["loss"] for t, part in enumerate(parts)]
    torch.manual_seed(0)
    torch.testing.assert_close(model.evaluate(both)["loss"], (3 * expected[0] + 9 * expected[1]) / 12)
