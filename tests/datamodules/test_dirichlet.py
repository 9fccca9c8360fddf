"""The published Dirichlet split. References: figures measured on the authors' code (Deja et al. 2022)."""

import pytest
import torch

from datamodules.tasks import ClassSplit, DirichletSplit, deal
from lit_gen.core.random import generator


def dealt(groups, num_groups, num_tasks, alpha, seed, **settings):
    split = DirichletSplit(num_tasks, alpha, **settings)
    return deal(groups, split.shares(num_groups, generator(seed, 0)), generator(seed, 1))


def classes(num_groups, size):
    return torch.arange(num_groups).repeat_interleave(size)


@pytest.mark.parametrize(
    ("num_groups", "size", "num_tasks", "alpha", "used", "present"),
    [(10, 6000, 10, 1.0, 0.77, 5.7), (10, 6000, 10, 100.0, 0.833, 10), (964, 20, 20, 1.0, 0.80, 134)],
)
def test_as_much_of_the_data_is_used_as_in_the_published_streams(
    num_groups, size, num_tasks, alpha, used, present
):
    groups, shares, counts = classes(num_groups, size), [], []
    for seed in range(10):
        parts = dealt(groups, num_groups, num_tasks, alpha, seed)
        everything = torch.cat(parts)
        assert len(everything.unique()) == len(everything)
        shares.append(len(everything) / len(groups))
        counts += [len(groups[part].unique()) for part in parts]
    assert sum(shares) / len(shares) == pytest.approx(used, abs=0.02)
    assert sum(counts) / len(counts) == pytest.approx(present, rel=0.05)


def test_no_task_is_larger_than_the_published_bound():
    for seed in range(5):
        sizes = [len(part) for part in dealt(classes(10, 6000), 10, 10, 1.0, seed)]
        assert max(sizes) <= 10 * 6000 / 12


@pytest.mark.parametrize("alpha", [0.5, 100.0])
def test_the_complete_variant_drops_nothing(alpha):
    parts = dealt(classes(10, 333), 10, 10, alpha, 3, complete=True)
    assert torch.cat(parts).sort().values.equal(torch.arange(3330))


def test_the_split_is_a_function_of_its_seed():
    torch.manual_seed(99)
    first, again, other = (dealt(classes(5, 100), 5, 4, 1.0, seed) for seed in (0, 0, 1))
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    assert not all(a.equal(b) for a, b in zip(first, other, strict=True))


def test_published_omniglot_drops_the_last_classes_and_reversed_streams_end_with_the_first():
    assert ClassSplit(20, drop_rest=True).shares(964, generator(0)).sum(0).tolist() == [48] * 20
    shares = ClassSplit(5, drop_rest=True).shares(964, generator(0))
    assert shares.sum(0).tolist() == [192] * 5 and shares.sum(1).nonzero().max() == 959
    backwards = ClassSplit(10, reverse=True).shares(20, generator(0))
    assert backwards[:, 0].nonzero().flatten().tolist() == [18, 19]
    assert backwards.flip(1).equal(ClassSplit(10).shares(20, generator(0)))
