"""What continual models remember of past tasks: their sizes and classes, and images drawn of them once and
dealt out again and again, for teachers that draw slowly.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lit_gen.core.random import forked_rng, processes
from lit_gen.core.types import Batch, ImageSpec, Task

BLOCK = 500  # images that are drawn at once, however many processes there are


class PastTasks(nn.Module):
    """How many tasks were `seen`, the images of each, `sizes` [T], and of each class in it,
    `label_counts` [T, K].
    """

    def __init__(self, num_tasks: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("sizes", torch.zeros(num_tasks))
        self.register_buffer("label_counts", torch.zeros(num_tasks, max(1, num_classes)))

    def note(self, task: Task) -> None:
        """Of a task that need not be over."""
        self.sizes[task.index] = task.num_images
        self.label_counts[task.index] = torch.tensor(task.label_counts or (0,), dtype=torch.float)

    def close(self, task: Task) -> None:
        self.note(task)
        self.seen.fill_(task.index + 1)

    def draw(self, count: int, seen: int) -> tuple[Tensor, Tensor]:
        """What images of the first `seen` tasks are to be: tasks by their sizes, labels by their counts in
        the task, -1 in tasks without labels: label and task, int64 [count], from the global generator.
        """
        task = torch.multinomial(self.sizes[:seen], count, replacement=True)
        counts = self.label_counts[task]
        is_labelled = counts.sum(1) > 0
        label = torch.multinomial(counts + (~is_labelled).float()[:, None], 1).squeeze(1)
        return torch.where(is_labelled, label, -1), task


class Pool(nn.Module):
    """Drawn images, kept as uint8 on the device. They are no part of a checkpoint: its `seed` makes them
    again, the same on any number of processes, and the dealing goes on after the `num_dealt` (int64 []).
    """

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("seed", torch.zeros((), dtype=torch.long))
        self.register_buffer("num_dealt", torch.zeros((), dtype=torch.long))  # to all processes
        self.images: Batch | None = None

    def memory_bytes(self) -> dict[str, int]:
        return {"images": sum(part.nbytes for part in self.images or ())}

    def begin(self) -> None:
        """Other images from now on, by a seed from the global generator."""
        self.images = None
        self.seed.copy_(torch.randint(2**62, ()))
        self.num_dealt.zero_()

    def drawn(self, total: int, draw: Callable[[int], Batch], *place: int) -> Batch:
        """What `draw` gives of so many images, in blocks, as it is stored; every process draws some of them.

        Args:
            place: with the seed and the number of the block, whose the noise is.
        """
        world, rank = processes()
        image = torch.zeros(total, *self.spec.shape, dtype=self.spec.stored, device=self.seed.device)
        pool = Batch(image, *torch.zeros(3, total, dtype=torch.long, device=self.seed.device))
        for block in range(rank, -(-total // BLOCK), world):
            part = slice(block * BLOCK, min((block + 1) * BLOCK, total))
            with forked_rng(int(self.seed), *place, block, device=self.seed.device):
                some = draw(part.stop - part.start)
            some = some._replace(image=self.spec.to_stored(some.image))
            for whole, piece in zip(pool, some, strict=True):
                whole[part] = piece
        if world > 1:
            for whole in pool:
                torch.distributed.all_reduce(whole)  # each place was filled by one process
        return pool

    def dealt(self, count: int, make: Callable[[], Batch]) -> Batch:
        """The next images, this process's of `count` for each.

        Args:
            make: the images, where there are none: in a phase's `begin`, which comes before a checkpoint's
                weights, they could not be drawn.
        """
        if self.images is None:
            self.images = make()
        world, rank = processes()
        # On the device: reading the number would wait for all that it has still to do.
        places = self.num_dealt + rank + world * torch.arange(count, device=self.seed.device)
        self.num_dealt += world * count
        return self.images.map(lambda part: part[places % self.images.size]).ready()
