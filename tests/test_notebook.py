"""Runs from objects: the folder is the command's, the run is the same, and what is in it is opened again."""

from __future__ import annotations

import functools

import pytest
import torch
from lightning import Callback, seed_everything

import lit_gen
from lit_gen.__main__ import main
from lit_gen.cli.config import compose
from lit_gen.cli.described import Undescribed, described
from lit_gen.core.types import InputError
from lit_gen.losses.likelihood import Bernoulli
from lit_gen.nets.mlp import DenseEncoder

WORDS = ("logger=csv", "cpu_threads=1", "judges=terms", "judges.terms.single_task=true", "callbacks=[grid]")
CPU = {"accelerator": "cpu", "enable_progress_bar": False, "limit_train_batches": 3}


def test_a_run_of_objects_is_that_of_the_command_and_goes_on_by_it(tmp_path):
    by_command, by_hand = tmp_path / "command", tmp_path / "hand"
    settings = ["trainer.accelerator=cpu", "trainer.limit_train_batches=3", "trainer.max_epochs=2"]
    stream = ["recipe=stream", "stream.num_tasks=2"]
    words = ["model=vae", "data=digits", *stream, *WORDS, *settings]
    assert main(["train", *words, f"output_dir={by_command}"]) == 0
    seed_everything(0, verbose=False)
    model = compose("train", words).build("model")
    run = lit_gen.fit(model, lit_gen.Digits(batch_size=32), by_hand, *WORDS, tasks=2, max_epochs=2, **CPU)
    files = [{str(f.relative_to(folder)) for f in folder.rglob("*")} for folder in (by_command, by_hand)]
    assert files[0] == files[1]
    for name in ("scores.csv", "metrics.csv"):
        assert (by_command / name).read_bytes() == (by_hand / name).read_bytes(), name
    trained = lit_gen.load(by_command).state_dict()
    assert all(torch.equal(run.model.state_dict()[name], value) for name, value in trained.items())
    assert len(run.data.tasks) == 2 and len(run.scores) == len(run.scores.dropna())


def test_what_was_fitted_is_opened_scored_and_trained_longer(tmp_path):
    data, folder = lit_gen.Digits(), tmp_path / "run"
    optimizer = functools.partial(torch.optim.Adam, lr=1e-2)
    learner = lit_gen.VAE(data.spec, latent_size=4, reconstruction=Bernoulli(), optimizer=optimizer)
    model = lit_gen.GenerativeReplay(learner, num_tasks=2)
    split = lit_gen.ClassSplit(num_tasks=2, order=[3, 1])
    run = lit_gen.fit(model, data, folder, *WORDS, tasks=split, max_epochs=1, **CPU)
    opened = lit_gen.open_run(folder)
    weights = run.model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in opened.model.state_dict().items())
    assert isinstance(opened.model.learner.reconstruction, Bernoulli)
    assert [task.label_counts for task in opened.data.tasks] == [task.label_counts for task in run.data.tasks]
    assert opened.config["model"]["learner"]["optimizer"]["lr"] == 1e-2
    last = opened.scores.query("after_task == 1 and metric == 'loss'")
    again = lit_gen.score(opened.model, opened.data, ["loss", "recall"], num_samples=50)
    found = again.query("metric == 'loss'")
    assert found["value"].tolist() == last["value"].tolist()
    assert found["on_task"].tolist() == [0, 1, "all"] and set(again["metric"]) == {"loss", "recall"}
    assert main(["train", f"resume={folder}", "trainer.max_epochs=2"]) == 0
    assert len(lit_gen.open_run(folder).scores) == len(opened.scores)


