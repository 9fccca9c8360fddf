"""A resumed run is the one that was started: its values, its schedule, on other devices too."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from lightning import Callback
from processes import together
from toys import CopyingCheckpoints, ToyGenerator, make_data, make_trainer

import lit_gen
from lit_gen.__main__ import main
from lit_gen.core.module import LitModel
from lit_gen.core.progress import Course
from lit_gen.core.stages import fit_stages

TINY = (
    *("model=ae", "net=dense", "data=synthetic", "data.num_images=96", "data.num_test_images=8"),
    *("data.spec.size=8", "data.batch_size=16", "judges=none", "callbacks=[]", "logger=csv"),
    *("cpu_threads=1", "checkpoint.min_seconds=0", "trainer=cpu"),
)


def counted(course: Course, images: int, epochs: int, first: int = 0) -> list[float]:
    """Parts before and after every epoch, of three steps each."""
    course.begin(images, first)
    parts = [course.part]
    for _ in range(epochs):
        for _ in range(3):
            course.count(images // 3, True)
        parts.append(course.part)
    return parts


@pytest.mark.parametrize(
    ("limits", "images", "left"),
    [
        ({"epochs": 8}, 96, 3),  # as it was
        ({"epochs": 16}, 96, 11),  # longer
        ({"epochs": 8}, 48, 3),  # with fewer batches
        ({"epochs": 6}, 96, 1),  # shorter
        ({"steps": 27}, 96, 4),  # by steps, where there were epochs
        ({"images": 960}, 96, 5),
    ],
)
def test_a_schedule_goes_on_from_where_it_was_to_its_end_in_a_line(limits, images, left):
    before = Course(epochs=8)
    assert counted(before, 96, 5) == [n / 8 for n in range(6)]
    after = Course(**limits)
    after.load_state_dict(before.state_dict())
    parts = counted(after, images, left, first=5)
    assert parts == pytest.approx([5 / 8 + 3 / 8 * n / left for n in range(left + 1)], abs=1e-12)
    again = Course(**limits)
    again.load_state_dict(after.state_dict())
    assert counted(again, images, 0, first=5 + left) == [parts[-1]]


def test_a_phase_that_was_over_counts_as_if_it_had_been_longer_from_its_start():
    before = Course(epochs=4)
    counted(before, 96, 4)
    after = Course(epochs=8)
    after.load_state_dict(before.state_dict())
    assert counted(after, 96, 4, first=4) == [n / 8 for n in range(4, 9)]


class Rates(Callback):
    """Appends (images seen in the phase, factor of the learning rate) after every batch of the second one."""

    def __init__(self, file: str) -> None:
        self.file = file

    def on_train_batch_end(self, trainer, module, *_):
        if trainer.is_global_zero and trainer.callbacks[0].phase == 1:
            with open(self.file, "a") as file:
                file.write(
                    f"{module.course.images_done} {trainer.optimizers[0].param_groups[0]['lr'] / 1e-2}\n"
                )


def train(folder: str, ckpt: str | None, devices: int, **settings: object) -> None:
    place = {"devices": devices, "strategy": "ddp"} if devices > 1 else {}
    callbacks = [Rates(f"{folder}/rates"), CopyingCheckpoints(Path(folder), every_seconds=0.0)]
    trainer = make_trainer(*callbacks, default_root_dir=folder, **place, **settings)
    fit_stages(trainer, ToyGenerator(epochs=4), make_data(1, num_images=75), ckpt and Path(ckpt))


@pytest.mark.slow
def test_two_processes_one_and_two_again_have_the_rates_of_a_run_that_nothing_disturbed(tmp_path):
    whole, first, second, third = (tmp_path / name for name in ("whole", "first", "second", "third"))
    for folder in (whole, first, second, third):
        folder.mkdir()
    train(str(whole), None, 1)

    def kept(folder: Path, images: int) -> str:
        """The checkpoint that was written after so many images of the second phase."""
        for file in sorted(folder.glob("*.ckpt")):
            place = torch.load(file, weights_only=True)["callbacks"]["TaskSwitch"]
            if (place["phase"], place["course"]["images_done"]) == (1, images):
                return str(file)
        raise AssertionError(images)

    together(2, train, str(first), None, 2)
    train(str(second), kept(first, 75), 1)
    together(2, train, str(third), kept(second, 150), 2)

    def curve(folder: Path, low: int, high: int) -> list[tuple[int, float]]:
        rows = [line.split() for line in (folder / "rates").read_text().splitlines()]
        return [(int(images), float(rate)) for images, rate in rows if low < int(images) <= high]

    found = [*curve(first, 0, 75), *curve(second, 75, 150), *curve(third, 150, 300)]
    assert [images for images, _ in found] == [
        32,
        64,
        75,
        91,
        107,
        123,
        139,
        150,
        182,
        214,
        225,
        257,
        289,
        300,
    ]
    for images, rate in [*found, *curve(whole, 0, 300)]:
        assert rate == pytest.approx(0.5 * (1 + math.cos(math.pi * images / 300)), abs=1e-12)


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A run of six epochs that was stopped in the fourth."""

    def until_then(module, batch, batch_idx):
        if module.course.batches_done == 20:
            raise KeyboardInterrupt
        whole(module, batch, batch_idx)

    whole, folder = LitModel.on_train_batch_start, tmp_path / "run"
    words = ["trainer.max_epochs=6", "trainer.gradient_clip_val=0.5", f"output_dir={folder}"]
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(LitModel, "on_train_batch_start", until_then)
        main(["train", *TINY, *words])
    assert json.loads((folder / "summary.json").read_text())["batches"] == 21
    return folder


