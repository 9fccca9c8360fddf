"""Every metric gives the same for any number of processes, also if one of them has no images."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed

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
@pytest.mark.parametrize("world", [2, 3])
def test_merged_states_of_several_processes_give_the_same(make, world):
    alone = make(6)
    feed(alone, 0, 1)
    merged = make(6)
    for rank in reversed(range(world)):
        part = make(6)
        feed(part, rank, world)
        merged.merge_state(part)
    torch.testing.assert_close(values(merged), values(alone), rtol=1e-5, atol=0, equal_nan=False)


@pytest.mark.parametrize("make", MAKERS)
def test_empty_blocks_change_nothing(make):
    metric, with_empty = make(6), make(6)
    feed(metric, 0, 1)
    for real in (True, False):
        with_empty.update(torch.empty(0, 6), real, torch.empty(0, dtype=torch.long), torch.empty(0, 4))
    feed(with_empty, 0, 1)
    assert torch.equal(values(metric), values(with_empty))


@pytest.mark.parametrize("make", MAKERS)
def test_reset_forgets_everything(make):
    metric = make(6)
    feed(metric, 0, 1)
    first = values(metric)
    metric.reset()
    assert values(metric).isnan().all()
    metric.reset()
    feed(metric, 0, 1)
    assert torch.equal(values(metric), first)


@pytest.mark.parametrize("make", MAKERS)
def test_autocast_changes_nothing(make):
    metric, inside = make(6), make(6)
    feed(metric, 0, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        feed(inside, 0, 1)
        torch.testing.assert_close(values(inside), values(metric), rtol=1e-12, atol=0)


@pytest.mark.slow
def test_gathered_over_processes_of_which_one_has_no_real_images(tmp_path):
    world, alone = 2, []
    for make in MAKERS:
        metric = make(6)
        feed(metric, 0, 1)
        alone.append(values(metric))
    command = [sys.executable, __file__, str(world), str(tmp_path)]
    processes = [subprocess.Popen([*command, str(rank)]) for rank in range(world)]
    assert [process.wait(timeout=300) for process in processes] == [0] * world
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


if __name__ == "__main__":
    torch.set_num_threads(1)
    _compute(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
