"""Every metric gives the same for any number of processes, also if one of them has no images."""

import multiprocessing

import pytest
import torch
import torch.distributed

from lit_gen.metrics.classes import ClassHistogram
from lit_gen.metrics.frechet import FrechetDistance
from lit_gen.metrics.kernel import InceptionScore, KernelDistance
from lit_gen.metrics.neighbours import Neighbours
from lit_gen.metrics.prd import PRD

MAKERS = [
    FrechetDistance,
    Neighbours,
    lambda size: PRD(size, num_runs=2),
    lambda size: KernelDistance(size, num_subsets=5, subset_size=50),
    InceptionScore,
    ClassHistogram,
]
BLOCK = 32
pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method")


def images():
    generator = torch.Generator().manual_seed(0)
    sets = (torch.randn(210, 6, generator=generator) + 3, torch.randn(170, 6, generator=generator) * 1.3 + 3)
    return [(each, torch.arange(len(each)), each[:, :4] * 2) for each in sets]


def feed(metric, rank, world, reals=None):
    """Gives the metric every block whose number modulo `world` is `rank`; `reals` take the real ones."""
    for real, (features, index, logits) in zip((True, False), images(), strict=True):
        for number, block in enumerate(index.split(BLOCK)):
            if (rank in reals) if real and reals else (number % world == rank):
                metric.update(features[block], real, block, logits[block])


def values(metric):
    return torch.stack(list(metric.compute().values())).double()


@pytest.mark.parametrize("make", MAKERS)
def test_merged_states_of_several_processes_give_the_same(make):
    alone, merged = make(6), make(6)
    feed(alone, 0, 1)
    for rank in (2, 1, 0):
        part = make(6)
        feed(part, rank, 3)
        merged.merge_state(part)
    torch.testing.assert_close(values(merged), values(alone), rtol=1e-5, atol=0, equal_nan=False)


@pytest.mark.parametrize("make", MAKERS)
def test_reset_forgets_everything_and_empty_blocks_change_nothing(make):
    metric = make(6)
    feed(metric, 0, 1)
    first = values(metric)
    metric.reset()
    for real in (True, False):
        metric.update(torch.empty(0, 6), real, torch.empty(0, dtype=torch.long), torch.empty(0, 4))
    assert values(metric).isnan().all()
    feed(metric, 0, 1)
    assert torch.equal(values(metric), first)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("real", [True, False])
def test_features_that_are_no_numbers_give_no_score(make, real):
    metric = make(6)
    feed(metric, 0, 1)
    bad = torch.full((1, 6), torch.nan)
    metric.update(bad, real, torch.tensor([500]), bad[:, :4])
    if not (real and isinstance(metric, InceptionScore)):  # which looks at generated images only
        assert values(metric).isnan().all()


@pytest.mark.parametrize("make", MAKERS)
def test_autocast_changes_nothing(make):
    metric, inside = make(6), make(6)
    feed(metric, 0, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        feed(inside, 0, 1)
        torch.testing.assert_close(values(inside), values(metric), rtol=1e-12, atol=0)


def test_gathered_over_processes_of_which_one_has_no_real_images(tmp_path):
    world, alone = 2, []
    for make in MAKERS:
        metric = make(6)
        feed(metric, 0, 1)
        alone.append(values(metric))
    # Forked, since a fresh process spends seconds on imports.
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_compute, args=(world, tmp_path, rank)) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * world
    for rank in range(world):
        for expected, found in zip(alone, torch.load(tmp_path / f"{rank}.pt"), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def _compute(world, folder, rank):
    store = torch.distributed.FileStore(str(folder / "store"), world)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    found = []
    for make in MAKERS:
        metric = make(6)
        feed(metric, rank, world, reals=[0])
        found.append(values(metric))
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()
