"""The variational bound of a Gaussian with its ideal denoiser against closed forms; time samplers."""

import math

import pytest
import torch

from lit_gen.diffusion.bound import (
    bits_per_dimension,
    discretised_gaussian,
    log_variance,
    prior_term,
    step_term,
)
from lit_gen.diffusion.outputs import noised
from lit_gen.diffusion.path import EDM, Cosine, Straight, Table, linear, linear_combine
from lit_gen.diffusion.times import FirstStep, LogitNormal, LogNormal, LossAware, Uniform
from lit_gen.diffusion.weights import Bound, MinSNR, Preconditioned, Simple

SPREAD = 0.5
CPU = torch.device("cpu")


def test_a_level_has_the_probability_of_its_bin():
    levels = (torch.arange(256, dtype=torch.float64) * 2 / 255 - 1).view(1, 1, 16, 16)
    for mean, spread in ((0.0, 0.5), (0.9, 0.01), (-1.3, 0.2)):
        log_p = discretised_gaussian(
            levels, torch.full_like(levels, mean), torch.tensor(math.log(spread), dtype=torch.float64)
        )
        assert float(log_p.exp().sum()) == pytest.approx(1.0, abs=1e-9)
        normal = torch.distributions.Normal(torch.tensor(mean, dtype=torch.float64), spread)
        inner = levels[..., 1:-1, :]
        expected = normal.cdf(inner + 1 / 255) - normal.cdf(inner - 1 / 255)
        far = expected > 1e-9
        torch.testing.assert_close(log_p[..., 1:-1, :].exp()[far], expected[far], rtol=1e-6, atol=1e-12)


def test_terms_of_a_gaussian_have_their_expected_values():
    """With the ideal denoiser the expected divergence of a step is known: Kingma et al. 2021, eq. 13."""
    path = Table(linear(100))
    torch.manual_seed(0)
    x0 = SPREAD * torch.randn(20_000, 1, 1, 1)
    for step in (2, 30, 100):
        t = torch.full((len(x0),), float(step))
        alpha, sigma = (float(level) for level in path.levels(t[:1].double()))
        x = noised(path, t, x0, torch.randn_like(x0))
        gain = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
        log_var = log_variance(path, t, None, "large")
        found = step_term(path, t, x0, x, gain * x, log_var).mean()
        kept, before = path.exact["kept"][step], path.exact["kept"][step - 1]
        beta = path.exact["beta"][step]
        true = beta * (1 - before) / (1 - kept)
        residual = SPREAD**2 * sigma**2 / (alpha**2 * SPREAD**2 + sigma**2)
        gap = (math.sqrt(before) * beta / (1 - kept)) ** 2 * residual
        expected = 0.5 * (math.log(beta / true) + true / beta - 1 + gap / beta)
        assert float(found) == pytest.approx(expected, rel=0.02)


def test_the_prior_term_is_a_divergence_between_gaussians():
    path = Table(linear(1000))
    x0 = torch.linspace(-1, 1, 4).view(2, 2, 1, 1)
    alpha, sigma = path.exact["alpha"][-1], path.exact["sigma"][-1]
    normal = torch.distributions.Normal
    expected = (
        torch.distributions.kl_divergence(normal(alpha * x0, sigma), normal(0.0, 1.0)).flatten(1).sum(1)
    )
    torch.testing.assert_close(prior_term(path, x0), expected.float(), rtol=1e-3, atol=1e-6)
    assert float(bits_per_dimension(torch.tensor(math.log(2) * 6), 3)) == pytest.approx(2.0)


def test_a_learned_variance_goes_from_the_posteriors_to_beta():
    path, t = Table(linear(50)), torch.tensor([1.0, 2.0, 50.0])
    shape = (3, 1, 2, 2)
    small = log_variance(path, t, torch.zeros(shape), "learned")
    large = log_variance(path, t, torch.ones(shape), "learned")
    torch.testing.assert_close(small, log_variance(path, t, None, "small").expand(shape))
    torch.testing.assert_close(large[1:, 0, 0, 0].exp(), torch.tensor(path.exact["beta"])[[2, 50]].float())


