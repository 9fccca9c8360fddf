"""Turns a trained classifier into the weights of a feature extractor."""

from __future__ import annotations

import logging
from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from torch import nn

from lit_gen.core.types import InputError, StreamData
from lit_gen.metrics.features import save_extractor, weights_hash

log = logging.getLogger(__name__)


class ExportExtractor(Callback):
    """Writes `<name>.safetensors` after every test, with the test accuracy in its header.

    Use it with `extractor.weights=<the file>`, or ship it with the package in lit_gen/metrics/weights.

    Args:
        name: of the extractor.
        dataset: what it was trained on, in words.
    """

    def __init__(self, name: str, dataset: str) -> None:
        self.name, self.dataset = name, dataset

    def check(self, module: LightningModule, data: StreamData | None) -> None:
        """Raises InputError for a model that is no classifier."""
        if not isinstance(getattr(module, "net", None), nn.Module):
            raise InputError(
                f"callbacks.export: {type(module).__name__} has no network of features and logits; "
                "use it with model=lenet"
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.check(pl_module, trainer.datamodule)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        accuracy = float(trainer.callback_metrics["test/accuracy"])
        spec = trainer.datamodule.spec
        path = Path(trainer.default_root_dir) / f"{self.name}.safetensors"
        header = {
            "dataset": self.dataset,
            "test_accuracy": f"{accuracy:.4f}",
            "num_classes": str(spec.num_classes),
            "channels": str(spec.channels),
        }
        save_extractor(pl_module.net, path, header)
        digest = weights_hash(pl_module.net)
        log.info("extractor %s: test accuracy %.4f, hash %s, %s", self.name, accuracy, digest, path)
