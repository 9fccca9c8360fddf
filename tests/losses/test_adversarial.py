"""Adversarial losses against formulas, the gradient penalty against critics of known slope."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lit_gen.losses.adversarial import (
    Hinge,
    LeastSquares,
    NonSaturating,
    Relativistic,
    Wasserstein,
    accuracy,
    centred_penalty,
    critic_terms,
    game_terms,
    gradient_penalty,
)

LOSSES = [NonSaturating(), LeastSquares(), Hinge(), Wasserstein(), Relativistic()]


def test_cross_entropy_is_torchs():
    real, fake = torch.randn(2, 7, generator=torch.Generator().manual_seed(0))
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    expected = bce(real, torch.ones(7), reduction="none") + bce(fake, torch.zeros(7), reduction="none")
    torch.testing.assert_close(NonSaturating().critic(real, fake), expected)
    torch.testing.assert_close(NonSaturating().generator(fake), bce(fake, torch.ones(7), reduction="none"))


@pytest.mark.parametrize(
    ("loss", "critic", "generator"),
    [
        (NonSaturating(), 2 * math.log(2), math.log(2)),
        (LeastSquares(), 0.5, 0.5),
        (Hinge(), 2.0, 0.0),
        (Wasserstein(), 0.0, 0.0),
        (Relativistic(), math.log(2), math.log(2)),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, float) else "",
)
def test_a_critic_that_knows_nothing_pays_the_known_price(loss, critic, generator):
    nothing = torch.zeros(3)
    assert loss.critic(nothing, nothing).tolist() == pytest.approx([critic] * 3)
    assert loss.generator(nothing).tolist() == pytest.approx([generator] * 3)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_critic_and_generator_pull_at_generated_images_in_opposite_directions(loss):
    real = torch.full((4,), 0.4)
    fake = torch.full((4,), 0.3, requires_grad=True)
    (down,) = torch.autograd.grad(loss.critic(real, fake).sum(), fake)
    (up,) = torch.autograd.grad(loss.generator(fake).sum(), fake)
    assert (down > 0).all() and (up < 0).all()


def test_the_hinge_is_free_beyond_one():
    loss = Hinge().critic(torch.tensor([1.5, 0.5]), torch.tensor([-1.5, -0.5]))
    assert loss.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(("slope", "penalty"), [(1.0, 0.0), (3.0, 4.0), (0.0, 1.0)])
def test_the_penalty_of_a_linear_critic_is_that_of_its_slope(slope, penalty):
    weights = torch.randn(12, dtype=torch.float64)
    weights = slope * weights / weights.norm()
    real, fake = torch.randn(2, 5, 3, 2, 2, dtype=torch.float64)
    found = gradient_penalty(lambda image: image.flatten(1) @ weights, real, fake)
    torch.testing.assert_close(found, torch.full((5,), penalty, dtype=torch.float64))


def test_the_penalty_looks_between_real_and_generated_images():
    """The score |x|^2 / 2 has the gradient x: the penalty says where it was taken."""
    real, fake = torch.full((500, 1, 1, 1), 1.0), torch.full((500, 1, 1, 1), 3.0)
    torch.manual_seed(0)
    norm = gradient_penalty(lambda image: image.square().flatten(1).sum(1) / 2, real, fake).sqrt() + 1
    assert 1 <= norm.min() < 1.05 and 2.95 < norm.max() <= 3
    assert norm.mean().item() == pytest.approx(2.0, abs=0.08)


def test_the_penalty_trains_the_critic_as_autograd_says():
    """Its gradient against finite differences, in 64 bits."""
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Softplus(), nn.Linear(8, 1)).double()
    real, fake = torch.randn(2, 6, 1, 2, 2, dtype=torch.float64)

    def penalty() -> torch.Tensor:
        torch.manual_seed(1)
        return gradient_penalty(lambda image: critic(image).flatten(), real, fake).mean()

    penalty().backward()
    weight = critic[1].weight
    step = 1e-6
    with torch.no_grad():
        weight[2, 1] += step
        above = penalty().item()
        weight[2, 1] -= 2 * step
        below = penalty().item()
    assert weight.grad[2, 1].item() == pytest.approx((above - below) / (2 * step), rel=1e-5)


def test_the_penalty_is_computed_in_32_bits_under_mixed_precision():
    real, fake = torch.randn(2, 4, 1, 2, 2)
    critic = nn.Linear(4, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gradient_penalty(lambda image: critic(image.flatten(1)).flatten(), real, fake)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, (critic.weight.norm() - 1).square().expand(4))


def test_accuracy_counts_what_is_on_the_right_side():
    real, fake = torch.tensor([0.6, 0.4, 2.0, 3.0]), torch.tensor([-1.0, 0.7])
    assert [x.item() for x in accuracy(LeastSquares(), real, fake)] == [0.75, 0.5]
    assert [x.item() for x in accuracy(NonSaturating(), real, fake)] == [1.0, 0.5]
    assert [x.item() for x in accuracy(Wasserstein(), real, fake)] == [0.5, 0.5]  # the middle is 0.675


def test_a_relativistic_game_is_zero_sum_in_the_difference_of_scores():
    """softplus(f - r) of the critic, softplus(r - f) of the generator: their difference is r - f."""
    real, fake = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    terms = game_terms(Relativistic(), real, fake)
    expected = torch.nn.functional.softplus(real - fake).mean()
    torch.testing.assert_close(terms["generator"], expected)
    torch.testing.assert_close(terms["generator"] - terms["critic"], (real - fake).mean())


def test_the_zero_centred_penalty_of_a_linear_critic_is_its_squared_slope():
    weights = torch.randn(12)
    real, fake = torch.randn(2, 4, 3, 2, 2)
    found = centred_penalty(lambda image: image.flatten(1) @ weights, real, fake)
    torch.testing.assert_close(found, weights.square().sum().expand(4))  # half of it for each of both
    bent = centred_penalty(lambda image: image.square().flatten(1).sum(1) / 2, real, fake)
    torch.testing.assert_close(bent, 0.5 * (real.flatten(1).square() + fake.flatten(1).square()).sum(1))
    terms = critic_terms(
        Relativistic(), lambda image: image.flatten(1) @ weights, real, fake, 0.5, penalty=centred_penalty
    )
    torch.testing.assert_close(terms["penalty"], weights.square().sum())