def test_networks_made_by_hand_are_asked_for(tmp_path, capsys):
    data = lit_gen.Digits()

    def made() -> lit_gen.VAE:
        return lit_gen.VAE(data.spec, DenseEncoder(1, 8, 32))

    seed_everything(0, verbose=False)
    run = lit_gen.fit(made(), data, tmp_path / "run", *WORDS, max_epochs=1, **CPU)
    with pytest.raises(InputError, match=r"lit_gen\.open_run\(run, model=\.\.\.\)"):
        lit_gen.load(run.path)
    opened = lit_gen.open_run(run.path, model=made()).model.state_dict()
    assert all(torch.equal(opened[name], value) for name, value in run.model.state_dict().items())
    assert main(["train", f"resume={run.path}", "trainer.max_epochs=2"]) == 2
    assert "lit_gen.fit(model, data, resume=run)" in capsys.readouterr().err
    longer = lit_gen.fit(made(), data, resume=run.path, max_epochs=2)
    seed_everything(0, verbose=False)
    whole = lit_gen.fit(made(), data, tmp_path / "whole", *WORDS, max_epochs=2, **CPU)
    assert longer.path == run.path and whole.scores.equals(longer.scores)


class Mine(lit_gen.VAE):
    """Of a package that no configuration may build unasked."""


def test_a_model_of_ones_own_is_trained_and_opened_where_it_is_trusted(tmp_path):
    data, name = lit_gen.Digits(), Mine.__module__
    run = lit_gen.fit(Mine(data.spec), data, tmp_path / "run", *WORDS, max_epochs=1, **CPU)
    with pytest.raises(InputError, match=f"trust={name.partition('.')[0]}"):
        lit_gen.load(run.path)
    opened = lit_gen.open_run(run.path, trust=[name])
    assert isinstance(opened.model, Mine) and opened.data.spec == data.spec
    assert opened.config["model"]["_target_"] == f"{name}.Mine"


def test_mistakes_leave_nothing_and_are_named(tmp_path):
    data = lit_gen.Digits()
    fit = functools.partial(lit_gen.fit, lit_gen.VAE(data.spec), data, tmp_path / "run")
    for words, trainer, said in (
        (("judge=terms",), {}, "judge"),
        ((), {"max_epoch": 3}, "max_epoch"),
        ((), {"tasks": 11}, "num_tasks"),
    ):
        with pytest.raises(InputError, match=said):
            fit(*WORDS, *words, **trainer)
    with pytest.raises(InputError, match="fidd"):
        lit_gen.score(lit_gen.VAE(data.spec), data, ["fidd"], num_samples=20)
    with pytest.raises(InputError, match=r"config\.yaml"):
        lit_gen.open_run(tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())


class Interrupt(Callback):
    """Ctrl-C in the second epoch."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


def test_what_was_interrupted_goes_on_and_what_diverges_says_so(tmp_path):
    data = lit_gen.Digits()
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    seed_everything(0, verbose=False)
    uninterrupted = lit_gen.fit(lit_gen.VAE(data.spec), data, whole, *WORDS, max_epochs=3, **CPU)
    seed_everything(0, verbose=False)
    with pytest.raises(KeyboardInterrupt):
        fit = functools.partial(lit_gen.fit, callbacks=[Interrupt()], max_epochs=3, **CPU)
        fit(lit_gen.VAE(data.spec), data, stopped, *WORDS, "checkpoint.min_seconds=0")
    resumed = lit_gen.fit(lit_gen.VAE(data.spec), data, resume=stopped)
    assert resumed.scores.equals(uninterrupted.scores)
    optimizer = functools.partial(torch.optim.SGD, lr=1e9)
    with pytest.raises(RuntimeError, match="has ended early"):
        words = [*WORDS[:-1], "callbacks=[watch]"]
        lit_gen.fit(
            lit_gen.VAE(data.spec, optimizer=optimizer), data, tmp_path / "c", *words, max_epochs=1, **CPU
        )


def test_what_has_no_name_from_outside_is_not_described():
    with pytest.raises(Undescribed, match=r"model\.schedule"):
        described(lit_gen.VAE(lit_gen.ImageSpec(1, 8, 10), schedule=lambda part: part), "model")
