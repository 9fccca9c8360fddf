"""PosteriorCollapse on posteriors whose numbers are known."""

from __future__ import annotations

import csv
import math

import pytest
import torch
from PIL import Image
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence
from toys import ToyGenerator, make_data

from lit_gen.core.types import InputError, Posterior
from lit_gen.evaluation.context import Context
from lit_gen.evaluation.judges.posterior import PosteriorCollapse, describe
from lit_gen.losses.divergence import gaussian_kl_by_dimension


def posterior_of(count, size, spread=1.0, deviation=0.5):
    torch.manual_seed(0)
    mean = torch.randn(count, size, dtype=torch.float64) * spread
    return Posterior(mean, torch.full_like(mean, 2 * math.log(deviation)))


def test_a_dimension_is_active_if_its_mean_varies():
    # The second one is far from the prior, but the same for all images.
    up = torch.tensor([1.0, 5.09, 0.11], dtype=torch.float64)
    down = torch.tensor([-1.0, 4.91, -0.11], dtype=torch.float64)
    mean = torch.stack([up, down, up, down])
    report = describe(Posterior(mean, torch.zeros_like(mean)))
    assert report.is_active.tolist() == [True, False, True]
    assert report.variance.tolist() == pytest.approx([1, 0.0081, 0.0121])
    assert report.kl.tolist() == pytest.approx([0.5, (25 + 0.0081) / 2, 0.0121 / 2])
    assert describe(Posterior(mean, torch.zeros_like(mean)), 0.005).is_active.all()


def test_kl_by_dimension_is_that_of_torch_and_of_the_loss():
    mean, log_var = torch.randn(2, 50, 4, dtype=torch.float64)
    posterior = Normal(mean, (log_var / 2).exp())
    expected = kl_divergence(posterior, Normal(torch.zeros_like(mean), 1.0)).mean(0)
    torch.testing.assert_close(describe(Posterior(mean, log_var)).kl, expected)
    torch.testing.assert_close(gaussian_kl_by_dimension(mean, log_var).mean(0), expected)


def test_the_aggregate_posterior_is_the_mixture_that_torch_knows():
    mean, log_var = torch.randn(2, 700, 3, dtype=torch.float64)  # more than one block of codes
    torch.manual_seed(4)
    report = describe(Posterior(mean, log_var))
    torch.manual_seed(4)
    codes = mean + (log_var / 2).exp() * torch.randn_like(mean)
    parts = Independent(Normal(mean, (log_var / 2).exp()), 1)
    aggregate = MixtureSameFamily(Categorical(torch.ones(700)), parts)
    information = (parts.log_prob(codes) - aggregate.log_prob(codes)).mean().item()
    assert report.mutual_information == pytest.approx(information, abs=1e-6)
    assert report.marginal_kl == pytest.approx(report.kl.sum().item() - information, abs=1e-6)


def test_a_collapsed_posterior_knows_nothing():
    report = describe(posterior_of(500, 8, spread=0.0, deviation=1.0))
    assert report.kl.abs().max() == 0 and not report.is_active.any()
    assert report.mutual_information == pytest.approx(0, abs=1e-9)


def test_the_information_is_at_most_the_logarithm_of_the_number_of_images():
    report = describe(posterior_of(200, 30, spread=10.0, deviation=1e-3))
    assert report.mutual_information == pytest.approx(math.log(200), abs=1e-6)
    repeated = Posterior(*(part[:50].repeat(4, 1) for part in posterior_of(200, 30, 10.0, 1e-3)))
    assert describe(repeated).mutual_information == pytest.approx(math.log(50), abs=1e-6)


def test_the_information_of_a_gaussian_channel_is_the_closed_form():
    """Means from N(0, s^2), noise of deviation t: 1/2 log(1 + s^2 / t^2) nats per dimension."""
    report = describe(posterior_of(4000, 2, spread=0.8, deviation=0.6))
    assert report.mutual_information == pytest.approx(math.log(1 + 0.8**2 / 0.6**2), abs=0.05)
    assert report.marginal_kl == pytest.approx(0, abs=0.05), "0.8^2 + 0.6^2 = 1: the aggregate is the prior"


class Encodes(ToyGenerator):
    """The first two pixels are the means, the third a log-variance."""

    def posterior(self, batch):
        assert not self.training and not torch.is_grad_enabled()
        pixels = batch.image.flatten(1)
        return Posterior(pixels[:, :2], pixels[:, 2:3].expand(-1, 2))


def run(model=None, **options):
    judge, data = PosteriorCollapse(**{"batch_size": 10} | options), make_data(2)
    context = Context(model or Encodes(), data, num_seen=2)
    judge.check(context)
    return judge, judge.rows(context, "test"), data


def test_the_report_is_that_of_the_images_and_of_the_same_ones_each_time():
    judge, rows, data = run()
    images = data.dataset("test", [0, 1])
    pixels = images[torch.arange(len(images))].image.double().flatten(1) / 127.5 - 1
    expected = describe(Posterior(pixels[:, :2], pixels[:, 2:3].expand(-1, 2)))
    torch.testing.assert_close(judge.report.kl, expected.kl, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(judge.report.variance, expected.variance, rtol=1e-5, atol=1e-6)
    assert [row.metric for row in rows] == ["active_units", "mutual_information", "marginal_kl"]
    assert {(row.num_real, row.on_task) for row in rows} == {(len(images), None)}
    first, second = (run(num_images=25)[1] for _ in range(2))
    assert first == second and {row.num_real for row in first} == {25}


def test_picture_and_table_hold_every_dimension(tmp_path):
    judge, _, _ = run()
    pictures = judge.keep(tmp_path, after_task=1)
    assert sorted(file.name for file in (tmp_path / "collapse").iterdir()) == ["task1.csv", "task1.png"]
    assert Image.open(tmp_path / "collapse" / "task1.png").size[0] == pictures["collapse"].shape[1]
    with (tmp_path / "collapse" / "task1.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["kl"]) for row in rows] == judge.report.kl.tolist()
    assert [bool(int(row["is_active"])) for row in rows] == judge.report.is_active.tolist()


def test_a_model_without_a_posterior_and_wrong_options_are_refused():
    with pytest.raises(InputError, match="does not promise HasPosterior"):
        run(ToyGenerator())
    for option in ({"num_images": 1}, {"batch_size": 0}, {"threshold": -1.0}):
        with pytest.raises(ValueError, match="must be at least"):
            PosteriorCollapse(**option)


def test_posteriors_that_are_no_numbers_have_no_active_units():
    class Broken(ToyGenerator):
        def posterior(self, batch):
            mean = torch.zeros(len(batch.image), 4)
            return Posterior(mean.index_fill(1, torch.tensor([2]), torch.nan), mean)

    data = make_data()
    rows = PosteriorCollapse().rows(Context(Broken(), data, num_seen=1), "test")
    assert all(math.isnan(row.value) for row in rows) and len(rows) == 3
