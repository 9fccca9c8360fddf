"""Dealing a data set into tasks: a split says what share of every group goes where, `deal` hands it out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol, runtime_checkable

import numpy as np
import torch
from annotated_types import Gt
from torch import Tensor

from lit_gen.core.types import InputError, NonNegative, Positive


@runtime_checkable
class TaskSplit(Protocol):
    """What part of each group of images goes to each task. A group is a class, a domain or an attribute."""

    def shares(self, num_groups: int, rng: torch.Generator) -> Tensor:
        """float64 [num_groups, num_tasks], non-negative: handed out in task order until a group is used up;
        what is left over belongs to no task, and nothing is left over where a row sums to 1.
        """


class NoSplit:
    """One task that holds everything."""

    def shares(self, num_groups: int, rng: torch.Generator) -> Tensor:
        return torch.ones(num_groups, 1, dtype=torch.float64)


@dataclass
class ClassSplit:
    """Class-incremental: every class belongs to one task.

    Attributes:
        order: the classes in the order in which they arrive; None is 0, 1, 2, ... Classes left out belong to
            no task.
        classes_per_task: one number, or one for each task; classes that are not reached belong to no task.
            None gives every task equally many, and where that does not divide, one more to each of the first
            tasks.
        drop_rest: where the classes do not divide, the last ones belong to no task (the published Omniglot).
        reverse: the tasks arrive in the opposite order.
    """

    num_tasks: Positive
    order: list[NonNegative] | None = None
    classes_per_task: Positive | list[Positive] | None = None
    drop_rest: bool = False
    reverse: bool = False

    def __post_init__(self) -> None:
        if self.num_tasks < 1:
            raise InputError(f"stream.num_tasks={self.num_tasks}: a stream has at least one task.")
        if self.order is not None and len(set(self.order)) != len(self.order):
            raise InputError(
                f"stream.split.order={self.order}: it names a class twice; one task each at most."
            )
        sizes = self.classes_per_task
        if isinstance(sizes, Sequence) and len(sizes) != self.num_tasks:
            raise InputError(
                f"stream.split.classes_per_task={sizes}: stream.num_tasks={self.num_tasks} asks for one "
                f"number, or a list of {self.num_tasks}."
            )

    def shares(self, num_groups: int, rng: torch.Generator) -> Tensor:
        order = list(range(num_groups)) if self.order is None else list(self.order)
        if any(not 0 <= group < num_groups for group in order):
            raise InputError(f"stream.split.order={order}: the data has the classes 0 to {num_groups - 1}.")
        sizes = self._sizes(len(order)) if self.num_tasks <= num_groups else [0]
        if min(sizes) < 1 or sum(sizes) > len(order):
            raise InputError(
                f"stream.num_tasks={self.num_tasks} needs {max(sum(sizes), self.num_tasks)} classes and "
                f"there are {len(order)}; lower stream.num_tasks or stream.split.classes_per_task."
            )
        shares = torch.zeros(num_groups, self.num_tasks, dtype=torch.float64)
        tasks = torch.arange(self.num_tasks).repeat_interleave(torch.tensor(sizes))
        shares[order[: len(tasks)], tasks] = 1
        return shares.flip(1) if self.reverse else shares

    def _sizes(self, num_classes: int) -> list[int]:
        """How many classes each task has."""
        if isinstance(self.classes_per_task, int):
            return [self.classes_per_task] * self.num_tasks
        if self.classes_per_task is not None:
            return list(self.classes_per_task)
        least, rest = divmod(num_classes, self.num_tasks)
        return [least + (task < rest and not self.drop_rest) for task in range(self.num_tasks)]


@dataclass
class DirichletSplit:
    """Data-incremental: every group is spread over the tasks at random. Source: Deja et al. 2022, their code.

    Group c has shares p_c from a Dirichlet distribution with alpha / num_tasks for each task. Then every task
    is scaled to (number of groups) / (num_tasks + 2) groups' worth of images: some groups are used up early
    and others never, so that with ten tasks 77 % of the data is used at alpha = 1, and 83 % at alpha = 100.

    Attributes:
        alpha: small values give each task few groups, large ones a bit of all.
        complete: the shares of each group are scaled to 1, so that no image is left out.
    """

    num_tasks: Positive
    alpha: Annotated[float, Gt(0)] = 1.0
    complete: bool = False

    def shares(self, num_groups: int, rng: torch.Generator) -> Tensor:
        # torch's Dirichlet takes no generator; numpy's legacy one never changes its stream.
        legacy = np.random.RandomState(int(torch.randint(2**32, (1,), generator=rng)))
        concentration = np.full(self.num_tasks, self.alpha / self.num_tasks)
        shares = torch.from_numpy(legacy.dirichlet(concentration, num_groups))
        shares = shares * num_groups / (shares.sum(0) * (self.num_tasks + 2))
        return shares / shares.sum(1, keepdim=True) if self.complete else shares


def deal(groups: Tensor, shares: Tensor, rng: torch.Generator) -> list[Tensor]:
    """Deals images into tasks.

    Args:
        groups: int64 [N], the group of every image; -1 takes part in no task.
        shares: [num_groups, num_tasks] of a `TaskSplit`.
        rng: shuffles every group before it is handed out.

    Returns:
        One ascending int64 index array per task: disjoint, and together every image of a group whose row sums
        to 1.
    """
    num_groups, num_tasks = shares.shape
    counts = torch.bincount(groups[groups >= 0], minlength=num_groups)
    wanted = shares.double() * counts[:, None]
    is_complete = (shares.sum(1, keepdim=True) - 1).abs() < 1e-6
    # Of a complete row the running sum is rounded, so that nothing is left out; otherwise every part is
    # rounded down, as published for Dirichlet splits.
    ends = torch.where(is_complete, wanted.cumsum(1).round(), wanted.floor().cumsum(1))  # [groups, tasks]

    order = torch.randperm(len(groups), generator=rng)
    order = order[groups[order] >= 0]
    order = order[groups[order].argsort(stable=True)]  # group after group, each of them shuffled
    group = groups[order]
    place = torch.arange(len(order)) - (counts.cumsum(0) - counts)[group]  # within its group
    task = (place[:, None] >= ends[group]).sum(1)  # num_tasks for what is left over
    return [order[task == number].sort().values for number in range(num_tasks)]


def task_names(shares: Tensor, group_names: tuple[str, ...]) -> tuple[str, ...]:
    """The groups of each task where none is divided ("0-1"), else numbers ("part-3"); one task is "all"."""
    if shares.shape[1] == 1:
        return ("all",)
    if ((shares > 0).sum(1) > 1).any():
        return tuple(f"part-{task}" for task in range(shares.shape[1]))
    names = []
    for task in range(shares.shape[1]):
        members = [group_names[group] for group in shares[:, task].nonzero().flatten().tolist()]
        names.append("-".join(members) if len(members) <= 5 else f"{members[0]}..{members[-1]}")
    return tuple(names)
