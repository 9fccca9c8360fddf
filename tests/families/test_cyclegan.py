"""CycleGAN: its formulas, which turn moves what, translations, and that a resume is exact."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from toys import SPEC, CopyingCheckpoints, make_trainer

from datamodules.synthetic import SyntheticData
from datamodules.tasks import NoSplit
from datamodules.unpaired import UnpairedData
from lit_gen.cli.threads import _steps_per_second
from lit_gen.core.images import to_float
from lit_gen.core.schedules import LinearDecay
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import PairBatch, Task, Translates
from lit_gen.families.cyclegan import CycleGAN
from lit_gen.nets.cyclegan import PatchCritic, ResnetGenerator

TASK = Task(0, "all", (10, 10, 10, 10), 0, 40)
SMALL = {"channels": 1, "size": 8, "width": 4}


def make_model(seed=0, **options) -> CycleGAN:
    torch.manual_seed(seed)
    defaults = {
        "generator": functools.partial(ResnetGenerator, num_blocks=1, halvings=1, **SMALL),
        "critic": functools.partial(PatchCritic, num_strides=1, **SMALL),
        "pool_size": 10,
        "schedule": LinearDecay(),
        "spec": SPEC,
        "optimizer": functools.partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.999)),
    }
    return CycleGAN(**defaults | options)


def make_pairs(num_images=48) -> UnpairedData:
    source = {"spec": SPEC, "split": NoSplit(), "num_images": num_images, "num_test_images": 12}
    a, b = SyntheticData(**source), SyntheticData(**source)
    data = UnpairedData(a=a, b=b, spec=SPEC, b_looks=["invert"], halves=True, batch_size=6)
    data.prepare_data()
    data.setup()
    return data


def pairs(count=6) -> PairBatch:
    batch = make_pairs().dataset("train", [0]).__getitems__(list(range(count)))
    return PairBatch(*(half._replace(image=to_float(half.image)) for half in batch))


def test_the_cycle_and_the_identity_of_an_identity_generator_cost_exactly_nothing():
    model, batch = make_model(generator=nn.Identity), pairs()
    terms = model.generators_loss(batch, 0.0)
    assert terms["cycle"] == 0 and terms["identity"] == 0
    assert terms["loss"] == terms["adversarial"] > 0
    assert model.evaluate(batch)["cycle"] == 0


def test_the_generators_loss_is_its_formula():
    model, batch = make_model(cycle_weight=7.0, identity_weight=0.25), pairs()
    a, b = batch.a.image, batch.b.image
    terms = model.generators_loss(batch, 0.0)
    fake_a, fake_b = model.to_a(b), model.to_b(a)
    fooling = (model.critic_a(fake_a) - 1).square().mean() + (model.critic_b(fake_b) - 1).square().mean()
    cycle = nn.L1Loss()(model.to_a(fake_b), a) + nn.L1Loss()(model.to_b(fake_a), b)
    identity = nn.L1Loss()(model.to_a(a), a) + nn.L1Loss()(model.to_b(b), b)
    torch.testing.assert_close(terms["adversarial"], fooling)
    torch.testing.assert_close(terms["cycle"], cycle)
    torch.testing.assert_close(terms["identity"], identity)
    torch.testing.assert_close(terms["loss"], fooling + 7 * cycle + 7 * 0.25 * identity)
    assert "identity" not in make_model(identity_weight=0.0).generators_loss(batch, 0.0)


@torch.no_grad()
def test_the_critics_loss_is_half_the_squared_distances_on_images_from_the_pools():
    model, batch = make_model(pool_size=4), pairs()
    torch.manual_seed(3)
    shown = model.pool_a(torch.zeros(6, 1, 8, 8)), model.pool_b(torch.ones(6, 1, 8, 8))
    assert shown[0].abs().max() == 0 and shown[1].min() == 1  # now both pools are full
    torch.manual_seed(4)
    terms = model.critics_loss(batch, 0.0)
    again = make_model(pool_size=4)
    again.pool_a(torch.zeros(4, 1, 8, 8))
    again.pool_b(torch.ones(4, 1, 8, 8))
    torch.manual_seed(4)
    loss, share = 0.0, []
    for critic, pool, real, fake in (
        (again.critic_a, again.pool_a, batch.a.image, again.to_a(batch.b.image)),
        (again.critic_b, again.pool_b, batch.b.image, again.to_b(batch.a.image)),
    ):
        scores, of_fake = critic(real), critic(pool(fake))
        loss += ((scores - 1).square().mean() + of_fake.square().mean()) / 2
        share.append((of_fake <= 0.5).float().mean())
    torch.testing.assert_close(terms["loss"], loss)
    assert [terms["accuracy_fake_a"], terms["accuracy_fake_b"]] == share
    assert torch.equal(model.pool_a.images, again.pool_a.images)


def test_each_turn_has_gradients_for_its_own_networks_only():
    model, batch = make_model(), pairs()
    (phase,) = model.phases(TASK)
    assert [turn.name for turn in phase.turns] == ["generators", "critics"]
    model.critics_loss(batch, 0.0)["loss"].backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == name.startswith("critic"), name


def test_a_fit_takes_a_step_of_each_network_per_batch_and_the_rate_ends_at_zero():
    model, data = make_model(), make_pairs()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = make_trainer(max_epochs=2)
    fit_stages(trainer, model, data)
    assert trainer.global_step == 2 * 2 * trainer.num_training_batches  # two optimizers
    assert all(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.pool_a.num_filled == model.pool_b.num_filled == 10
    assert [group["lr"] for o in trainer.optimizers for group in o.param_groups] == [0.0, 0.0]


def test_translations_are_the_generators_without_gradient():
    model, image = make_model(), pairs().a.image
    assert isinstance(model, Translates) and not hasattr(model, "sample")
    assert torch.equal(model.translate(image, to="b"), model.to_b(image).detach())
    there = model.translate(image, to="a")
    assert torch.equal(there, model.to_a(image).detach()) and not there.requires_grad
    with pytest.raises(ValueError, match="to='c'; the domains are 'a' and 'b'"):
        model.translate(image, to="c")


def test_evaluation_changes_nothing_and_names_both_turns():
    model, batch = make_model(), pairs()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    terms = model.evaluate(batch)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert set(terms) == {
        *("generators", "adversarial", "cycle", "identity", "critics"),
        *(f"accuracy_{kind}_{domain}" for kind in ("real", "fake") for domain in "ab"),
    }
    assert not any(value.requires_grad for value in terms.values())


def test_numbers_of_threads_can_be_timed_on_pairs():
    assert _steps_per_second(1, make_model(), make_pairs()) > 0


@pytest.mark.slow
def test_resuming_restores_both_optimizers_and_the_pools_bit_for_bit(tmp_path):
    def run(folder, ckpt=None, seed=0):
        model = make_model(seed=seed)
        trainer = make_trainer(CopyingCheckpoints(folder, every_seconds=0.0), max_epochs=4)
        fit_stages(trainer, model, make_pairs(), ckpt_path=ckpt)
        moments = [
            value
            for optimizer in trainer.optimizers
            for state in optimizer.state_dict()["state"].values()
            for value in state.values()
        ]
        return model.state_dict(), moments

    whole, moments = run(tmp_path / "whole")
    assert whole["pool_b.num_filled"] == 10
    for number in range(3):
        resumed, again = run(tmp_path / str(number), tmp_path / "whole" / f"copy-{number:02d}.ckpt", seed=9)
        assert all(torch.equal(one, other) for one, other in zip(moments, again, strict=True))
        for name, value in whole.items():
            assert torch.equal(value, resumed[name]), f"{name} after epoch {number}"
