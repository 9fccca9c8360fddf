"""Pictures of translations between two domains, in training and after it."""

from __future__ import annotations

import torch
from lightning import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from callbacks.sample_grid import SampleGrid, evaluation_mode
from lit_gen.core.images import to_float, to_uint8
from lit_gen.core.module import LitModel
from lit_gen.core.types import InputError, PairBatch, StreamData, Translates
from lit_gen.evaluation.blocks import on_device


class TranslationGrid(SampleGrid):
    """Draws `samples/<task>-<epoch>-translations.png`: test images of a, below them their translations to b
    and those translated back, and below that the same from b to a.

    Everything else is as in SampleGrid; `num_images` is the number of columns.
    """

    def setup(self, trainer: Trainer, pl_module: LitModel, stage: str) -> None:
        if not isinstance(pl_module.abilities(), Translates):
            raise InputError(
                f"callbacks.translations: {type(pl_module).__name__} does not translate between domains "
                "(Translates). Leave the callback out, or use model=cyclegan"
            )

    @rank_zero_only
    def draw(self, trainer: Trainer, module: LitModel, epochs: int) -> None:
        name = f"task{trainer.datamodule.current_task}-epoch{epochs:04d}-translations"
        batch = _test_pairs(trainer.datamodule, self.num_images, module.device)
        able = module.abilities()
        rows = []
        with evaluation_mode(module), torch.no_grad(), trainer.precision_plugin.forward_context():
            for image, there, back in ((batch.a.image, "b", "a"), (batch.b.image, "a", "b")):
                translated = able.translate(image, to=there)
                rows += [image, translated, able.translate(translated, to=back)]
        self._keep(trainer, name, "translations", torch.cat([to_uint8(row) for row in rows]), self.num_images)


def _test_pairs(data: StreamData, count: int, device: torch.device) -> PairBatch:
    """`count` test images of each domain, spread over them, float32; repeated where there are fewer."""
    images = data.dataset("test", [data.current_task])
    batch = images.__getitems__([place * len(images) // count for place in range(count)])
    if not isinstance(batch, PairBatch):
        raise InputError(
            "callbacks.translations: the data has one domain only; use data=unpaired_mnist or so"
        )
    return PairBatch(*(half._replace(image=to_float(half.image)) for half in on_device(batch, device)))
