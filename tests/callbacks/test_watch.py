"""Gradient norms in closed form, a stop before a bad checkpoint."""

import functools
import math

import pandas as pd
import pytest
import torch
from torch import nn
from toys import SPEC, CopyingCheckpoints, make_data, make_trainer

from callbacks.stability import Stability
from lit_gen.core.module import LitGenerator
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import Diverged, Phase, Turn
from lit_gen.tracking.metrics_file import MetricsFile


class Duel(LitGenerator):
    """Two linear losses with gradients (3, 4) and (-12, 5); one of them is no number from a batch on."""

    def __init__(self, bad_from=math.inf, value=math.nan, poison_weight=False):
        super().__init__(spec=SPEC, optimizer=functools.partial(torch.optim.SGD, lr=0.0))
        self.critic, self.generator = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
        self.bad_from, self.value, self.poison_weight, self.seen = bad_from, value, poison_weight, 0

    def phases(self, task):
        critic = Turn("critic", self.critic_loss, (self.critic,))
        generator = Turn("generator", self.generator_loss, (self.generator,), every=3)
        return (Phase("train", (critic, generator), 2),)

    def critic_loss(self, batch, progress):
        self.seen += 1
        loss = self.critic(torch.tensor([3.0, 4.0])).sum()
        return {"loss": loss * self.value if self.seen >= self.bad_from else loss}

    def generator_loss(self, batch, progress):
        if self.poison_weight:
            self.generator.weight.data[0, 1] = math.inf
        return {"loss": self.generator(torch.tensor([-12.0, 5.0])).sum().nan_to_num(posinf=0.0)}

    def evaluate(self, batch):
        return {}


def test_gradient_norms_of_both_turns_are_logged(tmp_path):
    trainer = make_trainer(Stability(), logger=MetricsFile(tmp_path), log_every_n_steps=2)
    fit_stages(trainer, Duel(), make_data(num_tasks=1))
    rows = pd.read_csv(tmp_path / "metrics.csv")
    rows = rows[rows.metric.str.contains("gradient_norm")].round(5)
    found = dict(rows.groupby("metric").value.unique().map(list))
    assert found == {"train/gradient_norm/critic": [5.0], "train/gradient_norm/generator": [13.0]}


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e12])
def test_a_loss_that_leaves_the_numbers_stops_the_run_at_its_batch(tmp_path, value):
    data = make_data(num_tasks=1)
    batches = len(data.train_dataloader())
    saver = CopyingCheckpoints(tmp_path / "run" / "checkpoints", every_seconds=0)
    model = Duel(bad_from=batches + 2, value=value)
    # A log at the end of the epoch only.
    trainer = make_trainer(Stability(), saver, log_every_n_steps=10_000)
    with torch.no_grad():
        model.critic.weight.fill_(1.0)
    with pytest.raises(Diverged, match=rf"critic/loss is .*epoch 2, batch {batches + 2} of the run") as stop:
        fit_stages(trainer, model, data)
    assert str(tmp_path / "run" / "checkpoints" / "last.ckpt") in str(stop.value)
    kept = torch.load(saver.place / "last.ckpt", weights_only=True)
    assert kept["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] == 1  # of the good epoch


def test_a_bad_weight_is_found_before_it_is_saved(tmp_path):
    saver = CopyingCheckpoints(tmp_path / "checkpoints", every_seconds=0)
    with pytest.raises(Diverged, match=r"generator.weight is not finite.*No checkpoint had been written"):
        fit_stages(make_trainer(Stability(), saver), Duel(poison_weight=True), make_data(num_tasks=1))
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_impossible_limits_are_refused():
    with pytest.raises(ValueError, match="limit"):
        Stability(limit=0)
