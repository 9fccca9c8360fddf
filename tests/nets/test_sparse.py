"""k-sparse codes."""

from __future__ import annotations

import pytest
import torch

from lit_gen.core.types import InputError
from lit_gen.nets.sparse import KeepLargest


def test_exactly_the_largest_numbers_stay_and_get_gradients():
    torch.manual_seed(0)
    code = torch.randn(6, 9, requires_grad=True)
    sparse = KeepLargest(4)(code)
    least = code.sort(1, descending=True).values[:, 3:4]
    assert torch.equal(sparse, torch.where(code >= least, code, 0))
    assert ((sparse != 0).sum(1) == 4).all()
    sparse.sum().backward()
    assert torch.equal(code.grad, (sparse != 0).float())


def test_no_more_than_the_number_stays_where_numbers_are_equal_and_twice_is_as_good_as_once():
    assert ((KeepLargest(2)(torch.ones(3, 5)) != 0).sum(1) == 2).all()
    once = KeepLargest(3)(torch.rand(4, 8))
    assert torch.equal(KeepLargest(3)(once), once)


def test_more_than_there_are_is_refused():
    with pytest.raises(InputError, match="count=6: a code has 5"):
        KeepLargest(6)(torch.randn(2, 5))
