"""What a checkpoint can be given by the command line: another way of drawing images, another average."""

import numpy as np
import pytest
import torch

from lit_gen.__main__ import main
from lit_gen.cli import evaluate, sample
from lit_gen.cli.open_run import rebuild
from lit_gen.core.checkpoint import read
from lit_gen.core.types import InputError

TINY = [
    *("data=synthetic", "data.num_images=96", "data.num_test_images=64", "data.spec.size=8"),
    *("data.spec.num_classes=4", "stream=split_classes", "stream.num_tasks=2", "judges=quality"),
    "judges.quality.metrics=[{_target_: lit_gen.metrics.frechet.FrechetDistance, _partial_: true}]",
    *("trainer=cpu", "trainer.max_epochs=1", "logger=csv", "cpu_threads=1"),
]


@pytest.fixture(scope="module")
def replay(tmp_path_factory):
    """A VAE with replay around it."""
    folder = tmp_path_factory.mktemp("run") / "run"
    words = ["model=replay_vae", "model.learner.latent_size=4", *TINY, f"output_dir={folder}"]
    assert main(["train", *words]) == 0
    return str(folder)


def scores(ckpt, *words):
    return {s.metric: s.value for s in evaluate.evaluate_checkpoint(ckpt, words)}


def test_evaluate_takes_another_sampler(replay):
    own = scores(replay)
    assert scores(replay, "sampler=latent", "sampler.temperature=1.0") == own
    cold = scores(replay, "sampler=latent", "sampler.temperature=0.5")
    assert cold["fid"] != own["fid"]
    assert {name: value for name, value in cold.items() if name != "fid"} == {
        name: value for name, value in own.items() if name != "fid"
    }


def test_sample_takes_another_sampler(replay, tmp_path):
    def drawn(*words):
        out = tmp_path / "samples.npz"
        assert sample.run([f"ckpt={replay}", f"out={out}", "n=8", "task=1", *words]) == 0
        return np.load(out)["image"]

    own = drawn()
    assert (drawn("sampler=latent") == own).all()
    assert (drawn("sampler=latent", "sampler.temperature=0.5") != own).any()
    frozen = drawn("sampler=latent", "sampler.temperature=0")
    assert (frozen == frozen[:1]).all()
    with pytest.raises(InputError, match=r"trainer.max_epochs=2: would change nothing"):
        drawn("trainer.max_epochs=2")


def test_it_reaches_the_learner_and_its_teacher(replay):
    module = rebuild(read(replay), ["sampler=latent", "sampler.temperature=0"]).module
    for part in (module, module.learner, module.teacher.net):
        image = part.sample(3, task=torch.ones(3, dtype=torch.long))
        assert torch.equal(image, image[:1].expand_as(image))


def test_what_the_weights_depend_on_is_refused_as_before(replay):
    with pytest.raises(InputError, match=r"model.learner.beta=2: model belongs to the checkpoint"):
        scores(replay, "model.learner.beta=2")
    with pytest.raises(InputError, match=r"sampler.*pixels=draw.*no likelihood of pixels"):
        scores(replay, "sampler=pixels")
    with pytest.raises(InputError, match=r"sampler.temperature"):
        scores(replay, "sampler=latent", "sampler.temperature=-1")


def test_evaluate_takes_another_of_the_averages(tmp_path):
    folder = tmp_path / "run"
    words = ["callbacks=ema", "callbacks.ema.decay=[0.5,0.9]", "model.latent_size=4"]
    assert main(["train", *TINY, *words, f"output_dir={folder}"]) == 0
    own = scores(str(folder))
    assert scores(str(folder), "callbacks.ema.use=0.5") == own
    assert scores(str(folder), "callbacks.ema.use=0.9")["loss"] != own["loss"]
    with pytest.raises(InputError, match=r"use=0.3.*keeps 0.5, 0.9"):
        scores(str(folder), "callbacks.ema.use=0.3")


@pytest.mark.parametrize(
    "words, message",
    [
        (["model=multiband"], "MultibandVAE draws no codes"),
        (["model=lenet"], "draws no images"),
    ],
)
def test_a_sampler_that_does_not_fit_the_model_stops_before_training(words, message, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["train", *TINY, *words, "sampler=latent", f"output_dir={folder}"]) == 2
    assert message in capsys.readouterr().err
    assert not folder.exists()
