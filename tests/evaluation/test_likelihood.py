"""LogLikelihood on a model whose likelihood is known."""

from __future__ import annotations

import math

import pytest
import torch
from toys import SPEC, ToyGenerator, make_data

from lit_gen.core.images import to_float
from lit_gen.core.types import InputError
from lit_gen.evaluation.context import Context
from lit_gen.evaluation.judges.likelihood import LogLikelihood

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


def run(model, num_tasks=2, **options):
    judge, data = LogLikelihood(**{"batch_size": 10, "draws": 3} | options), make_data(num_tasks)
    context = Context(model, data, num_seen=num_tasks)
    judge.check(context)
    return judge.rows(context, "test"), data


def truth(data, tasks):
    images = data.dataset("test", tasks)
    return -to_float(images[torch.arange(len(images))].image).double().flatten(1).sum(1)


def test_the_score_is_the_mean_over_images_in_nats_and_in_bits_per_dimension():
    rows, data = run(Known(), per_task=True)
    assert len(rows) == 6
    for task in (0, 1, None):
        expected = truth(data, [0, 1] if task is None else [task])
        nll = expected.mean().item()
        found = {row.metric: row for row in rows if row.on_task == task}
        assert found["nll"].value == pytest.approx(nll, rel=1e-6)
        assert found["bits_per_dim"].value == pytest.approx(nll / PIXELS / math.log(2), rel=1e-6)
        assert found["nll"].num_real == len(expected)


def test_draws_blocks_and_the_number_of_images_are_as_asked():
    model = Known()
    run(model, num_images=25)
    assert model.asked[0] == (2, 1), "the trial"
    assert model.asked[1:] == [(10, 3), (10, 3), (5, 3)] * 2


def test_noise_is_that_of_the_place_and_nothing_else():
    before = torch.get_rng_state()
    first, second, other = (run(Known(noise=50.0), seed=seed)[0] for seed in (0, 0, 1))
    assert first == second and [row.value for row in first] != [row.value for row in other]
    assert torch.get_rng_state().equal(before)


def test_a_model_that_cannot_is_refused_when_it_is_checked():
    class Refuses(Known):
        def log_likelihood(self, batch, draws):
            raise InputError("no likelihood")

    for model, message in ((ToyGenerator(), "does not promise Likelihood"), (Refuses(), "no likelihood")):
        with pytest.raises(InputError, match=message):
            LogLikelihood().check(Context(model, make_data(1), num_seen=1))
    with pytest.raises(ValueError, match="draws=0: must be at least 1"):
        LogLikelihood(draws=0)
