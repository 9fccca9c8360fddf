"""What is made of rows: published figures beside ours, heat maps, warnings of mode collapse."""

from __future__ import annotations

import pytest

from lit_gen.core.types import InputError
from lit_gen.evaluation.board import Board, Row
from lit_gen.evaluation.reports import ModeCollapse, beside_published, check_published, matrix_picture


def row(on_task, metric, value, extractor="lenet", split="test"):
    return Row(on_task, metric, value, extractor, "0" * 12, split, 10, 10, 0)


ROWS = [
    row(0, "fid", 20.0),
    row(1, "fid", 30.0),
    row(None, "fid", 99.0),  # over all tasks together
    row(1, "fid", 7.0, split="val"),
    row(0, "fid", 50.0, "inception"),
    row(0, "prd_recall", 0.5),
    row(1, "prd_recall", 0.7),
]
PUBLISHED = {"fid": 24, "prd_recall": 97, "prd_precision": 94, "source": "somewhere"}


def test_figures_are_means_over_tasks_and_shares_are_percent():
    lines = beside_published(ROWS, PUBLISHED).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["fid", "24", "25.0", "lenet"],
        ["fid", "24", "50.0", "inception"],
        ["prd_recall", "97", "60.0", "lenet"],
        ["prd_precision", "94", "-", "-"],
        ["published:", "somewhere"],
    ]
    table = beside_published([row(None, "fid", 99.0)], {"fid": 24}, single_task=True)
    assert table.splitlines()[1].split() == ["fid", "24", "99.0", "lenet"]
    with pytest.raises(InputError, match=r"published\.fid='low'"):
        check_published({"fid": "low"})


def test_heat_maps_are_drawn_of_what_has_numbers_per_task():
    board = Board()
    board.put(0, [row(None, "fid", 3.0), row(0, "nll", 1.0)], 1, {"fid": "lower"})
    assert matrix_picture(board) is None
    board.put(0, ROWS[:1], 1, {"fid": "lower"})
    one = matrix_picture(board)
    board.put(0, [*ROWS[:1], row(0, "accuracy", 0.5, "")], 1, {"fid": "lower", "accuracy": "higher"})
    two = matrix_picture(board)
    assert one.shape[2] == 3 and two.shape[1] == 2 * one.shape[1]


LOW, FINE = {"recall": 0.02, "precision": 0.8}, {"recall": 0.5, "precision": 0.8}


def said(watch, *passes):
    return [watch.look([row(None, name, v) for name, v in values.items()]) for values in passes]


def test_low_recall_is_suspicious_at_two_scorings_running():
    watch = ModeCollapse()
    assert said(watch, LOW, FINE, LOW, LOW) == [
        *("", "", ""),
        "recall 0.02 with precision 0.80, at 2 scorings running",
    ]
    after = ModeCollapse()
    after.suspicions = watch.suspicions
    assert "at 3 scorings running" in said(after, LOW)[0]


def test_few_classes_are_named_at_once():
    passes = (
        {"class_coverage": 0.4},
        {"class_coverage": 0.0},
        {"class_coverage": 0.5},
        {"class_coverage": float("nan")},
    )
    words = ["images of 40% of the classes", "images of 0% of the classes", "", ""]
    assert said(ModeCollapse(), *passes) == words
