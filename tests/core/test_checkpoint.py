"""Damaged, foreign and old checkpoints, told apart in words."""

from __future__ import annotations

import logging
import shutil
from types import SimpleNamespace

import pytest
import torch

from callbacks.checkpoints import RunCheckpoints
from lit_gen.core.checkpoint import CHECKPOINT_KEY, FORMAT, has_checkpoint, load_weights, read, read_newest
from lit_gen.core.types import InputError


def write(path, **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    net = torch.nn.Linear(200, 20)
    record = {"format": FORMAT, "version": "0.1.0", "config": {"seed": 0}}
    torch.save({"state_dict": net.state_dict(), CHECKPOINT_KEY: record} | changes, path)
    return net


def test_a_checkpoint_gives_back_config_and_weights(tmp_path):
    net = write(tmp_path / "last.ckpt")
    stored = read(tmp_path / "last.ckpt")
    assert stored.config == {"seed": 0}
    other = torch.nn.Linear(200, 20)
    load_weights(other, stored)
    assert torch.equal(other.weight, net.weight)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.ckpt.*no such file"):
        read(tmp_path / "nothing.ckpt")


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_named(tmp_path, part):
    file = tmp_path / "last.ckpt"
    write(file)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(InputError, match=r"last\.ckpt.*truncated"):
        read(file)


def test_zeroed_bytes_anywhere_are_refused_or_change_nothing(tmp_path):
    file = tmp_path / "last.ckpt"
    write(file)
    content, weights = file.read_bytes(), read(file).state["state_dict"]
    refused, count = 0, 0
    for start in range(0, len(content), 96):
        file.write_bytes(content[:start] + bytes(64) + content[start + 64 :])
        count += 1
        try:
            now = read(file)
        except InputError:
            refused += 1
            continue
        assert now.config == {"seed": 0}
        assert all(torch.equal(now.state["state_dict"][name], value) for name, value in weights.items())
    assert refused > 0.9 * count
    file.write_bytes(content[:4096] + bytes(64) + content[4160:])
    with pytest.raises(InputError, match=r"checksum of last/data/0 is wrong"):
        read(file)


def test_the_newest_task_is_taken_by_its_place_where_no_other_is_left(tmp_path, caplog):
    folder = tmp_path / "checkpoints"
    for number in (2, 10, 9):  # the last one written is not the newest
        write(folder / f"task-{number}.ckpt", callbacks={"RunRecord": {"metric_rows": number}})
    write(folder / "previous.ckpt", callbacks={"RunRecord": {"metric_rows": 5}})
    assert read_newest(tmp_path).path.name == "task-10.ckpt"  # of all, where the last one is gone
    (folder / "last.ckpt").write_bytes(b"")
    assert read_newest(tmp_path).path.name == "previous.ckpt"  # the one before, where it is damaged
    (folder / "previous.ckpt").unlink()
    caplog.clear()
    assert has_checkpoint(tmp_path) and read_newest(tmp_path).path.name == "task-10.ckpt"
    assert "last.ckpt: cannot be read" in caplog.text and "going on from" in caplog.text
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"(?s)last\.ckpt.*task-10\.ckpt"):
        read_newest(tmp_path)
    shutil.rmtree(folder)
    write(folder / "mine.ckpt")
    (folder / "writing.ckpt").touch()
    assert has_checkpoint(tmp_path)  # so that no run begins again over it
    with pytest.raises(InputError, match=r"there: mine\.ckpt"):
        read_newest(tmp_path)
    (folder / "mine.ckpt").unlink()
    assert not has_checkpoint(tmp_path)


def test_a_damaged_last_one_never_takes_the_place_of_a_good_one(tmp_path):
    folder = tmp_path / "checkpoints"
    write(folder / "previous.ckpt")
    good = (folder / "previous.ckpt").read_bytes()
    (folder / "last.ckpt").write_bytes(good[:2000])
    trainer = SimpleNamespace(default_root_dir=tmp_path, is_global_zero=True, save_checkpoint=write)
    saver = RunCheckpoints()
    saver.save(trainer)
    assert (folder / "previous.ckpt").read_bytes() == good
    first = (folder / "last.ckpt").read_bytes()
    saver.save(trainer)
    assert (folder / "previous.ckpt").read_bytes() == first


def test_a_file_that_would_run_code_is_not_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("code was run",))

    torch.save({"state_dict": Bomb()}, tmp_path / "bomb.ckpt")
    with pytest.raises(InputError, match=r"bomb\.ckpt"):
        read(tmp_path / "bomb.ckpt")


def test_other_programs_checkpoints_and_other_formats_are_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="not written by lit-gen"):
        read(tmp_path / "other.ckpt")
    write(tmp_path / "old.ckpt", **{CHECKPOINT_KEY: {"format": 0, "version": "0.0.1", "config": {}}})
    with pytest.raises(InputError, match=r"format 0, written by lit-gen 0\.0\.1"):
        read(tmp_path / "old.ckpt")


def test_a_damaged_newest_one_falls_back_to_the_one_before_and_says_so(tmp_path, caplog):
    folder = tmp_path / "checkpoints"
    write(folder / "previous.ckpt")
    write(folder / "last.ckpt")
    content = (folder / "last.ckpt").read_bytes()
    (folder / "last.ckpt").write_bytes(content[: len(content) // 2])
    with caplog.at_level(logging.WARNING):
        stored = read_newest(tmp_path)
    assert stored.path.name == "previous.ckpt"
    assert "last.ckpt: cannot be read (File is not a zip file); going on from" in caplog.text
    (folder / "previous.ckpt").unlink()
    with pytest.raises(InputError, match=r"last\.ckpt"):
        read_newest(tmp_path)


def test_an_empty_folder_says_what_is_missing(tmp_path):
    with pytest.raises(InputError, match="holds no checkpoint"):
        read(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path):
    write(tmp_path / "last.ckpt")
    with pytest.raises(InputError, match="do not fit Linear"):
        load_weights(torch.nn.Linear(3, 3), read(tmp_path / "last.ckpt"))
