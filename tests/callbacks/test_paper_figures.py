"""The table of published figures beside ours."""

from __future__ import annotations

import pytest
from lightning import Callback
from toys import ToyGenerator, make_data, make_trainer

from callbacks.paper_figures import PaperFigures
from lit_gen.core.types import InputError
from lit_gen.evaluation.scores import Score


def score(on_task, metric, value, extractor="lenet", split="test"):
    return Score(on_task, metric, value, extractor, "0" * 12, split, 10, 10, 0)


SCORES = [
    score(0, "fid", 20.0),
    score(1, "fid", 30.0),
    score(None, "fid", 99.0),  # over all tasks together
    score(1, "fid", 7.0, split="val"),
    score(0, "fid", 50.0, "inception"),
    score(0, "prd_recall", 0.5),
    score(1, "prd_recall", 0.7),
]
PUBLISHED = {"fid": 24, "prd_recall": 97, "prd_precision": 94, "source": "somewhere"}


class Reports(Callback):
    scores = SCORES


def test_figures_are_means_over_tasks_and_shares_are_percent():
    lines = PaperFigures("unused", PUBLISHED).table(SCORES).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["fid", "24", "25.0", "lenet"],
        ["fid", "24", "50.0", "inception"],
        ["prd_recall", "97", "60.0", "lenet"],
        ["prd_precision", "94", "-", "-"],
        ["published:", "somewhere"],
    ]


def test_with_a_single_task_the_figures_are_those_of_all_tasks_together():
    table = PaperFigures("unused", {"fid": 24}).table([score(None, "fid", 99.0)], single_task=True)
    assert table.splitlines()[1].split() == ["fid", "24", "99.0", "lenet"]


def test_the_table_is_written_after_the_last_task_only(tmp_path):
    data, trainer = make_data(num_tasks=2), make_trainer(Reports(), PaperFigures(tmp_path, PUBLISHED))
    for task, is_last in ((0, False), (1, True)):
        data.current_task = task
        trainer.test(ToyGenerator(), datamodule=data, verbose=False)
        assert (tmp_path / "paper.txt").exists() == is_last


def test_nothing_published_is_no_table(tmp_path):
    trainer = make_trainer(Reports(), PaperFigures(tmp_path, None))
    trainer.test(ToyGenerator(), datamodule=make_data(num_tasks=1), verbose=False)
    assert not list(tmp_path.iterdir())


def test_a_figure_that_is_no_number_is_refused():
    with pytest.raises(InputError, match=r"published\.fid='low'"):
        PaperFigures("unused", {"fid": "low"})
