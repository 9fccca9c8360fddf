"""lit-gen analyse on trained runs: every use, its files, and what it refuses."""

from __future__ import annotations

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch
from analysis_toys import TINY, VAE
from PIL import Image

import lit_gen
from lit_gen.__main__ import main
from lit_gen.cli.analyse import USES, run
from lit_gen.cli.help import verbs
from lit_gen.core.types import InputError


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A VAE that never saw class 3, a classifier, and a diffusion model."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(["train", *TINY, *VAE, "data.without_classes=[3]", f"output_dir={folder}/vae"]) == 0
    assert main(["train", *TINY, "model=lenet", f"output_dir={folder}/lenet"]) == 0
    small = ["model.net.width=8", "sampler=ddim", "sampler.steps=2", "sampler.progress=false"]
    assert main(["train", *TINY, "model=ddpm", *small, f"output_dir={folder}/ddpm"]) == 0
    return folder


def found(folder, what) -> dict:
    return json.loads((folder / f"{what}.json").read_text())


OWN_TESTS = {"translation", "counterfactual"}
DIFFUSION = {"snr", "noising", "transfer", "probe_steps"}
PICTURES = {
    "interpolation",
    "traversal",
    "reconstruction",
    "anomaly",
    "map",
    "clusters",
    "compression",
    "denoise",
    "drift",
}
PICTURES |= DIFFUSION
FEW = {
    "interpolation": ["pairs=2", "steps=4"],
    "traversal": ["dimensions=2", "steps=3"],
    "map": ["method=tsne", "n=24", "perplexity=5"],
    "clusters": ["n=24", "number=5", "columns=3"],
    "snr": ["points=5", "n=4"],
    "noising": ["points=2", "n=8", "columns=4"],
    "transfer": ["points=2", "n=8", "columns=4", "look=mirror"],
    "probe_steps": ["n=40", "n_test=20", "times=[0,0.5]"],
    "augmentation": ["n=20", "generated=40", "steps=4", "batch_size=8", "repeats=1"],
}


@pytest.mark.slow
@pytest.mark.parametrize("what", [what for what in USES if what not in OWN_TESTS])
def test_every_use_prints_a_table_and_leaves_its_files(runs, tmp_path, capsys, what):
    run_of = runs / ("ddpm" if what in DIFFUSION else "vae")
    files = [run_of / "checkpoints" / name for name in ("task-0.ckpt", "last.ckpt")][what != "drift" :]
    ckpt = run_of if what != "drift" else ",".join(map(str, files))
    words = [f"ckpt={ckpt}", f"what={what}", "seed=3", *FEW.get(what, [])]
    tables = []
    for name in ("a", "b"):
        assert run([*words, f"out={tmp_path}/{name}"]) == 0
        tables.append(found(tmp_path / name, what))
        last_row = tables[-1]["table"][-1]
        printed = capsys.readouterr().out.splitlines()
        assert printed[-1 - len(tables[-1]["table"])].split() == list(last_row)
        rows = list(csv.DictReader((tmp_path / name / f"{what}.csv").open()))
        assert rows and (tmp_path / name / f"{what}.png").exists() == (what in PICTURES)
    assert tables[0] == tables[1], "the same seed, the same result"
    assert tables[0]["seed"] == 3 and tables[0]["ckpt"] == [*map(str, files)]


def test_a_joint_model_shows_its_accuracy_explains_itself_and_draws_what_is_asked_for(tmp_path, capsys):
    words = ["judges=terms", "judges.terms.single_task=true", "sampler=guided", "sampler.steps=2"]
    small = ["model.net.width=8", "model.net.attention=[]", "sampler.progress=false"]
    ckpt = f"ckpt={tmp_path}/run"
    assert main(["train", *TINY, "model=joint_diffusion", *words, *small, f"output_dir={tmp_path}/run"]) == 0
    assert "accuracy, higher is better" in capsys.readouterr().out
    assert main(["analyse", ckpt, "what=counterfactual", "to=2", "steps=2", f"out={tmp_path}/out"]) == 0
    assert {row["images"] for row in found(tmp_path / "out", "counterfactual")["table"]} == {36}
    assert (tmp_path / "out" / "counterfactual.png").exists()
    assert main(["analyse", ckpt, "what=counterfactual", "to=4"]) == 2
    assert "to=4: there is none; this model knows classes from 0 to 3" in capsys.readouterr().err
    assert main(["sample", ckpt, "n=3", "label=1", f"out={tmp_path}/a.npz"]) == 0
    assert (np.load(tmp_path / "a.npz")["label"] == 1).all()
    assert main(["sample", ckpt, "n=3", "label=1", "sampler=ddim", f"out={tmp_path}/b.npz"]) == 2


