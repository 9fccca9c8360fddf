"""Summaries of a task matrix against numbers worked out by hand."""

import math

import pytest
import torch

from lit_gen.metrics.task_matrix import backward_transfer, final_mean, forgetting

N = math.nan
ACCURACY = torch.tensor([[0.9, N, N], [0.95, 0.8, N], [0.5, 0.85, 0.7]])
DISTANCE = torch.tensor([[10.0, N, N], [8.0, 20.0, N], [18.0, 15.0, 5.0]])


def test_higher_is_better():
    assert final_mean(ACCURACY) == pytest.approx((0.5 + 0.85 + 0.7) / 3)
    assert forgetting(ACCURACY, lower_is_better=False) == pytest.approx(((0.95 - 0.5) + (0.8 - 0.85)) / 2)
    assert backward_transfer(ACCURACY, lower_is_better=False) == pytest.approx(((0.5 - 0.9) + 0.05) / 2)


def test_lower_is_better():
    assert final_mean(DISTANCE) == pytest.approx(38 / 3)
    assert forgetting(DISTANCE, lower_is_better=True) == pytest.approx(((18 - 8) + (15 - 20)) / 2)
    assert backward_transfer(DISTANCE, lower_is_better=True) == pytest.approx(((10 - 18) + (20 - 15)) / 2)


def test_an_unfinished_run_is_judged_by_its_last_row():
    padded = torch.full((5, 5), N)
    padded[:3, :3] = DISTANCE
    assert final_mean(padded) == final_mean(DISTANCE)
    assert forgetting(padded, True) == forgetting(DISTANCE, True)
    assert backward_transfer(padded, True) == backward_transfer(DISTANCE, True)


def test_scores_that_are_missing_are_left_out():
    matrix = ACCURACY.clone()
    matrix[:2, 0] = N
    assert forgetting(matrix, lower_is_better=False) == pytest.approx(0.8 - 0.85)
    assert backward_transfer(matrix, lower_is_better=False) == pytest.approx(0.05)


def test_one_task_has_a_mean_and_nothing_else():
    one = torch.tensor([[3.0]])
    assert final_mean(one) == 3
    assert math.isnan(forgetting(one, True)) and math.isnan(backward_transfer(one, True))
    assert math.isnan(final_mean(torch.full((2, 2), N)))


def test_a_matrix_is_square():
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        final_mean(torch.zeros(2, 3))
