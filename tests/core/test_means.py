"""Means and noise of validation and tests: the same for any number of processes and any size of batches."""

from __future__ import annotations

import functools
import json
import math
import os
from pathlib import Path

import pytest
import torch
from processes import together
from torch import nn
from toys import SPEC, make_data, make_trainer

from callbacks.scoring import Scoring
from lit_gen.core.means import Means
from lit_gen.core.stages import fit_stages
from lit_gen.evaluation.judges.terms import TermMeans
from lit_gen.families.classifier import Classifier
from lit_gen.families.vae import VAE


class Flat(nn.Module):
    """Features that are the pixels, and logits."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(64, 4)

    def forward(self, image):
        return image.flatten(1), self.out(image.flatten(1))


def models():
    still = functools.partial(torch.optim.SGD, lr=0.0)  # so that batches of any size see the same weights
    torch.manual_seed(0)
    return Classifier(SPEC, Flat(), optimizer=still), VAE(SPEC, latent_size=3, optimizer=still)


def measure(out: str) -> None:
    """All means of 1 to 7 images in blocks of two, some without a label, and those of training on six."""
    world, found = int(os.environ.get("WORLD_SIZE", 1)), {}
    trainer = make_trainer(devices=world, strategy="ddp" if world > 1 else "auto")
    for count in range(1, 8):
        data = make_data(num_tasks=1, num_test_images=count, eval_batch_size=2)
        data.dataset("test").label[2::3] = -1
        for module in models():
            found |= {
                f"{count} {type(module).__name__} {name}": value
                for name, value in trainer.test(module, datamodule=data, verbose=False)[0].items()
            }
    data = make_data(num_tasks=1, num_test_images=3, eval_batch_size=2, batch_size=6 // world, num_images=6)
    fit_stages(trainer, models()[0], data)
    found |= {name: float(value) for name, value in trainer.callback_metrics.items()}
    if trainer.is_global_zero:
        Path(out).write_text(json.dumps(found))
    if world > 1:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_means_are_those_of_one_process_for_1_to_7_images_in_1_to_3_processes(tmp_path):
    found = {}
    for world in (1, 2, 3):
        out = str(tmp_path / f"{world}.json")
        measure(out) if world == 1 else together(world, measure, out)
        found[world] = json.loads(Path(out).read_text())
    assert len(found[1]) == 7 * (2 + 3) + 4 and {"train/accuracy", "val/accuracy"} <= set(found[1])
    assert found[2] == pytest.approx(found[1], rel=1e-6) and found[3] == pytest.approx(found[1], rel=1e-6)
    data, (classifier, _) = make_data(num_tasks=1, num_test_images=7), models()
    batch = data.dataset("test").__getitems__(list(range(7))).ready()
    right = (classifier.classify(batch.image).argmax(1) == batch.label)[[0, 1, 3, 4, 6]]
    assert found[3]["7 Classifier test/accuracy"] == pytest.approx(float(right.float().mean()))


def test_a_test_does_not_depend_on_the_size_of_batches_and_is_what_the_judge_says():
    module, found = models()[1], []
    for size in (7, 64):
        data, scoring = make_data(batch_size=size, num_test_images=41, eval_batch_size=16), Scoring({})
        scoring.judges = {"terms": TermMeans(batch_size=16)}
        data.current_task, scoring.writes = 1, False
        trainer = make_trainer(scoring)
        (values,) = trainer.test(module, datamodule=data, verbose=False)
        trainer.validate(module, datamodule=data, verbose=False)
        judged = {f"test/{row.metric}": row.value for row in scoring.rows if row.on_task is None}
        own = {name: value for name, value in values.items() if name in judged}
        assert len(own) == 3 and own == pytest.approx(judged, rel=1e-6)
        assert {name: float(trainer.callback_metrics[name.replace("test", "val")]) for name in own} == own
        found.append(values)
    assert found[0] == found[1]
    assert module.images_evaluated == 41


def test_a_mean_over_no_images_is_no_number_and_names_may_come_and_go():
    means = Means()
    means.note({"a": torch.tensor(3.0)}, 2)
    means.note({"a": torch.tensor(6.0), "b": torch.tensor(1.0)}, torch.tensor(1))
    means.note({"c": torch.tensor(0.0)}, 0)
    latest = means.latest(torch.device("cpu"))
    assert (latest["a"], latest["b"]) == (4.0, 1.0) and math.isnan(latest["c"]) and means.images == 3
    assert means.latest(torch.device("cpu")) == {} and means.all()["a"] == 4.0
