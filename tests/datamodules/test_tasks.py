import pytest
import torch

from datamodules.digits import Digits
from datamodules.tasks import ClassSplit, NoSplit, deal, task_names
from lit_gen.core.random import generator
from lit_gen.core.types import InputError

GROUPS = torch.randint(6, (500,), generator=generator(1))


def dealt(shares, seed=0):
    return deal(GROUPS, shares, generator(seed))


@pytest.mark.parametrize("num_tasks", [1, 2, 6])
def test_class_split_is_disjoint_and_complete(num_tasks):
    parts = dealt(ClassSplit(num_tasks).shares(6, generator(0)))
    assert len(parts) == num_tasks
    assert torch.cat(parts).sort().values.equal(torch.arange(500))  # each index once


def test_shares_are_handed_out_in_task_order_until_a_group_is_used_up():
    groups = torch.zeros(100, dtype=torch.long)
    sizes = [len(part) for part in deal(groups, torch.tensor([[0.25, 0.6, 0.5, 0.5]]), generator(0))]
    assert sizes == [25, 60, 15, 0]


def test_leftovers_belong_to_no_task():
    shares = torch.full((6, 2), 0.25)
    parts = dealt(shares)
    counts = torch.bincount(GROUPS)
    for part in parts:
        assert (torch.bincount(GROUPS[part]) - counts / 4).abs().max() <= 1
    assert len(torch.cat(parts).unique()) == len(torch.cat(parts)) < 500


def test_rows_that_sum_to_one_up_to_rounding_lose_nothing():
    shares = torch.rand(6, 7, generator=generator(3), dtype=torch.float64)
    parts = dealt(shares / shares.sum(1, keepdim=True))
    assert torch.cat(parts).sort().values.equal(torch.arange(500))


def test_groups_below_zero_take_part_in_no_task():
    parts = deal(torch.tensor([0, -1, 0, -1, 1]), torch.ones(2, 1), generator(0))
    assert parts[0].tolist() == [0, 2, 4]


def test_order_and_sizes_of_classes():
    split = ClassSplit(2, order=[5, 0, 3], classes_per_task=[1, 2])
    parts = dealt(split.shares(6, generator(0)))
    assert [GROUPS[part].unique().tolist() for part in parts] == [[5], [0, 3]]


def test_classes_that_do_not_divide_go_to_the_first_tasks():
    shares = ClassSplit(4).shares(10, generator(0))
    assert shares.sum(0).tolist() == [3, 3, 2, 2] and shares.sum(1).eq(1).all()


def test_one_number_of_classes_per_task_drops_the_last_classes():
    assert ClassSplit(3, classes_per_task=2).shares(10, generator(0)).sum(1).tolist() == [1] * 6 + [0] * 4


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (lambda: ClassSplit(7).shares(6, generator(0)), "stream.num_tasks=7"),
        (lambda: ClassSplit(2, order=[0, 9]).shares(6, generator(0)), "0 to 5"),
        (lambda: ClassSplit(2, order=[1, 1]), "twice"),
        (lambda: ClassSplit(2, classes_per_task=[1, 2, 3]), "list of 2"),
        (lambda: ClassSplit(3, classes_per_task=4).shares(6, generator(0)), "12 classes"),
        (lambda: Digits(num_tasks=5).setup(), "stream.num_tasks=5, but NoSplit makes 1"),
    ],
)
def test_impossible_splits_are_refused(split, words):
    with pytest.raises(InputError, match=words):
        split()


def test_a_stream_without_tasks_is_refused():
    with pytest.raises(ValueError, match=r"stream\.num_tasks=0"):
        ClassSplit(0)


def test_names_say_which_groups_a_task_has():
    names = ("cat", "dog", "cow", "pig")
    assert task_names(ClassSplit(2).shares(4, generator(0)), names) == ("cat-dog", "cow-pig")
    assert task_names(torch.full((4, 2), 0.5), names) == ("part-0", "part-1")
    assert task_names(NoSplit().shares(4, generator(0)), names) == ("all",)
