"""How far a penalty of minibatches pulls codes inwards, and how exact Sinkhorn gradients are.

    OMP_NUM_THREADS=1 python benchmarks/contraction.py [sizes=[64,128,512]] [dim=8] [repeats=20]

"best scale": codes are s times draws from N(0, I), held against as many other draws; the s with the least
mean penalty, which a model is drawn to and which should be 1. "gradient": by codes, relative error and cosine
against exact transport (half the squared Wasserstein-2 distance) of the same points, for codes of scale 1 and
for codes of scale 0.5 that are shifted by 1. Times are CPU time of value and gradient.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import ot
import torch
from timing import options
from torch import Tensor

from lit_gen.losses.latent_penalties import MMD, CramerWold, LatentPenalty, SlicedWasserstein
from lit_gen.losses.sinkhorn import SinkhornDivergence

SCALES = [k / 20 for k in range(8, 29)]
SINKHORN = {
    "Sinkhorn, scaling 0.8": SinkhornDivergence(scaling=0.8),
    "Sinkhorn, scaling 0.95": SinkhornDivergence(),
    "Sinkhorn, scaling 0.99": SinkhornDivergence(scaling=0.99),
    "Sinkhorn, blur 1.5": SinkhornDivergence(blur=1.5),
    "Sinkhorn, unbiased": SinkhornDivergence(unbiased=True),
}
OTHERS = {"MMD": MMD(), "sliced": SlicedWasserstein(), "Cramer-Wold": CramerWold()}


def main() -> None:
    given = options(sizes=[64, 128, 512], dim=8, repeats=20)
    dim, repeats = given["dim"], given["repeats"]
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {dim} codes, {repeats} repeats")
    for size in given["sizes"]:
        print(
            f"\nn = {size}{'':<24}best scale{'ms':>9}   gradient: error, cosine at scale 1; at 0.5, shifted"
        )
        for name, penalty in ({"exact transport": exact} | SINKHORN | OTHERS).items():
            scale, duration = best_scale(penalty, size, dim, repeats), milliseconds(penalty, size, dim)
            errors = ""
            if name in SINKHORN and not SINKHORN[name].unbiased:
                errors = "".join(
                    f"{error:>12.2f}{cosine:>8.3f}"
                    for error, cosine in (
                        gradient_error(penalty, size, dim, repeats, *where) for where in ((1, 0), (0.5, 1))
                    )
                )
            print(f"{name:<32}{scale:>10.2f}{duration:>11.2f}   {errors}", flush=True)


def exact(codes: Tensor, drawn: Tensor) -> Tensor:
    """Half the squared Wasserstein-2 distance; its gradient is that of the coupling as it is."""
    cost = torch.cdist(codes, drawn, compute_mode="donot_use_mm_for_euclid_dist").square() / 2
    plan = ot.emd([], [], cost.detach().double().numpy())
    return (torch.from_numpy(plan).to(cost) * cost).sum()


def best_scale(penalty: LatentPenalty, size: int, dim: int, repeats: int) -> float:
    """Of the parabola through the least mean and its neighbours."""
    totals = torch.zeros(len(SCALES), dtype=torch.float64)
    for seed in range(repeats):
        codes, drawn = draws(size, dim, seed)
        torch.manual_seed(seed)
        totals += torch.stack([penalty(scale * codes, drawn).double() for scale in SCALES])
    least = int(totals[1:-1].argmin()) + 1
    before, here, after = totals[least - 1 : least + 2].tolist()
    step = SCALES[1] - SCALES[0]
    return SCALES[least] + step * (before - after) / (2 * (before - 2 * here + after))


def gradient_error(
    penalty: LatentPenalty, size: int, dim: int, repeats: int, scale: float, shift: float
) -> tuple[float, float]:
    found: Mapping[str, list[Tensor]] = {"ours": [], "exact": []}
    for seed in range(repeats):
        codes, drawn = draws(size, dim, seed)
        codes = (scale * codes + shift / math.sqrt(dim)).requires_grad_()
        found["ours"].append(torch.autograd.grad(penalty(codes, drawn), codes)[0])
        found["exact"].append(torch.autograd.grad(exact(codes, drawn), codes)[0])
    ours, goal = (torch.cat(parts).flatten() for parts in found.values())
    return float((ours - goal).norm() / goal.norm()), float(torch.cosine_similarity(ours, goal, dim=0))


def milliseconds(penalty: Callable[[Tensor, Tensor], Tensor], size: int, dim: int) -> float:
    """The least CPU time of value and gradient."""
    codes, drawn = draws(size, dim, 0)
    codes.requires_grad_()
    best = math.inf
    for _ in range(10):
        start = time.process_time()
        torch.autograd.grad(penalty(codes, drawn), codes)
        best = min(best, time.process_time() - start)
    return 1000 * best


def draws(size: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, dim, generator=generator), torch.randn(size, dim, generator=generator)


if __name__ == "__main__":
    main()
