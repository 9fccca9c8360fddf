"""The board: matrices and files that hold what was measured, to the last bit."""

import csv
import io
import math

import pytest
import torch

from lit_gen.evaluation.board import Board, Row
from lit_gen.evaluation.tables import as_csv, as_markdown, as_text, short
from lit_gen.metrics.classes import ClassHistogram
from lit_gen.metrics.kernel import KernelDistance
from lit_gen.metrics.neighbours import Neighbours

NAN = math.nan
BETTER = {"fid": "lower", "recall": "higher", "kid_std": ""}


def value(metric, after, task):
    column = -1 if task is None else task
    numbers = {"fid": 10 * after + column + 1 / 3, "recall": 1 / (2 + after - column), "floor_fid": 0.1}
    return numbers.get(metric, 1.0)


def rows_after(after, metrics=("fid", "recall", "floor_fid", "kid_std")):
    return [
        Row(task, metric, value(metric, after, task), "lenet", "0" * 12, "test", 100, 100, 0)
        for metric in metrics
        for task in (*range(after + 1), None)
    ]


def board(*after, num_tasks=3):
    made = Board()
    for task in after:
        made.put(task, rows_after(task), num_tasks, BETTER)
    return made


def test_matrix_summary_and_csv_hold_what_was_put():
    made = board(2, 0, 1)  # in any order
    expected = [[value("fid", i, j) if j <= i else -1 for j in range(3)] for i in range(3)]
    matrix = made.matrix("fid", "lenet").nan_to_num(-1)
    assert matrix.equal(torch.tensor(expected, dtype=torch.float64))
    lines = list(csv.DictReader(io.StringIO(made.csv())))
    assert tuple(lines[0])[:4] == ("after_task", "on_task", "metric", "value")
    assert len(lines) == 4 * (2 + 3 + 4)
    for line in lines:
        on_task = None if line["on_task"] == "all" else int(line["on_task"])
        assert line["value"] == repr(float(value(line["metric"], int(line["after_task"]), on_task)))
    summary = made.summary()
    assert set(summary) == {"fid/lenet", "recall/lenet", "kid_std/lenet"}
    assert summary["fid/lenet"].mean == pytest.approx(21 + 1 / 3)
    assert summary["fid/lenet"].forgetting == pytest.approx((20 + 10) / 2)
    assert summary["fid/lenet"].all == value("fid", 2, None)
    assert summary["recall/lenet"].forgetting > 0
    assert summary["kid_std/lenet"].mean == 1 and math.isnan(summary["kid_std/lenet"].forgetting)


