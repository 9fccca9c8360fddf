"""LocalQuality: samples from before consolidation, with the noise and the real images of SampleQuality."""

from __future__ import annotations

import pytest
import torch
from multiband_gan_toys import make_multiband_gan
from multiband_toys import make_multiband
from quality_toys import Flat, ToyModel, context_of
from toys import make_data

from lit_gen.core.types import InputError
from lit_gen.evaluation.board import Board
from lit_gen.evaluation.judges.local import LocalQuality
from lit_gen.evaluation.judges.quality import SampleQuality
from lit_gen.metrics.frechet import FrechetDistance


def scores(model, task):
    """(after consolidation, before it), both of this task, the newest one."""
    data = make_data(num_tasks=2)
    data.current_task = task
    judges = (
        SampleQuality(Flat(), [FrechetDistance], per_task=True),
        LocalQuality(Flat(), [FrechetDistance]),
    )
    model.tasks_seen.fill_(task + 1)
    return [judge.rows(context_of(model, data), "test") for judge in judges]


@pytest.mark.parametrize("make", [make_multiband, make_multiband_gan])
def test_local_scores_are_those_of_samples_where_the_local_model_is_the_global_one(make):
    model = make(num_tasks=2)
    whole, (local,) = scores(model, 1)
    assert (local.metric, local.on_task, local.split) == ("local_fid", 1, "test")
    same = {(row.on_task, row.metric): row for row in whole}[1, "fid"]
    assert local._replace(metric="fid") == same and local.value > 0
    with torch.no_grad():
        for parameter in model.local.parameters():
            parameter.mul_(0.5)
    again, (moved,) = scores(model, 1)
    assert again == whole and moved.value != local.value


def test_the_board_shows_local_scores_in_a_line_and_gives_them_no_mean():
    model, board = make_multiband(num_tasks=2), Board()
    for task in (0, 1):
        quality, local = scores(model, task)
        board.put(task, quality + local, 2, {"fid": "lower"})
    assert list(board.summary()) == ["fid/flat"]
    assert [line.split()[0] for line in board.table().splitlines() if line.startswith("local")] == ["local"]


def test_models_without_a_local_one_are_refused():
    with pytest.raises(InputError, match=r"ToyModel has no local model.*model=multiband.*judges=local"):
        LocalQuality(Flat(), [FrechetDistance]).check(context_of(ToyModel({"task"})))
