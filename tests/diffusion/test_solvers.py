"""Solvers against the ideal denoiser of a Gaussian, which is known in closed form.

With x_0 ~ N(m, s^2) every linear solver keeps x_t Gaussian, so that its result is an exact line of its start.
"""

from itertools import pairwise

import pytest
import torch
from diffusion_toys import PATHS

from lit_gen.diffusion.outputs import Parts
from lit_gen.diffusion.solvers import (
    DDIM,
    Ancestral,
    Denoised,
    DPMSolver,
    Euler,
    Heun,
    Place,
    posterior,
    way,
)

MEAN, SPREAD = 0.4, 0.3


def ideal(path):
    def denoise(x, t):
        alpha, sigma = (float(level) for level in path.levels(torch.tensor(t, dtype=torch.float64)))
        variance = alpha**2 * SPREAD**2 + sigma**2
        image = MEAN + alpha * SPREAD**2 / variance * (x - alpha * MEAN)
        return Denoised(Parts(image, (x - alpha * image) / sigma), torch.zeros_like(x))

    return denoise


def spread_error(solver, path, steps, spacing="even"):
    """|s' / s - 1| of a deterministic solver, exactly: its end is a line of its start."""
    places = way(path, steps, spacing)
    start = places[0].sigma * torch.tensor([-1.0, 1.0], dtype=torch.float64)
    low, high = solver.solve(ideal(path), start, path, places)
    assert (low + high) / 2 == pytest.approx(MEAN, abs=5e-3), "the mean is reached"
    return abs(float(high - low) / 2 / SPREAD - 1)


@pytest.mark.parametrize("name", ["cosine", "straight", "edm"])
@pytest.mark.parametrize(("solver", "order"), [(DDIM(), 1), (Euler(), 1), (Heun(), 2), (DPMSolver(), 2)])
def test_the_error_falls_at_the_solvers_order(name, solver, order):
    path = PATHS[name]
    # The first and the last step of DPM-Solver are of first order; at an even log ratio they are short.
    spacing = "log_snr" if isinstance(solver, DPMSolver) else "even"
    coarse, fine = (spread_error(solver, path, steps, spacing) for steps in (200, 400))
    assert fine < 0.02
    assert 0.8 * 2**order < coarse / fine < 1.5 * 2**order or fine < 2e-5


@pytest.mark.parametrize("name", ["linear", "cosine chain"])
@pytest.mark.parametrize("solver", [DDIM(), Heun(), DPMSolver()])
def test_along_a_chain_all_its_steps_reach_the_spread(name, solver):
    assert spread_error(solver, PATHS[name], 1000) < 0.015
    assert spread_error(solver, PATHS[name], 100, "log_snr") < 0.05


@pytest.mark.parametrize("solver", [DDIM(eta=1.0), Ancestral("small"), Ancestral("large")])
def test_the_ways_that_draw_reach_mean_and_spread(solver):
    path = PATHS["cosine chain"]
    torch.manual_seed(0)
    places = way(path, 1000)
    x = solver.solve(ideal(path), torch.randn(20_000, dtype=torch.float64), path, places)
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(x.std()) == pytest.approx(SPREAD, rel=0.03)


def test_a_learned_variance_lies_between_the_two():
    path = PATHS["linear"]
    places, start = way(path, 50), torch.randn(4, dtype=torch.float64)

    def result(variance):
        torch.manual_seed(1)
        return Ancestral(variance).solve(ideal(path), start, path, places)

    torch.testing.assert_close(result("learned"), result("small"))


def test_the_posterior_is_that_of_the_two_noising_steps():
    """q(x_s | x_t, x_0) from the joint Gaussian of x_s and x_t given x_0."""
    path = PATHS["linear"]
    far, near = way(path, 1000)[400], way(path, 1000)[437]
    kept = far.alpha / near.alpha
    covariance = torch.tensor(
        [[near.sigma**2, kept * near.sigma**2], [kept * near.sigma**2, far.sigma**2]], dtype=torch.float64
    )
    gain = covariance[0, 1] / covariance[1, 1]
    step = posterior(far, near)
    assert step.of_x == pytest.approx(float(gain))
    assert step.of_image == pytest.approx(float(near.alpha - gain * far.alpha))
    assert step.variance == pytest.approx(float(covariance[0, 0] - gain * covariance[0, 1]))
    assert step.beta == pytest.approx(1 - kept**2)


@pytest.mark.parametrize("name", PATHS)
def test_ddim_without_fresh_noise_can_be_gone_back(name):
    """A fine way there and back gives the start again; and twice the same start gives the same end."""
    path = PATHS[name]
    places = [place for place in way(path, 1000) if 0.05 < place.sigma / (place.alpha + place.sigma) < 0.95]
    start = torch.tensor([0.3, -0.7], dtype=torch.float64)
    there = DDIM().solve(ideal(path), start, path, places)
    assert torch.equal(DDIM().solve(ideal(path), start, path, places), there)
    back = DDIM().solve(ideal(path), there, path, places[::-1])
    torch.testing.assert_close(back, start, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("spacing", ["even", "quadratic", "log_snr"])
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_a_way_falls_from_the_end_to_the_image(name, spacing, steps):
    path = PATHS[name]
    t = [place.t for place in way(path, steps, spacing)]
    assert len(t) == steps + 1 and t[0] == pytest.approx(path.end) and t[-1] == 0
    assert all(here > there for here, there in pairwise(t))


def test_even_steps_of_the_log_ratio_are_even():
    places = way(PATHS["cosine"], 20, "log_snr")[1:-1]
    ratios = torch.tensor([place.log_ratio for place in places], dtype=torch.float64)
    torch.testing.assert_close(ratios.diff(), ratios.diff().mean().expand(18), rtol=1e-6, atol=1e-9)


def test_what_no_solver_can_go_is_refused():
    with pytest.raises(ValueError, match="steps=0"):
        way(PATHS["edm"], 0)
    with pytest.raises(ValueError, match="steps=1001: this chain has 1000"):
        way(PATHS["linear"], 1001)
    with pytest.raises(ValueError, match="solver=ancestral with path=Straight"):
        Ancestral().check(PATHS["straight"])
    assert Place(0.0, 1.0, 0.0).log_ratio == float("inf")
