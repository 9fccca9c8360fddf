"""A run goes on with the data it began with, and a folder in which nothing was trained may be used again."""

from __future__ import annotations

import json
import shutil
import socket

import numpy as np
import pytest
import torch
from PIL import Image
from processes import locked_by_another
from test_runs import TINY, weights

import lit_gen
from lit_gen.__main__ import main

FOLDERS = [
    *(word for word in TINY if not word.startswith(("data", "stream", "model"))),
    *("data=image_folder", "data.spec={channels: 1, size: 8, num_classes: 2}", "data.batch_size=8"),
    *("model=vae", "model.latent_size=2", "trainer.max_epochs=2", "extractor=lenet_digits"),
]


def picture(file, seed) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)).save(file)


@pytest.fixture
def pictures(tmp_path):
    """A root with train/ and test/, two classes of eight and four pictures."""
    root = tmp_path / "pictures"
    for number in range(24):
        split = "train" if number < 16 else "test"
        picture(root / split / f"c{number % 2}" / f"{number:02d}.png", number)
    return root


@pytest.fixture
def stopped(tmp_path, pictures):
    """A run that has its first checkpoint, as a kill would leave it."""
    folder = tmp_path / "run"
    assert main(["train", *FOLDERS, f"data.root={pictures}", f"output_dir={folder}"]) == 0
    for name in ("summary.json", "checkpoints/task-0.ckpt", "checkpoints/last.ckpt"):
        (folder / name).unlink()
    return folder


def content(folder) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_run_whose_data_changed_is_refused_and_can_go_on_as_a_new_run(stopped, pictures, tmp_path, capsys):
    moved = shutil.copytree(pictures, tmp_path / "moved")
    for number in range(3):
        picture(pictures / "train" / "c0" / f"new{number}.png", 100 + number)
    picture(pictures / "test" / "c1" / "17.png", 200)
    before, new = content(stopped), tmp_path / "new"
    assert main(["train", f"resume={stopped}"]) == 2
    said = capsys.readouterr().err
    assert "train of task0: 16 before, 19 now, 3 of them new, 0 gone" in said
    assert "test of task0: 8 before, 8 now, 1 of them new, 1 gone" in said
    assert f"resume={stopped} output_dir=" in said
    before.pop("log.txt")
    assert {name: text for name, text in content(stopped).items() if name != "log.txt"} == before
    assert main(["evaluate", f"ckpt={stopped}"]) == 0
    assert "the data are not those of the run: train of task0" in capsys.readouterr().err

    assert main(["train", f"resume={stopped}", f"output_dir={new}"]) == 0
    assert len(np.load(new / "split" / "train_task0.npy")) == 19
    assert json.loads((new / "summary.json").read_text())["status"] == "FINISHED"
    rows = (new / "metrics.csv").read_text().splitlines()
    old = [row for row in before["metrics.csv"].decode().splitlines() if ",test/" not in row]
    assert rows[: len(old)] == old and len(rows) == len(set(rows))
    capsys.readouterr()
    same = [f"data.root={moved}", "trainer.log_every_n_steps=5"]
    assert main(["train", f"resume={stopped}", *same]) == 0  # the same content elsewhere
    assert "differ from an uninterrupted one: trainer.log_every_n_steps=5\n" in capsys.readouterr().err
    assert weights(stopped).keys() == weights(new).keys()


def test_a_folder_in_which_nothing_was_trained_is_used_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["train", *TINY, "output_dir=runs/x", "trainer.max_epochs=1"]
    assert main([*words, "stream.num_tasks=5"]) == 2
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("lit_gen.core.module.LitModel.training_step", None)
    with pytest.raises(Exception, match="training_step"):
        main(words)
    folder = tmp_path / "runs" / "x"
    assert json.loads((folder / "summary.json").read_text())["status"] == "FAILED"
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    (folder / "notes.txt").write_text("mine")
    assert main(words) == 2 and "already holds another run" in capsys.readouterr().err
    (folder / "notes.txt").unlink()
    assert main(words) == 0
    assert json.loads((folder / "summary.json").read_text())["status"] == "FINISHED"
    assert main(words) == 2 and "already holds another run" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["runs"]


def test_what_is_damaged_in_a_run_folder_is_named_and_nothing_is_changed(stopped, capsys):
    whole = content(stopped)

    def refused(name: str, damaged: bytes | None, *gone: str) -> str:
        for other, data in whole.items():
            (stopped / other).write_bytes(data)
        for other in gone:
            (stopped / other).unlink()
        (stopped / name).unlink() if damaged is None else (stopped / name).write_bytes(damaged)
        before = content(stopped)
        assert main(["train", f"resume={stopped}"]) == 2
        after = content(stopped)
        assert {name for name in before | after if before.get(name) != after.get(name)} <= {"log.txt"}
        return capsys.readouterr().err

    checkpoint = "checkpoints/previous.ckpt"
    for name, gone in {
        "metrics.csv": (),
        "split/digests.npz": (),
        "start.json": (),
        "config.yaml": ("start.json", checkpoint, "scores.csv"),
        checkpoint: (),
    }.items():
        data = whole[name]
        for damaged in (b"", data[: len(data) // 2], data[:70] + bytes(64) + data[134:]):
            said = refused(name, damaged, *gone)
            assert name in said and "damaged" in said, said
    assert "its checkpoints are gone" in refused(checkpoint, None)


def test_a_checkpoint_of_another_run_is_refused_by_the_keys_that_differ(stopped, capsys):
    file = stopped / "checkpoints" / "previous.ckpt"
    state = torch.load(file, weights_only=True)
    config = state["lit_gen"]["config"]
    config["trainer"] = config["trainer"] | {"devices": 2}  # which may differ, as where the folder lies
    config["output_dir"] = "elsewhere"
    torch.save(state, file)
    assert lit_gen.load(stopped).latent_size == 2
    config["model"] = config["model"] | {"latent_size": 3}
    torch.save(state, file)
    for verb in (["train", f"resume={stopped}"], ["sample", f"ckpt={stopped}", f"out={stopped}/out"]):
        assert main(verb) == 2
        assert "model.latent_size=3, the run has 2" in capsys.readouterr().err
    (stopped / "start.json").unlink()
    assert main(["train", f"resume={stopped}"]) == 2
    assert "model.latent_size=3, the run has 2" in capsys.readouterr().err


def test_a_finished_run_without_its_summary_gets_it_and_nothing_twice(tmp_path):
    folder = tmp_path / "run"
    assert main(["train", *FOLDERS, "data.root=none", f"output_dir={folder}"]) == 2
    assert main(["train", *TINY, f"output_dir={folder}"]) == 0
    before = content(folder)
    (folder / "summary.json").unlink()
    (folder / "samples" / ".grid.123.png").touch()  # a killed process was writing it
    assert main(["train", f"resume={folder}"]) == 0
    after = content(folder)
    assert after.keys() == before.keys()
    texts = [name for name in before if name.endswith((".csv", ".png", ".npy"))]
    assert len(texts) > 4 and [name for name in texts if after[name] != before[name]] == []
    assert json.loads(after["summary.json"])["status"] == "FINISHED"


def test_a_run_that_another_process_works_on_is_refused(stopped, capsys):
    with locked_by_another(stopped) as pid:
        assert main(["train", f"resume={stopped}"]) == 2
    assert f"process {pid} on {socket.gethostname()}, started 2" in capsys.readouterr().err
    assert main(["train", f"resume={stopped}"]) == 0
