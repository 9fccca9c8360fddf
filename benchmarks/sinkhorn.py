"""Times the Sinkhorn divergence beside POT's, on the same points and at the same accuracy.

    OMP_NUM_THREADS=1 python benchmarks/sinkhorn.py [sizes=[128,1024]] [dims=[8,64]] [blurs=[0.05,0.5,2.0]]

Error is relative to each implementation's own limit, as they define the divergence a little differently:
`lit-gen` and `sinkhorn2` count the entropy (the dual value), `empirical_sinkhorn_divergence` leaves it out.
The limits come from plain alternating updates in 64 bits, run until nothing changes; for a blur so small that
entropy changes the value by a thousandth at most, from exact transport. Each implementation is timed at the
fastest of its first settings whose error is below `error`: ours over `scaling`, POT's over the number of
iterations, in 32 and in 64 bits.

Times are CPU time of the whole process, the least of several repeats, so that other work on the machine
counts little. "gradient": value and gradient by both sets; POT's functions are timed without one.
"""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import ot
import torch
from timing import options

from lit_gen.losses.sinkhorn import SinkhornDivergence

Value = Callable[[], float]

SCALINGS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
ITERATIONS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100, 200, 500, 1000, 2000, 5000)
_SMALL = 1 / 300  # of the mean cost
DTYPES = (np.float32, np.float64)
_TRIED = 3  # settings that are good enough
LONGEST = 30.0  # seconds of one call, after which a method is given up


class Setting(NamedTuple):
    """One way of computing a divergence."""

    name: str
    text: str
    value: Value


def main() -> None:
    given = options(sizes=[128, 1024], dims=[8, 64], blurs=[0.05, 0.5, 2.0], error=0.01, seconds=1.0)
    error, seconds = given["error"], given["seconds"]
    warnings.simplefilter("ignore")  # POT says that a given number of iterations was not enough
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, POT {ot.__version__}")
    print(f"relative error below {error}; milliseconds of CPU time")
    print(f"{'N':>6}{'d':>5}{'blur':>7}  {'method':<42}{'setting':<20}{'error':>9}{'ms':>10}")
    for size, dim, blur in itertools.product(given["sizes"], given["dims"], given["blurs"]):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(size, dim, generator=generator) * 1.2 + 0.3
        y = torch.randn(size, dim, generator=generator)
        dual, primal = limits(x, y, blur)
        methods = [(ours(x, y, blur, with_gradient), dual) for with_gradient in (False, True)]
        for method, dtype in itertools.product(("sinkhorn", "sinkhorn_log"), DTYPES):
            methods.append((sinkhorn2(x, y, blur, method, dtype), dual))
        methods += [(divergence_of_pot(x, y, blur, dtype), primal) for dtype in DTYPES]
        for settings, goal in methods:
            print(f"{size:>6}{dim:>5}{blur:>7}  {fastest(settings, goal, error, seconds)}", flush=True)


def fastest(settings: Iterator[Setting], goal: float, error: float, seconds: float) -> str:
    """A row of the table for the fastest of the first settings that are near enough to the goal.

    Cost grows along the settings, but not strictly: ours has a slower way for temperatures that fall steeply.
    """
    name, good = "", []  # milliseconds, setting, error
    for setting in settings:
        name = setting.name
        start = time.process_time()
        found = abs(setting.value() / goal - 1)
        if found <= error:
            good.append((1000 * timed(setting.value, seconds), setting.text, found))
        if len(good) == _TRIED or time.process_time() - start > LONGEST:
            break
    if not good:
        return f"{name:<42}none is enough"
    duration, text, found = min(good)
    return f"{name:<42}{text:<20}{found:>9.1e}{duration:>10.2f}"


def timed(value: Value, seconds: float) -> float:
    """The least CPU time of a call."""
    best, until = math.inf, time.process_time() + seconds
    while time.process_time() < until:
        start = time.process_time()
        value()
        best = min(best, time.process_time() - start)
    return best


