"""A stream of symbols through the loaders, the phases, the scores and a resume that images go through."""

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn
from toys import CopyingCheckpoints, make_trainer

from datamodules.base import StreamDataModule
from datamodules.dataset import LabelledItems
from datamodules.tasks import ClassSplit
from lit_gen.core.batch import Batch, SequenceSpec
from lit_gen.core.module import LitModel
from lit_gen.core.random import generator
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import InputError

SPEC = SequenceSpec(length=6, vocabulary=5, num_classes=2)


@dataclass(kw_only=True, eq=False, repr=False)
class Walks(StreamDataModule):
    """Every class counts up from a random symbol, by 1 or by 2."""

    spec: SequenceSpec = SPEC
    symbols: int = 5

    def read(self, split: Literal["train", "test"]) -> LabelledItems:
        count = {"train": 80, "test": 21}[split]
        label = torch.arange(count) % 2
        start = torch.randint(5, (count, 1), generator=generator(self.seed, split == "test"))
        item = (start + (label[:, None] + 1) * torch.arange(6)) % self.symbols
        return LabelledItems(item, label, label)


class NextSymbol(LitModel):
    """A table of logits, as an embedding and a linear map."""

    def __init__(self):
        super().__init__(spec=SPEC, optimizer=functools.partial(torch.optim.Adam, lr=0.05))
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Embedding(5, 8), nn.Dropout(0.1), nn.Linear(8, 5))

    def step(self, batch, progress):
        assert batch.item.dtype == torch.int64
        logits = self.net(batch.item[:, :-1])
        return {"loss": nn.functional.cross_entropy(logits.transpose(1, 2), batch.item[:, 1:])}


def walks(num_tasks=2, **settings):
    return Walks(split=ClassSplit(num_tasks), num_tasks=num_tasks, batch_size=8, **settings)


def test_symbols_reach_a_model_as_they_are_read():
    data = walks()
    assert [task.num_images for task in data.tasks] == [40, 40]
    truth = data.dataset("train")[np.arange(80)]
    data.current_task = 1
    for batch in data.train_dataloader():
        ready = data.on_after_batch_transfer(batch.to("cpu"), 0)
        assert ready.item.equal(truth.item[batch.index]) and ready.size == len(batch.index) == 8
        assert batch.label.unique().tolist() == [1]
    assert SPEC.shape == (6,)


def run(folder, ckpt_path=None):
    torch.manual_seed(0)
    model, saver, data = NextSymbol(), CopyingCheckpoints(folder, every_seconds=0.0), walks()
    trainer, scores = make_trainer(saver, max_epochs=8), []

    def after_task(task):
        scores.append(trainer.test(model, datamodule=data, verbose=False)[0]["test/loss"])
        saver.save(trainer, task)

    fit_stages(trainer, model, data, ckpt_path, after_task)
    return model, scores


def test_two_tasks_of_sequences_are_learnt_scored_and_resumed_to_the_same_bits(tmp_path):
    whole, scores = run(tmp_path / "whole")
    assert scores[0] < 0.3 < 1 < scores[1], "one way to count is learnt, and forgotten for the other"
    for number in (3, 10):
        resumed, again = run(tmp_path / f"{number}", tmp_path / "whole" / f"copy-{number:02d}.ckpt")
        assert again == scores[-len(again) :]
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"spec": SPEC._replace(length=7)}, r"of 6 where data\.spec\.length asks for 7 symbols"),
        ({"symbols": 6}, r"symbols from 0 to 5 where data\.spec\.vocabulary=5"),
        ({"spec": SPEC._replace(vocabulary=0)}, "spec.vocabulary=0: input should be greater than 0"),
        ({"spec": SPEC._replace(num_classes=1)}, "labels need 2"),
    ],
)
def test_sequences_that_do_not_fit_their_spec_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        walks(num_tasks=1, **settings).setup()


def test_a_batch_of_symbols_stays_one_when_moved_and_cut():
    batch = Batch(torch.zeros(4, 6, dtype=torch.int64), *torch.zeros(3, 4, dtype=torch.int64))
    assert batch.ready().item is batch.item and batch.map(lambda part: part[:2]).size == 2
    assert all(part.device.type == "meta" for part in batch.to("meta"))
