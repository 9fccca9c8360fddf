"""How many images BinPlay's dense decoder tells apart by their places, and what an assignment takes.

    python benchmarks/binplay.py root=data [counts=1000,4000,12000] [epochs=20] [out=FILE]

The first so many images of MNIST are one task. Counted are images of which the decoder, by their codes alone,
makes one that is nearer to its own original than to any other. Processor time on one thread.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer, seed_everything

from callbacks.task_switch import TaskSwitch
from datamodules.dataset import LabelledItems
from datamodules.mnist import MNIST
from lit_gen.cli.words import own_words
from lit_gen.continual.assignment import ASSIGN
from lit_gen.continual.binplay import BinPlay, Epochs
from lit_gen.continual.place_codes import LegacyCodes, UniqueCodes, smallest_distance
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import Batch
from lit_gen.families.classifier import Classifier
from lit_gen.nets.mlp import DenseDecoder

BATCH = 40


class FirstImages(MNIST):
    """So many training images, as one task that is tested on a few of them."""

    count = 0

    def read(self, split: str) -> LabelledItems:
        items = super().read("train")
        count = self.count if split == "train" else 100
        return LabelledItems(items.image[:count], items.label[:count], items.group[:count])


def run(root: str, count: int, codes: str, assign: str, epochs: int) -> dict[str, Any]:
    """Trains codes and decoder of one task."""
    seed_everything(0, verbose=False)
    data = FirstImages(root, batch_size=BATCH)
    data.count = count
    made = UniqueCodes(200) if codes == "unique" else LegacyCodes(200)
    decoder = DenseDecoder(1, 28, 200, (512, 1024), condition_size=10, gain=0.5)
    model = BinPlay(
        data.spec, 1, Classifier(data.spec), made, decoder=decoder, assign=assign,
        epochs=Epochs(epochs, epochs, 1),
        first_decoder_optimizer=partial(torch.optim.Adam, lr=5e-3),
    )  # fmt: skip
    numbers = []
    close = model._close
    model._close = lambda task: (numbers.append(model.own.number), close(task))
    trainer = Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        callbacks=[TaskSwitch(0)], limit_val_batches=0, inference_mode=False,
    )  # fmt: skip
    start = time.process_time()
    fit_stages(trainer, model, data)
    seconds = time.process_time() - start
    original = Batch.ready(data.dataset("train").__getitems__(list(range(count)))).image.flatten(1)
    drawn = model.at(numbers[0]).flatten(1)
    nearest = torch.cat([torch.cdist(part, original).argmin(1) for part in drawn.split(1000)])
    return {
        "images": count,
        "codes": codes,
        "assignment": assign,
        "told apart": float((nearest == torch.arange(count)).float().mean()),
        "smallest distance of codes": smallest_distance(made(torch.arange(count))),
        "seconds": seconds,
    }


def assignment_seconds(assign: str, count: int) -> float:
    """Of one epoch, for images whose latents are random."""
    codes, taken = UniqueCodes(200)(torch.arange(count)), torch.zeros(count, dtype=torch.bool)
    start = time.process_time()
    for first in range(0, count, BATCH):
        latent = torch.randn(min(BATCH, count - first), 200)
        cost = latent.square().sum(1, keepdim=True) - 2 * latent @ codes.T + 200
        cost[:, taken] = torch.inf
        taken[ASSIGN[assign](cost)] = True
    return time.process_time() - start


def main(words: list[str]) -> None:
    own, _ = own_words(words, {"root": str, "counts": list[int], "epochs": int, "out": Path}, ["root"], ())
    torch.set_num_threads(1)
    for assign in ASSIGN:
        print(f"an epoch of 12,000 images, {assign}: {assignment_seconds(assign, 12_000):.1f} s", flush=True)
    rows = []
    for count in own.get("counts", [1000, 2000, 4000, 8000, 12_000]):
        for codes, assign in [("unique", each) for each in ASSIGN] + [("legacy", each) for each in ASSIGN]:
            rows.append(run(own["root"], count, codes, assign, own.get("epochs", 20)))
            print(json.dumps(rows[-1]), flush=True)
    if "out" in own:
        own["out"].write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
