"""How good the samples are of what learned a task, before it was consolidated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from lit_gen.core.module import LitGenerator
from lit_gen.core.types import InputError, LearnsLocally, Positive, Split
from lit_gen.evaluation.board import LOCAL, Row
from lit_gen.evaluation.context import Context, undisturbed
from lit_gen.evaluation.judges.quality import SampleQuality
from lit_gen.metrics.base import FeatureMetric
from lit_gen.metrics.features import FeatureExtractor


class LocalQuality(SampleQuality):
    """Judges local samples of the current task, with the noise and the real images of `SampleQuality`.

    Beside its score of the same task after consolidation, this says what the local model did not learn, and
    what consolidation lost. Of the first task the two are the same.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        metrics: Sequence[Callable[[int], FeatureMetric]],
        num_samples: Positive = 10_000,
        batch_size: Positive = 256,
        seed: int = 0,
    ) -> None:
        super().__init__(extractor, metrics, num_samples, None, batch_size, every_n_epochs=0, seed=seed)
        self.better = {LOCAL + name: way for name, way in self.better.items()}

    def check(self, context: Context) -> None:
        if not isinstance(context.model, LearnsLocally):
            raise InputError(
                f"{type(context.model).__name__} has no local model whose samples could be judged; Multiband "
                "has one (model=multiband, model=multiband_gan). Leave judges=local out"
            )
        if context.model.sampler is not None:
            raise InputError("local samples are drawn in the model's own way only; use sampler=default")

    def rows(self, context: Context, split: Split) -> list[Row]:
        context, task = self._begin(context), context.num_seen - 1
        with undisturbed(context.model):
            self.extractor.to(context.model.device)
            real = self._real(context, split, task, self.num_samples[split])
            fake = self._fake(context, task, real)
            return self._scores(context, split, task, [real.part], [fake], LOCAL)

    def _sample(self, model: LitGenerator, n: int, **conditions: Tensor) -> Tensor:
        return model.sample_local(n, **conditions)
