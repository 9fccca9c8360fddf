"""GANs: what each turn moves, clipping, conditions, the modes they find."""

from __future__ import annotations

import functools

import pytest
import torch
from toys import SPEC, CopyingCheckpoints, make_data, make_trainer

from benchmarks.modes import explore
from lit_gen.core.images import to_float
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import Task
from lit_gen.families.gan import GAN
from lit_gen.losses.adversarial import NonSaturating, Wasserstein, gradient_penalty
from lit_gen.nets.mlp import DenseDecoder, DenseEncoder

TASK = Task(0, "0", (10, 10, 10, 10), 0, 40)


def make_gan(condition_size=0, seed=0, **options) -> GAN:
    torch.manual_seed(seed)
    return GAN(
        **{"loss": Wasserstein(), **options},
        generator=DenseDecoder(1, 8, 5, (16,), condition_size),
        critic=DenseEncoder(1, 8, 1, (16,), condition_size),
        noise_size=5,
        condition="label" if condition_size else "none",
        condition_size=condition_size,
        spec=SPEC,
        optimizer=functools.partial(torch.optim.Adam, lr=1e-2),
    )


def batch():
    images = make_data(num_tasks=1).dataset("train", [0]).__getitems__(list(range(12)))
    return images._replace(image=to_float(images.image))


def test_each_turn_moves_its_own_network():
    model, data = make_gan(critic_steps=100, loss=NonSaturating()), make_data(num_tasks=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.phases(TASK)  # looking moves nothing
    trainer = make_trainer(max_epochs=1)
    fit_stages(trainer, model, data)
    steps = trainer.num_training_batches
    assert 1 < steps < 100
    # One step of the generator, at the first batch, and one of the critic at each. Adam's first step is lr.
    for name, value in model.state_dict().items():
        change = (value - before[name]).abs().max().item()
        if name.startswith("generator"):
            assert change == pytest.approx(1e-2, rel=1e-3), name
        else:
            assert change > 1.2e-2, name


def test_the_critics_loss_is_its_formula_with_the_penalty_between_the_same_images():
    model, images = make_gan(penalty_weight=10.0), batch()
    torch.manual_seed(3)
    terms = model.critic_loss(images, 0.0)
    torch.manual_seed(3)
    fake = model.generator(torch.randn(12, 5), None).detach()
    loss = (model.score(fake) - model.score(images.image)).mean()
    penalty = gradient_penalty(model.score, images.image, fake).mean()
    torch.testing.assert_close(terms["penalty"], penalty)
    torch.testing.assert_close(terms["loss"], loss + 10 * penalty)
    torch.testing.assert_close(terms["gap"], -loss.detach())
    terms["loss"].backward()
    assert all(parameter.grad is None for parameter in model.generator.parameters())


def test_weights_are_clipped_in_training_and_after_it():
    model = make_gan(clip=0.01)
    fit_stages(make_trainer(max_epochs=2), model, make_data(num_tasks=1))
    widest = max(parameter.abs().max().item() for parameter in model.critic.parameters())
    assert widest <= 0.01 + 1e-9
    assert max(parameter.abs().max().item() for parameter in model.generator.parameters()) > 0.05


def test_evaluation_tells_how_well_the_critic_tells_images_apart():
    model = make_gan(loss=NonSaturating())
    with torch.no_grad():
        for layer in model.critic.net:
            if hasattr(layer, "weight"):
                layer.weight.zero_()
                layer.bias.zero_()
    terms = model.evaluate(batch())
    assert terms["generator"].item() == pytest.approx(0.6931, abs=1e-4)
    assert terms["critic"].item() == pytest.approx(2 * 0.6931, abs=1e-4)
    assert terms["accuracy_real"] == 0 and terms["accuracy_fake"] == 1  # a score of 0 is no "real"


def test_a_conditional_model_draws_what_it_is_told():
    model = make_gan(condition_size=4).eval()
    labels = torch.tensor([0, 1, 2, 3])
    torch.manual_seed(1)
    images = model.sample(4, label=labels)
    torch.manual_seed(1)
    expected = model.generator(torch.randn(4, 5), torch.eye(4))
    torch.testing.assert_close(images, expected.detach())
    with pytest.raises(ValueError, match="got no label="):
        model.sample(4)


def test_a_condition_needs_its_size_which_labels_bring_with_them():
    with pytest.raises(ValueError, match="condition='task' with condition_size=0"):
        GAN(SPEC, condition="task")
    assert GAN(SPEC, condition="label").sample(4, label=torch.arange(4)).shape == (4, 1, 8, 8)


@pytest.mark.slow
def test_resuming_restores_both_optimizers_bit_for_bit(tmp_path):
    def run(folder, ckpt=None, seed=0):
        model = make_gan(critic_steps=2, penalty_weight=1.0, seed=seed)
        trainer = make_trainer(CopyingCheckpoints(folder, every_seconds=0.0), max_epochs=4)
        fit_stages(trainer, model, make_data(num_tasks=1), ckpt_path=ckpt)
        return model.state_dict()

    whole = run(tmp_path / "whole")
    for number in range(3):
        resumed = run(tmp_path / str(number), tmp_path / "whole" / f"copy-{number:02d}.ckpt", seed=9)
        for name, value in whole.items():
            assert torch.equal(value, resumed[name]), f"{name} after epoch {number}"


def test_a_gradient_penalty_finds_all_of_25_gaussians():
    found = explore("wgan_gp", seconds=300, seed=0, max_steps=300)
    assert found.modes == 25 and found.high_quality > 0.4
