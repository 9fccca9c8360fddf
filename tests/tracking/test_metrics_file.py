"""metrics.csv: complete, in order, whole after a kill, and without what a resume logs again."""

import csv
import time

import pytest

from lit_gen.core.files import CannotWrite
from lit_gen.tracking.metrics_file import MetricsFile, read_metrics


def rows(path):
    with path.open(newline="") as file:
        return [tuple(row.values()) for row in csv.DictReader(file)]


def test_values_come_back_bit_by_bit(tmp_path):
    values = [1 / 3, 1e-300, float("inf"), 12345678.123456789]
    logger = MetricsFile(tmp_path)
    for step, value in enumerate(values):
        logger.log_metrics({"train/loss": value, "epoch": step // 2}, step)
    logger.finalize("success")
    assert rows(tmp_path / "metrics.csv") == [
        (str(i), str(i // 2), "train/loss", repr(v)) for i, v in enumerate(values)
    ]
    assert [float(row[3]) for row in rows(tmp_path / "metrics.csv")] == values


def test_rows_without_an_epoch_get_the_current_one(tmp_path):
    logger = MetricsFile(tmp_path)
    logger.log_metrics({"a": 1}, 0)
    logger.epoch = lambda: 7
    logger.log_metrics({"a": 2}, 1)
    logger.flush()
    assert [row[1] for row in rows(logger.path)] == ["", "7"]


def test_half_a_line_of_a_killed_run_is_cut_off(tmp_path):
    first = MetricsFile(tmp_path)
    for step in range(3):
        first.log_metrics({"loss": step}, step)
    first.flush()
    whole = first.path.read_bytes()
    first.path.write_bytes(whole + b"3,0,lo")
    second = MetricsFile(tmp_path)
    assert second.rows == 3
    second.log_metrics({"loss": 3}, 3)
    second.flush()
    assert second.path.read_bytes() == whole + b"3,,loss,3.0\n"


def test_a_resumed_file_equals_that_of_the_uninterrupted_run(tmp_path):
    def log(logger, steps):
        for step in steps:
            logger.log_metrics({"train/loss": 1 / (step + 1)}, step)

    whole = MetricsFile(tmp_path / "whole")
    log(whole, range(10))
    whole.flush()
    killed = MetricsFile(tmp_path / "killed")
    log(killed, range(5))
    saved = killed.rows
    log(killed, range(5, 8))
    killed.flush()
    resumed = MetricsFile(tmp_path / "killed")
    assert resumed.keep_first(saved) == [(step, "train/loss", 1 / (step + 1)) for step in range(5)]
    assert resumed.rows == 5
    log(resumed, range(5, 10))
    resumed.flush()
    assert resumed.path.read_bytes() == whole.path.read_bytes()


def test_a_call_costs_microseconds(tmp_path):
    logger = MetricsFile(tmp_path, flush_seconds=60)
    logger.log_metrics({"a": 1.0}, 0)  # makes the file
    start = time.perf_counter()
    for step in range(1000):
        logger.log_metrics({"train/loss": 1.0, "train/kl": 2.0}, step)
    assert (time.perf_counter() - start) / 1000 < 1e-4


def test_a_full_disk_leaves_no_half_row_and_nothing_is_lost(tmp_path):
    resource = pytest.importorskip("resource")
    file = MetricsFile(tmp_path, flush_seconds=1e9)
    file.log_metrics({"a": 1.0}, 0)
    file.flush()
    before = (tmp_path / "metrics.csv").read_bytes()
    file.log_metrics({"a": 2.0, "b": 3.0}, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, limits[1]))
    try:
        with pytest.raises(CannotWrite, match=r"metrics\.csv: cannot be written"):
            file.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "metrics.csv").read_bytes() == before and file.rows == 3
    file.flush()
    assert [row[0::2] for row in read_metrics(tmp_path / "metrics.csv")] == [(0, "a"), (1, "a"), (1, "b")]