def test_a_chosen_trainer_moves_a_run_and_config_yaml_stays(stopped, tmp_path, capsys):
    whole, before = shutil.copytree(stopped, tmp_path / "same"), (stopped / "config.yaml").read_bytes()
    assert main(["train", f"resume={whole}", "trainer=cpu"]) == 0
    assert not list(whole.glob("config.resumed*")) and (whole / "config.yaml").read_bytes() == before
    capsys.readouterr()
    words = ["trainer=default", "trainer.accelerator=cpu", "trainer.log_every_n_steps=5", "cpu_threads=2"]
    assert main(["train", f"resume={stopped}", *words]) == 0
    assert "trainer.log_every_n_steps=5, cpu_threads=2\n" in capsys.readouterr().err
    assert (stopped / "config.yaml").read_bytes() == before
    assert yaml.safe_load((stopped / "config.resumed-1.yaml").read_text()) == {
        "trainer.log_every_n_steps": {"before": 50, "now": 5},
        "cpu_threads": {"before": 1, "now": 2},
        "choices.trainer": {"before": "cpu", "now": "default"},
    }
    for folder in (whole, stopped):
        assert json.loads((folder / "summary.json").read_text())["batches"] == 36
        stored = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["lit_gen"]
        assert stored["config"]["trainer"]["gradient_clip_val"] == 0.5
        assert stored["cpu_threads"] == (1 if folder == whole else 2)
    for word in ("trainer=cpu", "data.root=elsewhere"):
        assert main(["train", f"resume={stopped}", word]) == 2
        assert f"{word}: would change nothing" in capsys.readouterr().err
    assert main(["train", f"resume={stopped}"]) == 0


SPLIT = ["stream=split_classes", "stream.num_tasks=2", "stream.split.classes_per_task=1"]
BANDS = [f"model.epochs.{name}=1" for name in ("first", "local_warmup", "local", "band_warmup", "band")]
LONGER = {
    "epochs": (["model=vae", "trainer.max_epochs=2"], "trainer.max_epochs=4"),
    "epochs before a pass": (["trainer.max_epochs=2"], "trainer.max_epochs=4"),
    "epochs of the last task": (["model=replay_vae", *SPLIT, "trainer.max_epochs=2"], "trainer.max_epochs=3"),
    "steps": (["model=vae", "trainer.max_epochs=-1", "trainer.max_steps=6"], "trainer.max_steps=12"),
    "tasks": (
        ["model=replay_vae", "model.learner.condition=none", "trainer.max_epochs=2", *SPLIT],
        "stream.num_tasks=3",
    ),
    "tasks of bands": (["model=multiband", *BANDS, *SPLIT], "stream.num_tasks=3"),
}