def ours(x: torch.Tensor, y: torch.Tensor, blur: float, with_gradient: bool) -> Iterator[Setting]:
    x, y = x.clone().requires_grad_(with_gradient), y.clone().requires_grad_(with_gradient)
    name = "lit-gen with gradient" if with_gradient else "lit-gen"
    for scaling in SCALINGS:
        divergence = SinkhornDivergence(blur, scaling)

        def value(divergence: SinkhornDivergence = divergence) -> float:
            found = divergence(x, y)
            if with_gradient:
                torch.autograd.grad(found, (x, y))
            return found.item()

        yield Setting(name, f"scaling {scaling}", value)


def sinkhorn2(x: torch.Tensor, y: torch.Tensor, blur: float, method: str, dtype: type) -> Iterator[Setting]:
    """Three calls of ot.sinkhorn2 and the dual value from their scalings; costs are part of the time."""
    points = [part.numpy().astype(dtype) for part in (x, y)]
    weights = [np.full(len(part), 1 / len(part), dtype=dtype) for part in points]
    for count in ITERATIONS:

        def transport(i: int, j: int, count: int = count) -> float:
            cost = ot.dist(points[i], points[j]) / 2
            _, log = ot.sinkhorn2(
                weights[i], weights[j], cost, blur**2, method=method, numItermax=count, stopThr=0, log=True
            )
            if method == "sinkhorn_log":
                potentials = log["log_u"] - np.log(weights[i]), log["log_v"] - np.log(weights[j])
            else:
                potentials = np.log(log["u"] / weights[i]), np.log(log["v"] / weights[j])
            return blur**2 * float(weights[i] @ potentials[0] + weights[j] @ potentials[1])

        def value(transport: Callable[[int, int], float] = transport) -> float:
            return transport(0, 1) - (transport(0, 0) + transport(1, 1)) / 2

        yield Setting(f"POT sinkhorn2({method}) {np.dtype(dtype)}", f"{count} iterations", value)


def divergence_of_pot(x: torch.Tensor, y: torch.Tensor, blur: float, dtype: type) -> Iterator[Setting]:
    """Its cost is the squared distance, twice ours, and so is its value and its weight of the entropy."""
    points = [part.numpy().astype(dtype) for part in (x, y)]
    for count in ITERATIONS:

        def value(count: int = count) -> float:
            found = ot.bregman.empirical_sinkhorn_divergence(
                *points, 2 * blur**2, numIterMax=count, stopThr=0
            )
            return float(found) / 2

        yield Setting(f"POT empirical_sinkhorn_divergence {np.dtype(dtype)}", f"{count} iterations", value)


def limits(x: torch.Tensor, y: torch.Tensor, blur: float) -> tuple[float, float]:
    """The divergence with the entropy, by the dual value, and without it, by the transport cost."""
    points = [part.double() for part in (x, y)]
    found = {}
    for i, j in ((0, 1), (0, 0), (1, 1)):
        cost = torch.cdist(points[i], points[j], compute_mode="donot_use_mm_for_euclid_dist").square() / 2
        if (i, j) == (0, 1) and blur**2 < _SMALL * float(cost.mean()):
            exact = float(ot.emd2([], [], cost.numpy()))
            return exact, exact
        f, g = converged(cost, blur**2)
        coupling = ((f[:, None] + g[None] - cost) / blur**2).exp() / cost.numel()
        found[i, j] = torch.stack([f.mean() + g.mean(), (coupling * cost).sum()])
    dual, primal = (found[0, 1] - (found[0, 0] + found[1, 1]) / 2).tolist()
    return dual, primal


def converged(cost: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Potentials that a further round of alternating updates does not change, after annealing."""
    first = max(float(cost.max()), 2 * temperature)
    warm = np.geomspace(first, temperature, 30).tolist()
    log_count = math.log(len(cost))
    f = g = cost.new_zeros(len(cost))
    for step in range(2000):
        now = warm[step] if step < len(warm) else temperature
        old = f
        f = -now * (((g[None] - cost) / now).logsumexp(1) - log_count)
        g = -now * (((f[:, None] - cost) / now).logsumexp(0) - log_count)
        if step >= len(warm) and float((f - old).abs().max()) < 1e-7 * temperature:
            break
    return f, g


if __name__ == "__main__":
    main()
