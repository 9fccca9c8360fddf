"""What is refused before it takes more memory than there is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_gen.core import memory
from lit_gen.core.memory import OutOfMemory, WithinMemory, refuse_beyond_memory

GIGABYTE = 10**9


@pytest.fixture(autouse=True)
def one_gigabyte(monkeypatch):
    monkeypatch.setattr(memory, "machine_memory", lambda: GIGABYTE)


def test_what_fits_exactly_is_taken():
    refuse_beyond_memory(GIGABYTE, "all of it")
    with pytest.raises(OutOfMemory, match=r"more takes 1,500\.0 GB, and this machine has 1\.0 GB of memory"):
        refuse_beyond_memory(1500 * GIGABYTE, "more")


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(10**6, 10**6),
        lambda: torch.zeros(10**9, dtype=torch.int64),
        lambda: torch.randn(10**5, 10**5, generator=torch.Generator()),
        lambda: torch.arange(10**9),
        lambda: torch.empty(2**62, 2**62),
        lambda: torch.empty(10**30),
        lambda: [torch.empty(10**8) for _ in range(3)],
    ],
)
def test_a_tensor_that_does_not_fit_is_not_made(make):
    with WithinMemory(), pytest.raises(OutOfMemory, match="a tensor of "):
        make()


def test_weights_and_random_numbers_are_the_same_under_watch():
    def made() -> list[torch.Tensor]:
        torch.manual_seed(0)
        own = torch.Generator().manual_seed(1)
        layer, drawn = nn.Linear(3, 5), torch.rand(4, generator=own)
        return [*layer.parameters(), drawn, torch.randperm(9), torch.full((2,), 3.0), torch.randn(2)]

    plain = made()
    with WithinMemory():
        watched = made()
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))


def test_mistakes_of_shapes_stay_what_they_are():
    with WithinMemory(), pytest.raises(RuntimeError, match="negative dimension"):
        torch.empty(-1)