def test_the_bounds_weights_are_those_of_its_terms():
    """Weight times squared error in the image, over all steps, is the sum of the mean gaps over variances."""
    path = Table(linear(40))
    t = torch.arange(2, 41).float()
    weight = Bound()(path, "x0", t) / path.num_steps
    kept, before = (torch.tensor(path.exact["kept"])[s] for s in (slice(2, None), slice(1, -1)))
    beta = torch.tensor(path.exact["beta"])[2:]
    true = beta * (1 - before) / (1 - kept)
    expected = 0.5 * (before.sqrt() * beta / (1 - kept)).square() / true
    torch.testing.assert_close(weight, expected.float(), rtol=1e-4, atol=1e-4)


def test_the_bounds_weight_of_a_continuous_path_is_the_fall_of_its_ratio():
    for path in (Cosine(), Straight(), EDM()):
        t = path.at(torch.linspace(0.1, 0.9, 9, dtype=torch.float64)).requires_grad_()
        alpha, sigma = path.levels(t)
        (slope,) = torch.autograd.grad((alpha / sigma).square().sum(), t)
        torch.testing.assert_close(Bound()(path, "x0", t.detach()), -0.5 * slope, rtol=1e-6, atol=1e-9)


def test_weights_agree_with_their_formulas():
    t = torch.tensor([0.1, 1.0, 10.0])
    edm = Preconditioned()(EDM(), "x0", t)
    torch.testing.assert_close(edm, (t**2 + 0.25) / (t * 0.5) ** 2)
    path = Table(linear(100))
    t = torch.tensor([1.0, 50.0, 100.0])
    ratio = (path.levels(t).alpha / path.levels(t).sigma).square()
    torch.testing.assert_close(MinSNR(5.0)(path, "eps", t), (5 / ratio).clamp(max=1))
    assert torch.equal(Simple()(path, "eps", t), torch.ones(3))


@pytest.mark.parametrize(("num_steps", "share", "weight"), [(900, 0.0910, 0.0122), (468, 0.0911, 0.0235)])
def test_the_first_step_is_drawn_as_often_as_published(num_steps, share, weight):
    path = Table(linear_combine(num_steps, 0.1))
    found = FirstStep().shares(path)
    assert float(found[0]) == pytest.approx(share, abs=6e-5)
    assert 1 / (num_steps * float(found[0])) == pytest.approx(weight, abs=6e-5)
    torch.manual_seed(0)
    drawn = FirstStep().draw(50_000, path, CPU)
    assert float((drawn.t == 1).float().mean()) == pytest.approx(share, abs=0.005)
    assert torch.equal(FirstStep(only=True).draw(3, path, CPU).t, torch.ones(3))


def test_weights_of_an_uneven_sampler_make_up_for_it():
    """Mean of weight times any function of the time is its mean over even times."""
    path = Table(linear(50))
    aware = LossAware(50, history=2)
    for _ in range(2):
        aware.note(torch.arange(1, 51).float(), torch.arange(1, 51).float())
    shares = aware.shares()
    assert float(shares[-1] / shares[0]) == pytest.approx(50, rel=0.06)
    torch.manual_seed(0)
    drawn = aware.draw(200_000, path, CPU)
    assert float((drawn.weight * drawn.t.square()).mean()) == pytest.approx(858.5, rel=0.01)
    assert float(drawn.weight.mean()) == pytest.approx(1.0, rel=0.01)


def test_until_every_step_has_its_losses_all_are_alike():
    aware = LossAware(4, history=2)
    aware.note(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([9.0, 1.0, 1.0]))
    assert torch.equal(aware.shares(), torch.full((4,), 0.25))


def test_times_lie_on_their_paths():
    torch.manual_seed(0)
    chain = Uniform(stratified=True).draw(1000, Table(linear(50)), CPU).t
    counts = chain.long().bincount(minlength=51)
    assert counts[0] == 0 and counts[1:].min() >= 19 and counts[1:].max() <= 21, "every step as often"
    level = LogNormal(-1.2, 1.2).draw(100_000, EDM(), CPU).t.log()
    assert float(level.mean()) == pytest.approx(-1.2, abs=0.02)
    middle = LogitNormal().draw(100_000, Straight(), CPU).t.logit()
    assert float(middle.std()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("sampler", "path"),
    [(LogNormal(), Straight()), (FirstStep(), EDM()), (LossAware(5), Table(linear(6)))],
)
def test_a_sampler_of_other_paths_is_refused(sampler, path):
    with pytest.raises(ValueError, match="times="):
        sampler.check(path)
