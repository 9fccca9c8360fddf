"""Summaries of a task matrix against numbers worked out by hand."""

import math

import pytest
import torch

from lit_gen.metrics import task_matrix
from lit_gen.metrics.task_matrix import Mean, forward_transfer

N = math.nan
ACCURACY = torch.tensor([[0.9, N, N], [0.95, 0.8, N], [0.5, 0.85, 0.7]])
DISTANCE = torch.tensor([[10.0, N, N], [8.0, 20.0, N], [18.0, 15.0, 5.0]])


def final_mean(matrix):
    return task_matrix.final_mean(matrix).value


def forgetting(matrix, lower_is_better):
    return task_matrix.forgetting(matrix, lower_is_better).value


def backward_transfer(matrix, lower_is_better):
    return task_matrix.backward_transfer(matrix, lower_is_better).value


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


def test_a_mean_says_over_how_many_tasks_it_is():
    matrix = DISTANCE.clone()
    matrix[2, 1] = N
    assert task_matrix.final_mean(matrix) == Mean(pytest.approx(11.5), 2, 3)
    assert task_matrix.forgetting(matrix, True) == Mean(10.0, 1, 2)
    assert task_matrix.backward_transfer(matrix, True) == Mean(-8.0, 1, 2)
    assert task_matrix.final_mean(matrix).in_words("11.5") == "11.5 over 2 of 3 tasks"
    matrix[2] = N  # measured, and all of it broken: not the row before
    assert math.isnan(task_matrix.final_mean(matrix, last=2).value)
    assert task_matrix.forgetting(matrix, True, last=2)[1:] == (0, 2)


def test_scores_of_tasks_to_come_count_in_the_forward_transfer_alone():
    zero_shot = torch.tensor([[0.9, 0.4, 0.99], [0.95, 0.8, 0.3], [0.5, 0.85, 0.7]])
    floor = torch.tensor([0.1, 0.5, 0.25])
    for lower, sign in ((False, 1), (True, -1)):
        gains = [sign * (0.4 - 0.5), sign * (0.3 - 0.25)]
        assert forward_transfer(zero_shot, floor, lower) == Mean(pytest.approx(sum(gains) / 2), 2, 2)
        # After the first task of three only the next one is known.
        assert forward_transfer(zero_shot, floor, lower, last=0) == Mean(pytest.approx(gains[0]), 1, 1)
        for last in (1, 2):
            for change in (task_matrix.forgetting, task_matrix.backward_transfer):
                assert change(zero_shot, lower, last) == change(ACCURACY, lower, last)
    assert task_matrix.final_mean(zero_shot, 1) == Mean(pytest.approx((0.95 + 0.8) / 2), 2, 2)
    floor[1] = N
    assert forward_transfer(zero_shot, floor, False) == Mean(pytest.approx(0.05), 1, 2)
    for nothing in (ACCURACY, ACCURACY[:1, :1], torch.full((2, 2), N)):
        assert forward_transfer(nothing, floor, False)[1:] == (0, 0)


def test_one_task_has_a_mean_and_nothing_else():
    one = torch.tensor([[3.0]])
    assert final_mean(one) == 3
    assert math.isnan(forgetting(one, True)) and math.isnan(backward_transfer(one, True))
    assert math.isnan(final_mean(torch.full((2, 2), N)))


def test_a_matrix_is_square():
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        final_mean(torch.zeros(2, 3))
