"""lit-gen compare: which runs are made and which are not repeated, and the table that comes out."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from analysis_toys import TINY, VAE

from lit_gen.__main__ import main
from lit_gen.cli import compare
from lit_gen.cli import runs as series
from lit_gen.cli.compare import run
from lit_gen.cli.runs import Series
from lit_gen.core.types import InputError


@pytest.fixture
def pretended(monkeypatch):
    """Training that takes no time: writes what a finished run is known by. The words of each call."""
    calls = []

    def train(words, text):
        calls.append(list(words))
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("some words\nthe last words\n")
        given = dict(word.partition("=")[::2] for word in words)
        folder = series.Path(given.get("output_dir") or given["resume"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text("")
        if given.get("seed") == "13":
            return 1
        (folder / "summary.json").write_text(json.dumps({"status": "FINISHED"}))
        return 0

    monkeypatch.setattr(series, "_train", train)
    return calls


def all_of(made: Series) -> list[str | None]:
    return [made.train(each) for each in made.runs]


def test_every_experiment_is_trained_with_every_seed_in_the_order_given(tmp_path, pretended):
    made = Series("experiment", ["b", "a"], [1, 0], tmp_path, ["data.root=x"], epochs=4)
    assert all_of(made) == [None] * 4
    assert [words[:2] for words in pretended] == [
        [f"experiment={name}", f"seed={seed}"] for name in ("b", "a") for seed in (1, 0)
    ]
    assert pretended[0][2:] == ["data.root=x", f"output_dir={tmp_path}/b/seed-1", "trainer.max_epochs=4"]


def test_what_is_finished_is_not_repeated_and_what_was_stopped_goes_on(tmp_path, pretended):
    words = ("experiment", ["a"], [0, 1], tmp_path, ["k=v"])
    all_of(Series(*words))
    assert len(pretended) == 2 and "trainer.max_epochs" not in " ".join(pretended[0])
    (tmp_path / "a" / "seed-1" / "summary.json").write_text(json.dumps({"status": "KILLED"}))
    all_of(Series("experiment", ["a", "b"], [0, 1], tmp_path, ["k=v"]))
    assert pretended[2] == [f"resume={tmp_path}/a/seed-1"]
    assert [words[:2] for words in pretended[3:]] == [["experiment=b", "seed=0"], ["experiment=b", "seed=1"]]


def test_a_run_that_fails_is_named_and_the_others_are_made(tmp_path, pretended):
    first, second, third = all_of(Series("experiment", ["a"], [0, 13, 2], tmp_path, []))
    assert first is third is None and len(pretended) == 3
    assert "a seed 13: exit code 1, the last words" in second and "logs/a-seed-13.txt" in second


def test_runs_of_other_settings_are_not_mixed_in(tmp_path, pretended):
    Series("experiment", ["a"], [0], tmp_path, ["data.root=x"], epochs=3)
    Series("experiment", ["a", "b"], [0, 1], tmp_path, ["data.root=x"], epochs=3)
    for overrides, epochs in ((["data.root=y"], 3), (["data.root=x"], 4), ([], 3)):
        with pytest.raises(
            InputError, match=r"was begun with experiments=... epochs=3 data.root=x, now it is .*another out="
        ):
            Series("experiment", ["a"], [0], tmp_path, overrides, epochs)


def test_minutes_become_epochs_by_one_trial_of_each_experiment(tmp_path, pretended, monkeypatch):
    trials = []

    def trial(self, each):
        trials.append(each.name)
        return {"a": 7, "b": 2}[each.name]

    monkeypatch.setattr(Series, "_by_trial", trial)
    all_of(Series("experiment", ["a", "b"], [0, 1], tmp_path, [], minutes=3.0))
    assert trials == ["a", "b"]
    assert [words[-1] for words in pretended] == [f"trainer.max_epochs={n}" for n in (7, 7, 2, 2)]
    all_of(Series("experiment", ["a", "b"], [0, 1, 2], tmp_path, [], minutes=3.0))
    assert trials == ["a", "b"], "what a trial gave is remembered"
    assert pretended[-1][-1] == "trainer.max_epochs=2"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["experiments=vae_mnist"], ["out= is missing"]),
        (["out=OUT"], ["one of models=, experiments= and runs="]),
        (["out=OUT", "experiments=vae_mnist", "runs=x"], ["one of models="]),
        (["out=OUT", "models=vae,cvae"], ["model=cvae", "no such choice"]),
        (["out=OUT", "models=vae", "model=ae"], ["model=ae", "use models="]),
        (["out=OUT", "models=vae", "recipe=autoencodr"], ["Did you mean autoencoder?"]),
        (["out=OUT", "experiments=vae_mnits"], ["vae_mnits", "Did you mean vae_mnist?"]),
        (["out=OUT", "experiments=,"], ["experiments=,: expected key=value"]),
        (["out=OUT", "experiments=vae_mnist", "seeds=a"], ["seeds=a"]),
        (["out=OUT", "experiments=vae_mnist", "epochs=0"], ["epochs=0", "int > 0"]),
        (["out=OUT", "experiments=vae_mnist", "minutes=0"], ["minutes=0", "> 0"]),
        (["out=OUT", "experiments=vae_mnist", "minutes=1", "epochs=2"], ["either epochs= or minutes="]),
        (["out=OUT", "experiments=vae_mnist", "seed=1"], ["seed=1", "seeds="]),
        (["out=OUT", "experiments=vae_mnist", "epochs=1", "trainer.max_epochs=2"], ["trainer.max_epochs=2"]),
        (["out=OUT", "experiments=vae_mnist", "model.bta=2"], ["model.bta", "model.beta"]),
        (["out=OUT", "runs=nowhere"], ["nowhere", "holds no checkpoint"]),
        (["out=OUT", "runs=nowhere", "epochs=3"], ["epochs=3", "trained already"]),
    ],
)
def test_a_mistake_is_named_before_anything_is_trained(tmp_path, capsys, words, said, pretended):
    assert main(["compare", *(word.replace("OUT", str(tmp_path / "out")) for word in words)]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message and not pretended and not (tmp_path / "out").exists()
    for part in said:
        assert part in message, message


def test_runs_that_differ_in_their_seed_and_in_where_they_ran_are_one_row(monkeypatch):
    same = {"choices": {"model": "vae"}, "model": {"beta": 1}, "data": {"root": "here"}}
    other = {"seed": 1, "name": "b", "logger": None, "cpu_threads": 2, "data": {"root": "there"}}
    configs = {"a": same, "b": same | other, "c": same | {"model": {"beta": 2}}}
    monkeypatch.setattr(compare, "read_newest", lambda folder: SimpleNamespace(config=configs[folder.name]))
    labels = compare._labels([Path(name) for name in configs])
    assert list(labels.values()) == ["vae", "vae", "vae (2)"]


def rows_of(file) -> list[dict[str, str]]:
    return list(csv.DictReader(file.open()))


@pytest.mark.slow
def test_a_table_of_runs_that_there_are(tmp_path, capsys):
    """Two seeds of one setting are one row; another setting and another model have rows of their own."""
    settings = {
        "a": [*VAE, "seed=0"],
        "b": [*VAE, "seed=1"],
        "c": [*VAE, "model.beta=2.0"],
        "d": ["model=lenet"],
    }
    for name, words in settings.items():
        words = [*TINY, "trainer.max_epochs=1", *words, f"output_dir={tmp_path}/{name}"]
        assert main(["train", *words]) == 0
    listed = ",".join(str(tmp_path / name) for name in ("d", "a", "c", "b"))
    assert run([f"runs={listed}", f"out={tmp_path}/table"]) == 0
    rows = rows_of(tmp_path / "table" / "overview.csv")
    assert [(row["model"], row["seeds"]) for row in rows] == [
        ("lenet", "0"),
        ("vae", "0 1"),
        ("vae (2)", "0"),
    ]
    runs = rows_of(tmp_path / "table" / "runs.csv")
    both = [float(row["mse"]) for row in runs if row["model"] == "vae"]
    assert float(rows[1]["mse"]) == pytest.approx(sum(both) / 2)
    assert float(rows[1]["mse_std"]) == pytest.approx(abs(both[0] - both[1]) / 2**0.5)
    assert rows[0]["mse"] == "" and rows[0]["linear_accuracy"] == "" and float(rows[0]["parameters"]) > 0
    assert {row["epochs"] for row in runs} == {"1"}
    text = (tmp_path / "table" / "overview.md").read_text()
    assert text in capsys.readouterr().out and "| vae (2) | 1 |" in text
    assert (tmp_path / "table" / "overview.png").stat().st_size > 1000
    # What was measured is kept with the run, and measured again when the question is another one.
    kept = tmp_path / "a" / "analysis" / "overview.json"
    record = json.loads(kept.read_text())
    record["values"]["mse"] = 123.0
    kept.write_text(json.dumps(record))
    assert run([f"runs={tmp_path}/a", f"out={tmp_path}/again"]) == 0
    assert rows_of(tmp_path / "again" / "runs.csv")[0]["mse"] == "123.0"
    assert run([f"runs={tmp_path}/a", f"out={tmp_path}/again", "data.num_test_images=8"]) == 0
    assert float(rows_of(tmp_path / "again" / "runs.csv")[0]["mse"]) < 1
    for said, status in (
        ("this run is KILLED; lit-gen train resume=", '{"status": "KILLED"}'),
        ("damaged", ""),
    ):
        (tmp_path / "a" / "summary.json").write_text(status)
        with pytest.raises(InputError, match=said):
            run([f"runs={tmp_path}/a", f"out={tmp_path}/again"])


@pytest.mark.slow
def test_experiments_are_trained_scored_and_tabulated(tmp_path, capsys):
    words = ["experiments=vae_digits_joint", "seeds=0,1", "epochs=1", f"out={tmp_path}", "logger=csv"]
    words += [
        "trainer=cpu",
        "cpu_threads=1",
        "trainer.limit_train_batches=2",
        "judges.quality.num_samples=32",
    ]
    words += [
        "judges.quality.metrics=[{_target_: lit_gen.metrics.neighbours.Neighbours, _partial_: true}]",
        "judges.quality.floor=false",
    ]
    occupied = tmp_path / "vae_digits_joint" / "seed-1"
    occupied.mkdir(parents=True)
    (occupied / "mine").write_text("")
    assert run(words) == 1
    out = capsys.readouterr().out
    assert "failed: vae_digits_joint seed 1: exit code 2" in out and "is not empty" in out
    (row,) = rows_of(tmp_path / "overview.csv")
    assert row["seeds"] == "0" and row["epochs"] == "1.0" and float(row["train_seconds"]) > 0
    assert 0 <= float(row["precision"]) <= 1 and 0 < float(row["knn_accuracy"]) <= 1
    folder = tmp_path / "vae_digits_joint" / "seed-0"
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    (occupied / "mine").unlink()
    assert run(words) == 0
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before
    (row,) = rows_of(tmp_path / "overview.csv")
    assert row["seeds"] == "0 1"
    # The same runs, given by their folders.
    assert run([f"runs={folder},{occupied}", f"out={tmp_path}/table"]) == 0
    again = rows_of(tmp_path / "table" / "overview.csv")
    assert again == [row]


@pytest.mark.slow
def test_models_are_trained_the_same_way(tmp_path):
    words = [word for word in TINY if not word.startswith("trainer.max_epochs")]
    words += ["models=ae,vae", "recipe=autoencoder", "net=dense", "model.latent_size=2", "logger=csv"]
    words += ["judges=none", "callbacks=progress", "epochs=1", f"out={tmp_path}"]
    assert main(["compare", *words]) == 0
    assert [row["model"] for row in rows_of(tmp_path / "overview.csv")] == ["ae", "vae"]
    for name in ("ae", "vae"):
        text = (tmp_path / name / "seed-0" / "config.yaml").read_text()
        assert f"  model: {name}\n" in text and "  recipe: autoencoder\n" in text and "latent_size: 2" in text
    with pytest.raises(InputError, match=r"was begun with models=.*now it is experiments="):
        run(["experiments=vae_mnist", "epochs=1", f"out={tmp_path}"])
