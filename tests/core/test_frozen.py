"""A frozen copy stays what it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import assert_same_state

from lit_gen.core.frozen import FrozenCopy, trainable


def test_a_frozen_copy_ignores_its_parents_modes_and_gives_no_gradient():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    parent = nn.ModuleDict({"net": net, "copy": FrozenCopy(net)})
    parent.train()
    assert net.training and not any(m.training for m in parent["copy"].modules())
    with pytest.raises(RuntimeError, match="never trained"):
        parent["copy"].requires_grad_(True)
    assert trainable(parent) == list(net.parameters())
    parent["copy"](torch.randn(4, 3))
    assert torch.equal(parent["copy"].net[1].running_mean, torch.zeros(3)), "batch statistics did not move"


def test_refresh_takes_over_weights_and_buffers_without_sharing_them():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    copy = FrozenCopy(net)
    net.train()
    with torch.no_grad():
        net[0].weight += 1
        net(torch.randn(8, 3))
    copy.refresh(net)
    assert_same_state(net, copy.net)
    before = copy.net[0].weight.clone()
    with torch.no_grad():
        net[0].weight += 1
    assert torch.equal(copy.net[0].weight, before)


def test_shared_parameters_are_yielded_once():
    layer = nn.Linear(2, 2)
    assert len(trainable(nn.Sequential(layer, layer), layer)) == 2
