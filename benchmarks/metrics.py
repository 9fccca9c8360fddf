"""Times every metric beside torch-fidelity's on the same features, with the memory that each takes on top.

    OMP_NUM_THREADS=1 python benchmarks/metrics.py [samples=10000] [features=[84,2048]] [only=[frechet,prd]]

Every measurement has a process of its own, so that none profits from memory that another one left behind.
"more memory" is the peak of the resident set above what it was with the features made and the libraries
loaded.
"""

from __future__ import annotations

import itertools
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from timing import options
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from lit_gen.metrics.frechet import FrechetDistance
from lit_gen.metrics.kernel import InceptionScore, KernelDistance
from lit_gen.metrics.neighbours import Neighbours
from lit_gen.metrics.prd import PRD

Compute = Callable[[Tensor, Tensor], dict[str, float]]  # real, generated


def main() -> None:
    given = options(samples=10_000, features=[84, 2048], only=list(OURS))
    threads = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"{given['samples']} samples of each, {threads}; cpu: seconds of all threads together")
    print(f"{'features':>8} {'metric':<18}{'by':<16}{'seconds':>8}{'cpu':>8}{'more memory':>13}  values")
    for num_features, metric in itertools.product(given["features"], given["only"]):
        for by in [by for by, computers in BY.items() if metric in computers]:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(measure, (by, metric, given["samples"], num_features))
            print(f"{num_features:>8} {metric:<18}{by:<16}{found}", flush=True)


def measure(by: str, metric: str, num_samples: int, num_features: int) -> str:
    compute = BY[by][metric]
    # Loads what is loaded late, and starts thread pools.
    compute(*clouds(100, 5))
    real, fake = clouds(num_samples, num_features)
    reset_peak()
    before, start, cpu_start = peak_megabytes(), time.perf_counter(), time.process_time()
    values = compute(real, fake)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    named = ", ".join(f"{name} {value:.5g}" for name, value in values.items())
    return f"{seconds:>8.2f}{cpu:>8.2f}{peak_megabytes() - before:>10.0f} MB  {named}"


def clouds(num_samples: int, num_features: int) -> tuple[Tensor, Tensor]:
    """Two Gaussian clouds, of real and generated; directions differ in length, as those of real features."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.logspace(0, -1.5, num_features)
    turn = torch.linalg.qr(torch.randn(num_features, num_features, generator=generator)).Q
    real = (torch.randn(num_samples, num_features, generator=generator) * scale) @ turn
    fake = (torch.randn(num_samples, num_features, generator=generator) * scale * 0.95) @ turn
    return real + 0.4, fake + 0.4


def reset_peak() -> None:
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def peak_megabytes() -> float:
    """Peak of the resident set since `reset_peak`; where that does nothing, since the process began."""
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def ours(make: Callable) -> Compute:
    def compute(real: Tensor, fake: Tensor) -> dict[str, float]:
        metric = make(real.shape[1])
        for features, is_real in ((real, True), (fake, False)):
            for block in torch.arange(len(features)).split(256):
                metric.update(features[block], is_real, block, logits=features[block, :1000])
        return {name: value.item() for name, value in metric.compute().items()}

    return compute


OURS: dict[str, Compute] = {
    "frechet": ours(FrechetDistance),
    "neighbours": ours(Neighbours),
    "prd": ours(PRD),
    "kernel": ours(KernelDistance),
    "inception_score": ours(InceptionScore),
}
THEIRS: dict[str, Compute] = {
    "frechet": lambda real, fake: fid_statistics_to_metric(
        *map(fid_features_to_statistics, (fake, real)), verbose=False
    ),
    "neighbours": lambda real, fake: prc_features_to_metric(fake, real, verbose=False),
    "kernel": lambda real, fake: kid_features_to_metric(
        fake, real, kid_subset_size=min(1000, len(real)), verbose=False
    ),
    "inception_score": lambda real, fake: isc_features_to_metric(fake[:, :1000]),
}
BY = {"lit-gen": OURS, "torch-fidelity": THEIRS}


if __name__ == "__main__":
    main()
