"""The local half of Multiband GAN: a GAN that learns one task, and what it is told.

Source: Deja et al. 2023, "Adapt & Align", arXiv:2312.13699, and the authors' code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gen.core.types import Batch, InputError, Task
from lit_gen.families.base import Adversaries
from lit_gen.losses.adversarial import AdversarialLoss
from lit_gen.nets.translator import Band


class LocalGAN(Adversaries, nn.Module):
    """A generator and its critic. The generator is told the task, or it and the critic are told the class.

    Args:
        critic: image, and one-hot class [B, num_classes] or None -> one score per image.
        penalty_weight: of the gradient penalty; 0 leaves it out.
        num_classes: 0: the condition is the task.
    """

    def __init__(
        self,
        generator: Band,
        critic: nn.Module,
        noise_size: int,
        loss: AdversarialLoss,
        penalty_weight: float,
        num_classes: int,
    ) -> None:
        super().__init__()
        told = getattr(critic, "condition_size", num_classes)
        if told != num_classes:
            raise InputError(
                f"model.critic.condition_size={told}: the critic is told one of {num_classes} classes (0: "
                "nothing). Take model=multiband_gan_classes for classes, model=multiband_gan for tasks"
            )
        self.generator, self.critic = generator, critic
        self.noise_size, self.loss, self.penalty_weight = noise_size, loss, penalty_weight
        self.num_classes = num_classes

    def condition(self, batch: Batch) -> Tensor:
        """What the generator is told: int64 [B]."""
        return batch.label if self.num_classes else batch.task

    @property
    def device(self) -> torch.device:
        return next(self.generator.parameters()).device

    def told(self, batch: Batch, progress: float) -> tuple[Tensor]:
        return (self.condition(batch),)

    def score(self, image: Tensor, condition: Tensor) -> Tensor:
        told = F.one_hot(condition, self.num_classes).to(image.dtype) if self.num_classes else None
        return super().score(image, told)


class ClassTables(nn.Module):
    """Which classes each task holds; without classes generators are told the task itself.

    Attributes:
        counts: float32 [num_tasks, num_classes], training images; all alike until a task is over.
    """

    def __init__(self, num_tasks: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.ones(num_tasks, num_classes))

    @property
    def num_classes(self) -> int:
        return self.counts.shape[1]

    def draw(self, task: Tensor) -> Tensor:
        """What the generator is told to draw these tasks: int64 [B] -> [B]."""
        return torch.multinomial(self.counts[task], 1).squeeze(1) if self.num_classes else task

    def are_seen(self, condition: Tensor, num_seen: int) -> Tensor:
        """Whether one of the first tasks is, or holds, this: int64 [B] -> bool [B]."""
        return (self.counts[:num_seen].sum(0) > 0)[condition] if self.num_classes else condition < num_seen

    def close(self, task: Task) -> None:
        if self.num_classes:
            self.counts[task.index] = torch.tensor(task.label_counts, dtype=torch.float)

    def check(self, task: Task) -> None:
        """Raises InputError where not every image of the task has one class."""
        if self.num_classes and sum(task.label_counts) != task.num_images:
            raise InputError(
                f"model.condition=label: task {task.name} has {task.num_images} training images and "
                f"{sum(task.label_counts)} labels, not one each. Set data.labelled_share=1 and leave "
                "attributes out, or take model=multiband_gan"
            )
