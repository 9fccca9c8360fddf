"""Paths: the published tables to their printed digits, and exact ways from one output to any other."""

import math

import pytest
import torch
from diffusion_toys import PATHS

from lit_gen.diffusion.outputs import error_ratio, mixture, noised, parts, scaled_input, target
from lit_gen.diffusion.path import EDM, Table, cosine, linear, linear_combine


def times(path, count=50):
    part = torch.linspace(0.02, 0.98, count, dtype=torch.float64)
    return path.at(part)


@pytest.mark.parametrize(
    ("num_steps", "first", "last", "left"),
    [(1000, 0.001, 0.02, 2.57e-5), (500, 0.002, 0.04, 2.39e-5)],
)
def test_the_linear_tables_are_the_published_ones(num_steps, first, last, left):
    path = Table(linear(num_steps))
    assert path.exact["beta"][[1, -1]].tolist() == pytest.approx([first, last])
    assert path.exact["kept"][-1] == pytest.approx(left, rel=2e-3)


@pytest.mark.parametrize(("num_steps", "second", "last"), [(900, 0.001135, 0.0222), (468, 0.00222, 0.0427)])
def test_the_first_step_of_a_combined_table_is_the_denoisers(num_steps, second, last):
    betas = linear_combine(num_steps, 0.1)
    assert betas[0] == 0.1
    assert betas[1] == pytest.approx(second, abs=5e-6)
    assert betas[-1] == pytest.approx(last, abs=5e-5)


def test_the_cosine_table_keeps_what_its_formula_says():
    """Nichol & Dhariwal 2021, eq. 17: kept_t = f(t) / f(0) wherever no beta was cut."""
    path = Table(cosine(100))
    part = torch.arange(1, 99) / 100
    f = torch.cos((part + 0.008) / 1.008 * math.pi / 2).square() / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(torch.from_numpy(path.exact["kept"])[1:99].float(), f, rtol=1e-5, atol=1e-7)
    assert max(path.exact["beta"]) == 0.999


def test_indices_of_a_tenth_of_noise_are_those_of_the_thesis():
    for betas, index in ((linear(500), 32), (linear(1000, 1e-4), 97), (linear(1000), 64)):
        assert abs(Table(betas).exact["kept"][1:] - 0.9).argmin() == index  # counted from 0, as theirs


@pytest.mark.parametrize("name", PATHS)
def test_the_velocity_is_the_derivative_along_the_path(name):
    path = PATHS[name]
    t = times(path)
    alpha, sigma = path.levels(t)
    a, s = path.rates(t)
    torch.testing.assert_close(alpha * s - sigma * a, torch.ones_like(t), rtol=1e-9, atol=1e-9)
    if not isinstance(path, Table):
        t = t.clone().requires_grad_()
        alpha, sigma = path.levels(t)
        for level, rate in ((alpha, a), (sigma, s)):
            (slope,) = torch.autograd.grad((level + 0 * t).sum(), t, retain_graph=True)
            torch.testing.assert_close(slope, path.speed * rate, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("output", ["eps", "x0", "v", "F"])
def test_every_output_gives_image_and_noise_back(name, output):
    path = PATHS[name]
    t = times(path)
    torch.manual_seed(0)
    image, noise = torch.randn(2, len(t), 3, dtype=torch.float64)
    x = noised(path, t, image, noise)
    found = parts(target(output, path, t, image, noise), output, path, t, x)
    # What 1 / alpha or 1 / sigma magnifies is the rounding of x itself.
    torch.testing.assert_close(found.image, image, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.noise, noise, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", PATHS)
def test_an_error_is_a_known_multiple_in_every_other_output(name):
    path = PATHS[name]
    t = times(path)
    torch.manual_seed(0)
    image, noise, wrong = torch.randn(3, len(t), 1, dtype=torch.float64)
    x = noised(path, t, image, noise)
    for output in ("eps", "x0", "v", "F"):
        found = parts(target(output, path, t, image, noise) + wrong, output, path, t, x)
        for space in ("eps", "x0", "v", "F"):
            error = target(space, path, t, *found) - target(space, path, t, image, noise)
            expected = error_ratio(space, output, path, t)[:, None] * wrong.abs()
            torch.testing.assert_close(error.abs(), expected, rtol=1e-5, atol=1e-6)


def test_the_preconditioning_is_edms():
    """Karras et al. 2022, table 1: c_skip, c_out and c_in."""
    path, t = EDM(sigma_data=0.5), torch.tensor([0.3, 2.0], dtype=torch.float64)
    spread = (t**2 + 0.25).sqrt()
    x, said = torch.ones(2, 1, dtype=torch.float64), torch.full((2, 1), 0.7, dtype=torch.float64)
    image = parts(said, "F", path, t, x).image
    expected = 0.25 / spread**2 + 0.7 * t * 0.5 / spread
    torch.testing.assert_close(image[:, 0], expected)
    torch.testing.assert_close(scaled_input(x, "F", path, t)[:, 0], 1 / spread)


def test_with_unit_variance_what_edm_leaves_to_the_network_is_minus_the_velocity():
    path = PATHS["linear"]
    t = times(path)
    for made, velocity in zip(mixture("F", path, t), mixture("v", path, t), strict=True):
        torch.testing.assert_close(made, -velocity)


@pytest.mark.parametrize("betas", [[], [0.1, 1.0], [0.0], [float("nan")]])
def test_what_is_no_chain_is_refused(betas):
    with pytest.raises(ValueError, match="betas"):
        Table(betas)
