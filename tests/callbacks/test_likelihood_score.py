"""LikelihoodScore on a model whose likelihood is known."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from toys import SPEC, ToyGenerator, make_data, make_trainer

from callbacks.continual_scores import ContinualScores
from callbacks.likelihood_score import LikelihoodScore
from lit_gen.core.images import to_float
from lit_gen.core.types import InputError
from lit_gen.tracking.metrics_file import MetricsFile

PIXELS = SPEC.channels * SPEC.size**2


class Known(ToyGenerator):
    """The log-likelihood of an image is the sum of its pixels, and noise; remembers what it was asked for."""

    def __init__(self, noise=0.0):
        super().__init__()
        self.noise, self.asked = noise, []

    def log_likelihood(self, batch, draws):
        assert not self.training and not torch.is_grad_enabled() and batch.image.dtype == torch.float32
        self.asked.append((len(batch.image), draws))
        return batch.image.flatten(1).sum(1) + self.noise * torch.randn(draws, len(batch.image)).mean(0)


def run(model, tmp_path=None, num_tasks=2, trainer_options=None, **options):
    callback, data = LikelihoodScore(**{"batch_size": 10, "draws": 3} | options), make_data(num_tasks)
    data.current_task = num_tasks - 1
    more = [ContinualScores(tmp_path)] if tmp_path else []
    trainer = make_trainer(callback, *more, **(trainer_options or {}))
    logged = trainer.test(model, datamodule=data, verbose=False)[0]
    return callback, {k: v for k, v in logged.items() if "nll" in k or "bits" in k}, data, trainer


def truth(data, tasks):
    images = data.dataset("test", tasks)
    return -to_float(images[torch.arange(len(images))].image).double().flatten(1).sum(1)


def test_the_score_is_the_mean_over_images_in_nats_and_in_bits_per_dimension(tmp_path):
    callback, logged, data, _ = run(Known(), per_task=True, tmp_path=tmp_path)
    for task, name in ((0, "/task0"), (1, "/task1"), (None, "")):
        nll = truth(data, [0, 1] if task is None else [task]).mean().item()
        found = {s.metric: s for s in callback.scores if s.on_task == task}
        assert found["nll"].value == pytest.approx(nll, rel=1e-6)
        assert found["bits_per_dim"].value == pytest.approx(nll / PIXELS / math.log(2), rel=1e-6)
        assert found["nll"].num_real == len(truth(data, [0, 1] if task is None else [task]))
        assert logged[f"test/nll{name}"] == pytest.approx(nll, rel=1e-5)
        assert logged[f"test/bits_per_dim{name}"] == pytest.approx(nll / PIXELS / math.log(2), rel=1e-5)
    assert len(logged) == 6 and {s.split for s in callback.scores} == {"test"}


def test_draws_blocks_and_the_number_of_images_are_as_asked():
    model = Known()
    _, _, data, _ = run(model, num_images=25)
    assert model.asked[0] == (2, 1), "the trial"
    assert model.asked[1:] == [(10, 3), (10, 3), (5, 3)] * 2
    assert len(truth(data, [0])) > 25


def test_noise_is_that_of_the_place_and_nothing_else():
    first, second, other = (run(Known(noise=50.0), seed=seed)[0].scores for seed in (0, 0, 1))
    assert first == second and [s.value for s in first] != [s.value for s in other]
    callback, data, model = LikelihoodScore(), make_data(1), Known(noise=50.0)
    before = torch.get_rng_state()
    callback.setup(SimpleNamespace(datamodule=data), model, "fit")
    assert torch.get_rng_state().equal(before)


def test_scores_reach_the_report_of_the_run(tmp_path):
    logger = MetricsFile(tmp_path)
    callback, _, _, trainer = run(Known(), tmp_path, trainer_options={"logger": [logger]}, per_task=True)
    report = next(c for c in trainer.callbacks if isinstance(c, ContinualScores))
    nll = next(s.value for s in callback.scores if s.on_task is None and s.metric == "nll")
    assert report.summary()["nll"].all == nll
    assert "nll, lower is better" in report.table() and "bits_per_dim, lower is better" in report.table()
    assert "all,nll," in (tmp_path / "scores.csv").read_text()
    logger.flush()
    names = {line.split(",")[2] for line in (tmp_path / "metrics.csv").read_text().splitlines()}
    assert {"test/nll", "test/nll/task1", "test/mean/nll", "test/bits_per_dim"} <= names
    assert not any(name.endswith("/") for name in names)


def test_a_score_of_all_tasks_alone_is_a_line_of_the_report(tmp_path):
    *_, trainer = run(Known(), tmp_path)
    report = next(c for c in trainer.callbacks if isinstance(c, ContinualScores))
    lines = [line.split() for line in report.table().splitlines()]
    assert [line[0] for line in lines] == ["nll", "bits_per_dim"] and all("lower" in line for line in lines)


def test_a_model_that_cannot_is_refused_before_anything_runs():
    class Refuses(Known):
        def log_likelihood(self, batch, draws):
            raise InputError("no likelihood")

    for model, message in ((ToyGenerator(), "does not promise Likelihood"), (Refuses(), "no likelihood")):
        data, trainer = make_data(1), make_trainer(LikelihoodScore())
        with pytest.raises(InputError, match=message):
            trainer.fit(model, datamodule=data)
        assert trainer.global_step == 0


@pytest.mark.parametrize("key", ["draws", "num_images", "batch_size"])
def test_wrong_options_are_named(key):
    with pytest.raises(InputError, match=rf"callbacks\.likelihood\.{key}=0"):
        LikelihoodScore(**{key: 0})


@pytest.mark.slow
def test_the_score_does_not_depend_on_the_number_of_processes(tmp_path):
    alone = run(Known(noise=50.0), per_task=True)[0].scores
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), str(root / "tests")])
    subprocess.run(
        [sys.executable, __file__, "2", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": paths},
        check=True,
        timeout=300,
    )
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == [tuple(score) for score in alone]


if __name__ == "__main__":
    scores = run(
        Known(noise=50.0), per_task=True, trainer_options={"strategy": "ddp", "devices": int(sys.argv[1])}
    )[0].scores
    torch.save([tuple(s) for s in scores], Path(sys.argv[2]) / f"{torch.distributed.get_rank()}.pt")
