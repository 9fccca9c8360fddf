"""A classifier whose rehearsal of past tasks is steered to what it is about to forget.

Source: Cywinski et al. 2024, "GUIDE: Guidance-based Incremental Learning with Diffusion Models",
arXiv:2403.03938, and the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from lit_gen.continual.replay import GenerativeReplay
from lit_gen.continual.solver import Solver
from lit_gen.core.module import LitGenerator, LitModel, OptimizerFactory
from lit_gen.core.types import Batch, ImageSpec, Phase, Positive, Task
from lit_gen.diffusion.solvers import Denoiser
from lit_gen.families.samplers import DiffusionSampler, seen_in, slopes, with_noise

_DDIM = DiffusionSampler(progress=False)


@dataclass(frozen=True, kw_only=True)
class Steered(DiffusionSampler):
    """Draws towards the most probable of some classes, as a classifier sees it in the image behind x_t.

    Args:
        classify: images [B, C, S, S] -> logits [B, K].
        towards: bool [K].
        strength: s of sigma_t s times the gradient, by x_t, of the cross-entropy of that class.
    """

    classify: Callable[[Tensor], Tensor]
    towards: Tensor
    strength: float

    def denoiser(self, model: LitGenerator, label: Tensor | None, task: Tensor | None) -> Denoiser:
        condition = model.one_hot(label=label, task=task)

        def says(x: Tensor, t: Tensor) -> tuple[Tensor, None]:
            def miss(x: Tensor) -> Tensor:
                logits = self.classify(seen_in(model, x, t, condition))
                wanted = logits.masked_fill(~self.towards, -torch.inf).argmax(1)
                return F.cross_entropy(logits, wanted, reduction="none")

            (slope,) = slopes(miss, [x])
            return with_noise(model, x, t, condition, self.strength * slope), None

        return model.denoiser_of(says, self.clip)


class Guide(Solver):
    """A class-conditional diffusion model with replay of its own, and a classifier whose images of past tasks
    are drawn by the diffusion model as it was before the task: of an old class each, but steered, through the
    classifier as it is now, towards the new class that it sees most of in them.

        >>> from lit_gen import Classifier, Diffusion
        >>> spec = ImageSpec(1, 28, 10)
        >>> learner = Diffusion(spec, condition="label", condition_size=10)
        >>> model = Guide(GenerativeReplay(learner, num_tasks=5), Classifier(spec), num_tasks=5)
        >>> list(model.classify(torch.zeros(3, 1, 28, 28)).shape)
        [3, 10]

    Args:
        generator: its learner is a diffusion model with condition="label".
        strength: of the steering; 0.2 to 0.5 as published, 0 is plain rehearsal.
        redraw_every: batches after which images are drawn anew, as they are at the start of an epoch.
        sampler: of these images.

    The other arguments are those of `Solver`.
    """

    def __init__(
        self,
        generator: GenerativeReplay,
        classifier: LitModel,
        num_tasks: Positive,
        strength: Annotated[float, Ge(0)] = 0.2,
        redraw_every: Positive = 1,
        epochs: Positive | None = None,
        later_epochs: Positive | None = None,
        later_optimizer: OptimizerFactory | None = None,
        sampler: DiffusionSampler = _DDIM,
        spec: ImageSpec | None = None,
    ) -> None:
        if "label" not in generator.conditions or not hasattr(generator.learner, "denoiser_of"):
            raise ValueError(
                "generator: its learner must be a diffusion model with condition=label, to draw old classes"
            )
        super().__init__(
            generator, classifier, num_tasks, "condition", True, 1, epochs, later_epochs, later_optimizer,
            sampler, spec,
        )  # fmt: skip
        self.strength, self.redraw_every = strength, redraw_every
        self._age = 0  # batches that had the latest images

    def phases(self, task: Task) -> tuple[Phase, ...]:
        *others, last = super().phases(task)
        # Drawn images are not in checkpoints, which are written between epochs.
        return (*others, replace(last, each_epoch=lambda task, look: setattr(self.pool, "images", None)))

    def replayed(self, task: Task, count: int) -> Batch:
        images = self.pool.images
        if images is None or self._age == self.redraw_every or images.size < count:
            self.pool.images, self._age = self._steered(task, count), 0
        self._age += 1
        return self.pool.images.map(lambda part: part[:count])

    def _steered(self, task: Task, count: int) -> Batch:
        seen = int(self.past.seen)
        label, of_task = self.past.draw(count, seen)
        new = torch.tensor(task.label_counts, device=label.device) > 0
        given = {f.name: getattr(self.replay_sampler, f.name) for f in fields(DiffusionSampler)}
        draw = Steered(**given, classify=self.classify, towards=new, strength=self.strength)
        self.classifier.eval()
        image = draw(self.generator.teacher.net, count, label=label)
        self.classifier.train()
        return Batch(image, label, of_task, torch.full_like(label, -1))