def test_results_go_into_the_run_folder_and_say_how_they_were_made(runs):
    assert run([f"ckpt={runs}/vae", "what=anomaly"]) == 0
    record = found(runs / "vae" / "analysis", "anomaly")
    assert record["settings"] == {"held_out": None, "score": "reconstruction", "draws": 50}
    (row,) = record["table"]
    assert row["held_out"] == "3" and row["images"] == 12 and row["others"] == 36
    scores = list(csv.DictReader((runs / "vae" / "analysis" / "anomaly.csv").open()))
    model = lit_gen.load(runs / "vae")
    assert len(scores) == 48 and list(scores[0]) == ["index", "label", "score"]
    assert not model.training


def test_options_and_keys_of_the_run_reach_where_they_should(runs, tmp_path):
    words = [f"ckpt={runs}/vae", "what=anomaly", f"out={tmp_path}", "data.num_test_images=20"]
    assert run([*words, "held_out=[0,1]"]) == 0
    record = found(tmp_path, "anomaly")
    assert [row["held_out"] for row in record["table"]] == ["0 1", "0", "1"]
    assert sum(row["images"] for row in record["table"][1:]) == 10 and record["table"][0]["others"] == 10
    assert record["overrides"] == ["data.num_test_images=20"]


def test_several_runs_are_one_table(runs, tmp_path, capsys):
    copy = tmp_path / "copy" / "checkpoints"
    copy.mkdir(parents=True)
    (copy / "last.ckpt").write_bytes((runs / "vae" / "checkpoints" / "last.ckpt").read_bytes())
    both = f"ckpt={runs}/vae,{tmp_path}/copy"
    assert run([both, "what=compression", f"out={tmp_path}/one"]) == 0
    rows = found(tmp_path / "one", "compression")["table"]
    assert [row["run"] for row in rows] == ["vae", "copy"] and {row["latent_size"] for row in rows} == {4}
    assert rows[0]["mse"] == rows[1]["mse"] and rows[0]["ratio"] == 16.0
    capsys.readouterr()
    assert run([both, "what=reconstruction", f"out={tmp_path}/two"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[-3:]] == ["run", "vae", "copy"]
    assert (tmp_path / "two" / "vae" / "reconstruction.png").exists()
    assert (tmp_path / "two" / "copy" / "reconstruction.png").exists()


def test_runs_are_told_apart_by_as_much_of_their_place_as_it_takes(runs, tmp_path):
    last = (runs / "vae" / "checkpoints" / "last.ckpt").read_bytes()
    for name in ("a/seed-0", "b/seed-0"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "checkpoints" / "last.ckpt").write_bytes(last)
    task = f"{runs}/vae/checkpoints/task-0.ckpt"
    words = [f"ckpt={tmp_path}/a/seed-0,{tmp_path}/b/seed-0,{task}", "what=compression"]
    assert run([*words, f"out={tmp_path}/out"]) == 0
    rows = found(tmp_path / "out", "compression")["table"]
    assert [row["run"] for row in rows] == ["a/seed-0", "b/seed-0", "vae/task-0"]
    assert run([f"ckpt={task}", "what=reconstruction"]) == 0
    assert (runs / "vae" / "analysis" / "task-0" / "reconstruction.png").exists()
    with pytest.raises(InputError, match="given twice"):
        run([f"ckpt={task},{task}", "what=compression"])


def test_given_images_are_denoised_under_their_own_names(runs, tmp_path):
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (3, 8, 8), dtype=np.uint8)
    for name, image in zip("abc", pixels, strict=True):
        Image.fromarray(image).save(tmp_path / "in" / f"{name}.png")
    words = [f"ckpt={runs}/vae", "what=denoise", f"in={tmp_path}/in", f"out={tmp_path}/out"]
    assert run(words) == 0
    written = sorted((tmp_path / "out" / "denoise").iterdir())
    assert [file.name for file in written] == ["a.png", "b.png", "c.png"]
    model, image = lit_gen.load(runs / "vae"), torch.from_numpy(pixels)[:, None] / 127.5 - 1
    unknown = torch.full((3,), -1)
    batch = lit_gen.core.types.Batch(image, unknown, unknown, unknown)
    expected = ((model.reconstruct(batch) + 1) * 127.5).round().byte()
    for file, one in zip(written, expected, strict=True):
        assert np.abs(np.asarray(Image.open(file)).astype(int) - one[0].numpy().astype(int)).max() <= 1
    np.savez(tmp_path / "in.npz", image=pixels[..., None])
    assert run([*words[:2], f"in={tmp_path}/in.npz", f"out={tmp_path}/npz"]) == 0
    assert sorted(f.name for f in (tmp_path / "npz" / "denoise").iterdir())[0] == "000000.png"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["ckpt= is missing"]),
        (["ckpt=RUN"], ["what= is missing"]),
        (["ckpt=RUN", "what=anomly"], ["what=anomly", "'anomaly'"]),
        (["ckpt=RUN", "what=probe", "neighbors=3"], ["neighbors=3", "Did you mean neighbours?"]),
        (["ckpt=RUN", "what=probe", "neighbours=0"], ["neighbours=0", "int > 0"]),
        (["ckpt=RUN", "what=map", "method=umap"], ["method=umap", "'pca', 'tsne'"]),
        (["ckpt=RUN", "what=probe", "seed=x"], ["seed=x", "int"]),
        (["ckpt=RUN", "what=probe", "track=maybe"], ["track=maybe", "bool"]),
        (["ckpt=RUN", "what=probe", "in=x"], ["in=x", "what=denoise"]),
        (["ckpt=RUN", "what=probe", "model.beta=2"], ["model.beta=2", "belongs to the checkpoint"]),
        (["ckpt=RUN", "what=probe", "data.spec.siez=2"], ["data.spec.siez", "size"]),
        (["ckpt=RUN", "what=probe", "device=warp"], ["device=warp"]),
        (["ckpt=RUN", "what=anomaly", "held_out=9"], ["held_out=[9]", "0, 1, 2, 3"]),
        (["ckpt=RUN/../lenet", "what=anomaly", "score=likelihood"], ["Classifier", "log_likelihood"]),
        (["ckpt=RUN", "what=denoise", "corruption=masking", "noise=1.5"], ["noise=1.5", "share"]),
        (["ckpt=RUN", "what=denoise", "in=nowhere"], ["in=nowhere", "no such folder"]),
        (["ckpt=RUN/../lenet", "what=counterfactual"], ["Classifier", "Diffuses"]),
        (["ckpt=RUN/../ddpm", "what=counterfactual", "to=1"], ["ddpm: Diffusion has no classifier"]),
        (["ckpt=RUN/../lenet", "what=interpolation"], ["Classifier", "HasCodes", "encode and decode"]),
        (["ckpt=RUN/../lenet", "what=reconstruction"], ["Classifier", "Restores (reconstruct)"]),
        (["ckpt=RUN/../lenet", "what=augmentation"], ["Classifier", "model.condition=label"]),
        (["ckpt=RUN/../lenet", "what=anomaly"], ["Classifier", "Restores"]),
        (["ckpt=RUN/../lenet", "what=clusters"], ["Classifier", "Encodes"]),
        (["ckpt=RUN", "what=clusters", "number=97"], ["number=97: more clusters than codes; vae has "]),
        (["ckpt=RUN/nowhere", "what=probe"], ["no such file"]),
    ],
)
def test_a_mistake_is_named(runs, tmp_path, capsys, words, said):
    words = [word.replace("RUN", str(runs / "vae")) for word in words]
    assert main(["analyse", *words, *([f"out={tmp_path}/out"] if words else [])]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message and not (tmp_path / "out").exists()
    for part in said:
        assert part in message, message


def test_images_of_another_size_are_refused(runs, tmp_path, capsys):
    np.savez(tmp_path / "in.npz", image=np.zeros((2, 9, 9, 1), dtype=np.uint8))
    assert main(["analyse", f"ckpt={runs}/vae", "what=denoise", f"in={tmp_path}/in.npz"]) == 2
    message = capsys.readouterr().err
    assert "9 x 9" in message and "8 x 8" in message


@pytest.mark.slow
def test_results_are_added_to_the_mlflow_run_of_the_training(tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "run"
    assert main(["train", *TINY, *VAE, "logger=mlflow", "trainer.max_epochs=1", f"output_dir={folder}"]) == 0
    assert run([f"ckpt={folder}", "what=anomaly", "held_out=1", "track=true"]) == 0
    client, note = (
        MlflowClient(f"sqlite:///{tmp_path}/mlflow.db"),
        json.loads((folder / "run.json").read_text()),
    )
    kept = client.get_run(note["mlflow_run_id"])
    assert kept.info.status == "FINISHED"
    assert (
        kept.data.metrics["analysis/anomaly/1/auc"]
        == found(folder / "analysis", "anomaly")["table"][0]["auc"]
    )
    files = {file.path for file in client.list_artifacts(note["mlflow_run_id"], "analysis")}
    assert {"analysis/anomaly.json", "analysis/anomaly.png"} <= files


@pytest.mark.parametrize("what", USES)
def test_a_use_says_what_it_does_and_which_options_it_takes(what, capsys):
    assert f" {what}" in verbs()["analyse"]
    assert main(["analyse", f"what={what}"]) == 0
    said = capsys.readouterr().out
    assert USES[what].__doc__.split(".")[0].split("\n")[0] in said
    assert all(f"\n{field.name} " in said for field in dataclasses.fields(USES[what]))