@pytest.mark.parametrize("kind", LONGER)
def test_a_finished_run_is_trained_longer_as_one_that_was_as_long_from_the_start(kind, tmp_path):
    before, more = LONGER[kind]
    words = [
        *(w for w in TINY if not w.startswith("net=")),
        "judges=terms",
        "judges.terms.single_task=true",
        *before,
    ]
    longer, whole = tmp_path / "longer", tmp_path / "whole"
    assert main(["train", *words, f"output_dir={longer}"]) == 0
    end = {name: (longer / name).read_bytes() for name in ("summary.json", "scores.csv")}
    assert main(["train", f"resume={longer}", more]) == 0
    assert main(["train", *words, more, f"output_dir={whole}"]) == 0
    states = [
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (longer, whole)
    ]
    for name, value in states[1]["state_dict"].items():
        if kind != "epochs of the last task":  # the first task has had fewer there
            assert torch.equal(states[0]["state_dict"][name], value), name
    if kind in ("tasks", "tasks of bands"):
        for name in ("scores.csv", "metrics.csv"):
            assert (longer / name).read_bytes() == (whole / name).read_bytes(), name
    else:  # the scores of before stay among the curves
        rows = [(folder / "metrics.csv").read_text().splitlines() for folder in (longer, whole)]
        assert len(rows[0]) > len(rows[1]) or "last task" in kind
    for name, content in end.items():
        kept = name.replace(".", ".finished-1.")
        assert (longer / kept).read_bytes() == content
    assert lit_gen.load(longer / "checkpoints" / "finished-1.ckpt") is not None
    assert main(["evaluate", f"ckpt={longer}@all"]) == 0
    assert (longer / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes() or "last" in kind


def test_what_a_finished_run_cannot_be_trained_longer_by_is_named_and_it_stays_as_it_was(tmp_path, capsys):
    folder, new = tmp_path / "run", tmp_path / "new"
    words = ["model=replay_vae", *SPLIT, "trainer.max_epochs=1", f"output_dir={folder}"]
    assert main(["train", *TINY, *words]) == 0
    before = {f: f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.name != "log.txt"}
    for word, said in {
        "trainer.max_epochs=1": "would change nothing, since phase train of task 1 has had 1 epochs",
        "stream.num_tasks=2": "would change nothing; ",
        "stream.joint=true": "would change nothing; ",
        "stream.num_tasks=3": "size mismatch for learner.encoder.net.0.weight",
        "stream.split.classes_per_task=2": "the first tasks of this stream are not those",
    }.items():
        assert main(["train", f"resume={folder}", word]) == 2, word
        assert said in capsys.readouterr().err, word
        assert {f: f.read_bytes() for f in before} == before, word
    assert main(["train", f"resume={folder}", "trainer.max_epochs=2", f"output_dir={new}"]) == 0
    assert json.loads((new / "summary.json").read_text())["batches"] > 2
    assert {f: f.read_bytes() for f in before} == before
    (folder / "checkpoints" / "previous.ckpt").unlink()
    assert main(["train", f"resume={folder}", "trainer.max_epochs=2"]) == 2
    assert "is not the moment before the last phase" in capsys.readouterr().err


def test_a_run_that_is_stopped_before_it_has_become_longer_is_the_finished_one(tmp_path, monkeypatch):
    def at_once(module, batch, batch_idx):
        raise KeyboardInterrupt

    folder = tmp_path / "run"
    assert main(["train", *TINY, "trainer.max_epochs=1", f"output_dir={folder}"]) == 0
    before = (folder / "summary.json").read_bytes()
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(LitModel, "on_train_batch_start", at_once)
        main(["train", f"resume={folder}", "trainer.max_epochs=2"])
    assert (folder / "summary.json").read_bytes() == before
    assert main(["train", f"resume={folder}", "trainer.max_epochs=2"]) == 0
    assert json.loads((folder / "summary.json").read_text())["batches"] == 12