def test_state_survives_a_safe_load_and_a_repeated_row_changes_nothing(tmp_path):
    made, other = board(0, 1), Board()
    torch.save(made.state(), tmp_path / "state.pt")
    other.load(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.rows == made.rows and other.better == made.better
    other.put(1, rows_after(1), 3, BETTER)
    assert other.csv() == made.csv()


def test_no_number_is_called_nan_in_the_file_and_empty_words_stay_empty():
    made = Board()
    made.put(0, [Row(None, "nll", NAN, "", "", "test", 5, 0, 3)], 1, {"nll": "lower"})
    assert made.csv().splitlines()[1] == "0,all,nll,nan,,,test,5,0,3,lower"


def test_joint_training_has_one_row():
    made = board(2)
    matrix = made.matrix("fid", "lenet")
    assert matrix[:2].isnan().all() and matrix[2].tolist() == [value("fid", 2, j) for j in range(3)]
    assert made.summary()["fid/lenet"].mean == pytest.approx(21 + 1 / 3)
    assert "after 2" in made.table() and "after 0" not in made.table()


def test_the_table_shows_matrices_with_their_floor_and_single_scores_in_lines():
    made = Board()
    matrix = [[10.25, NAN, NAN], [30.0, 8.04, NAN], [250.0, 16.0, 4.0]]
    for after, line in enumerate(matrix):
        rows = [Row(t, "fid", v, "lenet", "", "test", 1, 1, 0) for t, v in enumerate(line[: after + 1])]
        rows += [Row(t, "floor_fid", 0.5, "lenet", "", "test", 1, 1, 0) for t in range(after + 1)]
        made.put(
            after, [*rows, Row(None, "nll", 97.53, "", "", "test", 1, 0, 0)], 3, BETTER | {"nll": "lower"}
        )
    assert made.table().splitlines() == [
        "fid (lenet), lower is better",
        "         task 0  task 1  task 2",
        "after 0    10.2       -       -",
        "after 1      30    8.04       -",
        "after 2     250      16       4",
        "floor     0.500   0.500   0.500",
        "mean 90, forgetting 124, backward transfer -124",
        "",
        "score  value  better",
        "nll     97.5  lower",
    ]
    assert Board().table() == ""


def test_scores_that_came_out_as_nan_stay_visible():
    made = Board()
    for after, line in enumerate([[10.0], [20.0, NAN], [NAN, NAN, NAN]]):
        rows = [Row(t, "fid", v, "lenet", "", "test", 1, 1, 0) for t, v in enumerate(line)]
        made.put(after, [*rows, Row(None, "nll", NAN, "", "", "test", 1, 0, 0)], 3, BETTER)
        if after == 1:
            summary = made.summary()["fid/lenet"]
            assert (summary.mean, summary.mean_over, summary.forgetting) == (20, 1, 10)
            assert made.table().splitlines()[3:5] == [
                "after 1      20     nan       -",
                "mean 20 over 1 of 2 tasks, forgetting 10, backward transfer -10",
            ]
    summary = made.summary()["fid/lenet"]
    assert math.isnan(summary.mean) and summary.mean_over == 0 and math.isnan(summary.forgetting)
    lines = made.table().splitlines()
    assert lines[4:6] == [
        "after 2     nan     nan     nan",
        "mean - over 0 of 3 tasks, forgetting - over 0 of 2 tasks, backward transfer - over 0 of 2 tasks",
    ]
    assert lines[-1].split()[:2] == ["nll", "nan"]


def test_forgetting_has_the_sign_of_what_is_good_and_none_where_nothing_is():
    made = Board()
    for after in range(2):
        rows = [
            Row(task, metric, 1.0 + after, "lenet", "", "test", 1, 1, 0)
            for metric in ("class_kl", "recall", "kid_std")
            for task in range(after + 1)
        ]
        made.put(after, rows, 2, ClassHistogram.names | KernelDistance.names | Neighbours.names)
    summary = made.summary()
    assert (summary["class_kl/lenet"].forgetting, summary["class_kl/lenet"].backward_transfer) == (1, -1)
    assert (summary["recall/lenet"].forgetting, summary["recall/lenet"].backward_transfer) == (-1, 1)
    assert math.isnan(summary["kid_std/lenet"].forgetting) and summary["kid_std/lenet"].forgetting_over == 0


def test_tables_have_every_column_of_every_line():
    lines = [{"way": "a", "n": 3, "mse": 1 / 3}, {"way": "bb", "psnr": 12.5}]
    assert as_text(lines).splitlines() == [
        "way  n     mse  psnr",
        "a    3  0.3333     -",
        "bb   -       -  12.5",
    ]
    assert as_csv(lines) == f"way,n,mse,psnr\na,3,{1 / 3!r},\nbb,,,12.5\n"
    assert as_markdown([{"a": "x", "b": 1}]) == "| a | b |\n|---|---|\n| x | 1 |"
    numbers = [
        (0.0123456, "0.0123"),
        (0.5, "0.500"),
        (12.345, "12.3"),
        (12345.6, "12,346"),
        (3, "3"),
        (NAN, "-"),
    ]
    assert [short(number) for number, _ in numbers] == [text for _, text in numbers]
