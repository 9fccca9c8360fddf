"""Adapt & Align's classifier, whose features say where in a generator's common latent space an image lies.

Source: Deja et al. 2023, "Adapt & Align: Continual Learning with Generative Models' Latent Space Alignment",
arXiv:2312.13699, which trains a feature extractor to give the translated codes of generated images, and a
head on it. Its authors' code has no classifier; what is not said there is ours.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from lit_gen.continual.solver import LabelSource, Solver
from lit_gen.core.module import LitGenerator, LitModel, OptimizerFactory, Sampler
from lit_gen.core.types import Batch, ImageSpec, Phase, Positive, Task, Terms, TranslatesCodes, do_nothing


class AlignedSolver(Solver):
    """A generator whose tasks lie in one latent space, and a classifier whose features are distilled to it.

    After the generator a task has two phases. In the first, features learn to give (by a line) the translated
    code of every image that the generator draws of all tasks so far; in the second, the head on them learns
    from what a `Solver` learns from.

        >>> from lit_gen import Classifier, ImageSpec, MultibandVAE
        >>> spec = ImageSpec(1, 28, 10)
        >>> model = AlignedSolver(MultibandVAE(spec, num_tasks=5), Classifier(spec), num_tasks=5)
        >>> list(model.classify(torch.zeros(3, 1, 28, 28)).shape)
        [3, 10]

    Args:
        generator: gives images of translated codes: Multiband VAE or GAN.
        classifier: its net has `num_features` and, on these, `classes`.
        distil_epochs: of the features; None is the Trainer's length.
        frozen: the features stay as they were distilled while the head learns; false: both learn.
        head_optimizer: of the second phase, whose one layer bears a larger rate; None is the classifier's.

    The other arguments are those of `Solver`.
    """

    def __init__(
        self,
        generator: LitGenerator,
        classifier: LitModel,
        num_tasks: Positive,
        distil_epochs: Positive | None = None,
        frozen: bool = True,
        head_optimizer: OptimizerFactory | None = None,
        labels: LabelSource | None = None,
        real: bool = True,
        pool_size: Positive = 5000,
        epochs: Positive | None = None,
        later_epochs: Positive | None = None,
        later_optimizer: OptimizerFactory | None = None,
        sampler: Sampler | None = None,
        spec: ImageSpec | None = None,
    ) -> None:
        if not isinstance(generator.abilities(), TranslatesCodes):
            raise ValueError(
                f"generator: {type(generator).__name__} has no latent space that its tasks share; take "
                "multiband or multiband_gan"
            )
        super().__init__(
            generator, classifier, num_tasks, labels, real, pool_size, epochs, later_epochs, later_optimizer,
            sampler, spec,
        )  # fmt: skip
        self.distil_epochs, self.frozen, self.head_optimizer = distil_epochs, frozen, head_optimizer
        code_size = generator.abilities().translated(torch.zeros(1, dtype=torch.long)).shape[1]
        self.to_code = nn.Linear(classifier.net.num_features, code_size)

    def phases(self, task: Task) -> tuple[Phase, ...]:
        *others, last = super().phases(task)
        net = self.classifier.net
        body = tuple(part for part in net.children() if part is not net.classes)
        features = Phase.single(
            "features", self.distil, (*body, self.to_code), self.distil_epochs,
            self.classifier.make_optimizer, schedule=self.classifier.schedule, begin=last.begin,
        )  # fmt: skip
        (turn,) = last.turns
        trains = (net.classes,) if self.frozen else turn.trains
        turn = replace(turn, trains=trains, optimizer=self.head_optimizer or turn.optimizer)
        return (*others, features, replace(last, turns=(turn,), begin=do_nothing))

    def distil(self, batch: Batch, progress: float) -> Terms:
        """How far features are from the codes of as many drawn images; `unexplained` is their part of the
        codes' variance.
        """
        able = self.generator.abilities()
        with torch.no_grad():
            _, task = self.past.draw(batch.size, int(self.past.seen) + 1)
            code = able.translated(task)
            image = able.decode_translated(code)
        error = F.mse_loss(self.to_code(self.classifier.net(image)[0]), code)
        return {"loss": error, "unexplained": error / code.var(0, correction=0).mean()}
