"""What is made of rows: published figures beside ours, heat maps, warnings of mode collapse."""

from __future__ import annotations

import pytest

from lit_gen.core.types import InputError
from lit_gen.evaluation.board import Board, Row
from lit_gen.evaluation.reports import ModeCollapse, beside_published, check_published, matrix_picture

HASH, OTHER = "0123456789ab", "ffffffffffff"


def row(on_task, metric, value, extractor="lenet", split="test", weights_hash=HASH):
    return Row(on_task, metric, value, extractor, weights_hash, split, 10, 10, 0)


ROWS = [
    row(0, "fid", 20.0),
    row(1, "fid", 30.0),
    row(None, "fid", 99.0),  # over all tasks together
    row(1, "fid", 7.0, split="val"),
    row(0, "fid", 50.0, "inception", weights_hash=OTHER),
    row(0, "prd_recall", 0.5),
    row(1, "prd_recall", 0.7),
]
PUBLISHED = {"fid": 24, "prd_recall": 97, "prd_precision": 94, "source": "somewhere", "extractor": HASH}


def cells(table):
    return [line.replace("|", " ").split() for line in table.splitlines()[1:]]


def test_figures_are_means_over_tasks_and_shares_are_percent():
    assert cells(beside_published(ROWS, PUBLISHED))[:4] == [
        ["fid", "24", "25.0", "lenet", f"({HASH})"],
        ["fid", "24", "50.0", "inception", f"({OTHER})"],
        ["prd_recall", "97", "60.0", "lenet", f"({HASH})"],
        ["prd_precision", "94", "-", "-"],
    ]
    table = beside_published([row(None, "fid", 99.0)], {"fid": 24, "extractor": HASH}, single_task=True)
    assert cells(table)[0] == ["fid", "24", "99.0", "lenet", f"({HASH})"]


@pytest.mark.parametrize("published", [HASH, OTHER, None], ids=["same", "other", "unknown"])
def test_ours_stands_beside_published_figures_of_the_same_weights_only(published):
    known = {} if published is None else {"extractor": published}
    table = beside_published(ROWS[:2], {"fid": 24, "source": "somewhere"} | known)
    head, line = table.splitlines()[:2]
    column = "ours" if published == HASH else "ours, not comparable"
    assert line[: head.index(column) + len(column)].endswith("25.0") or line[head.index(column) :].startswith(
        "25.0"
    )
    assert ("Not comparable: measured with another extractor" in table) == (published != HASH)
    assert "published: somewhere" in table


@pytest.mark.parametrize(
    ("key", "value"),
    [("fid", "low"), ("fid", True), ("fid", float("nan")), ("extractor", "lenet_mnist"), ("extractor", 123)],
)
def test_what_is_no_figure_and_no_hash_is_refused(key, value):
    with pytest.raises(InputError, match=rf"published\.{key}="):
        check_published({key: value})


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
