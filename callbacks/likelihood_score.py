"""How likely a model says test images are."""

from __future__ import annotations

import logging
import math
import time

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import Dataset

from lit_gen.core.images import to_float
from lit_gen.core.random import forked_rng, mixed_seed
from lit_gen.core.types import Batch, InputError, Likelihood
from lit_gen.evaluation.blocks import abilities_of, blocks, choose, gathered, on_device, undisturbed
from lit_gen.evaluation.scores import Score

log = logging.getLogger(__name__)

_DRAWS, _CHOICE, _TRIAL = 211, 212, 213  # uses of the seed


class LikelihoodScore(Callback):
    """Scores a model that promises `Likelihood` whenever it is tested.

    Logs `test/nll`, nats per image, and `test/bits_per_dim`, the same per pixel and channel in bits, of the
    tasks seen so far. Where the likelihood is a density, both depend on the range of pixels, [-1, 1].

    Images come in fixed blocks that are dealt to the processes, and the noise of a block is a function of the
    seed, the task and the block's number: the scores are the same for any number of processes.

    Args:
        draws: codes per image, or whatever it is that the model draws; more are slower and, for importance
            sampling, tighter.
        num_images: the most images of a task that are looked at.
        batch_size: images in a block; another size gives other noise.
        per_task: also scores each task seen so far.

    Attributes:
        scores: those of the latest pass, the same on every process.
    """

    def __init__(
        self,
        draws: int = 200,
        num_images: int = 10_000,
        batch_size: int = 100,
        per_task: bool = False,
        seed: int = 0,
    ) -> None:
        for key, value in (("draws", draws), ("num_images", num_images), ("batch_size", batch_size)):
            if value < 1:
                raise InputError(f"callbacks.likelihood.{key}={value}: must be at least 1")
        self.draws, self.num_images, self.batch_size = draws, num_images, batch_size
        self.per_task, self.seed = per_task, seed
        self.scores: list[Score] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        able = abilities_of(pl_module)
        if not isinstance(able, Likelihood):
            raise InputError(
                f"callbacks.likelihood: {type(pl_module).__name__} does not promise Likelihood. Choose "
                "another model, or leave the callback out"
            )
        if trainer.datamodule is None:
            raise InputError("LikelihoodScore needs test images: give the Trainer a datamodule, not loaders")
        # A model whose likelihood is none says so when it is asked, which should not be after the training.
        images = trainer.datamodule.dataset("test", [0])
        self._log_likelihood(pl_module, images, torch.arange(min(2, len(images))), 1, (_TRIAL,))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        start = time.perf_counter()
        tasks = range(trainer.datamodule.current_task + 1)
        found = [self._of_task(trainer, pl_module, task) for task in tasks]
        views = [(task, found[task]) for task in tasks] if self.per_task else []
        channels, size, _ = trainer.datamodule.spec
        self.scores = []
        for on_task, values in [*views, (None, torch.cat(found))]:
            nll = -values.double().mean().item()
            bits = nll / math.log(2) / (channels * size**2)
            for metric, value in (("nll", nll), ("bits_per_dim", bits)):
                count = len(values)
                self.scores.append(Score(on_task, metric, value, "", "", "test", count, 0, self.seed))
        for score in self.scores:
            task = "" if score.on_task is None else f"/task{score.on_task}"
            # Every process has the same value, and so is the largest of them.
            pl_module.log(f"test/{score.metric}{task}", score.value, sync_dist=True, reduce_fx="max")
        if trainer.is_global_zero:
            count, seconds = sum(map(len, found)), time.perf_counter() - start
            log.info("likelihood of %d images, %d draws each, in %.1f s", count, self.draws, seconds)

    def _of_task(self, trainer: Trainer, module: LightningModule, task: int) -> Tensor:
        """Nats per image, float32 [n], in the images' order."""
        images = trainer.datamodule.dataset("test", [task])
        # A dry run shows that everything runs, on one block.
        most = self.batch_size if trainer.fast_dev_run else self.num_images
        chosen = choose(len(images), most, mixed_seed(self.seed, _CHOICE, task))
        values, places = [torch.empty(0, device=module.device)], [torch.empty(0, dtype=torch.long)]
        for number, block in blocks(len(chosen), self.batch_size, trainer):
            place = (_DRAWS, task, number)
            values.append(self._log_likelihood(module, images, chosen[block], self.draws, place).float())
            places.append(block)
        return gathered(torch.cat(values), torch.cat(places), len(chosen), trainer)

    def _log_likelihood(
        self,
        module: LightningModule,
        images: Dataset[Batch],
        chosen: Tensor,
        draws: int,
        place: tuple[int, ...],
    ) -> Tensor:
        """In full precision, whatever the Trainer's is."""
        batch = on_device(images.__getitems__(chosen.tolist()), module.device)
        batch = batch._replace(image=to_float(batch.image))
        with undisturbed(module), forked_rng(self.seed, *place, device=module.device):
            return abilities_of(module).log_likelihood(batch, draws)
