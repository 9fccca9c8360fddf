"""Noise is a function of place."""

from __future__ import annotations

import torch

from lit_gen.core.random import DataUse, Use, forked_rng, generator, mixed_seed, seed_generators

CPU = torch.device("cpu")


def test_neighbouring_places_have_different_seeds():
    places = {
        mixed_seed(seed, epoch, batch, rank)
        for seed in range(4)
        for epoch in range(20)
        for batch in range(50)
        for rank in range(4)
    }
    assert len(places) == 4 * 20 * 50 * 4
    assert mixed_seed(0) != mixed_seed(0, 0)
    assert all(0 <= mixed_seed(i, -1) < 2**63 for i in range(100))


def test_the_seed_does_not_change_between_versions():
    """Runs of older versions can be repeated only as long as this holds."""
    assert mixed_seed(0, 1, 2, 3) == 7553135745386051338
    assert generator(0, 1, 2).initial_seed() == 1535930435702422785
    assert mixed_seed(0, Use.BETWEEN) == mixed_seed(0, 3)


def test_no_two_uses_of_the_seed_share_their_draws():
    for uses in (Use, DataUse):
        assert len(uses.__members__) == len({*uses}), "two names have one number"
    draws = {int(torch.randint(2**62, (1,), generator=generator(a, b))) for a in range(5) for b in range(5)}
    assert len(draws) == 25


def test_a_fork_leaves_no_trace():
    torch.manual_seed(1)
    expected = torch.randn(3)
    torch.manual_seed(1)
    with forked_rng(5, 6, device=CPU):
        inside = torch.randn(3)
    assert torch.equal(torch.randn(3), expected)
    with forked_rng(5, 6, device=CPU):
        assert torch.equal(torch.randn(3), inside)


def test_seeding_decides_the_draws():
    seed_generators(1, 2, device=CPU)
    first = torch.randn(3)
    torch.randn(10)
    seed_generators(1, 2, device=CPU)
    assert torch.equal(torch.randn(3), first)
