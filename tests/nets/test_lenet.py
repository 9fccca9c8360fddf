"""LeNet against the published layer sizes."""

import pytest
import torch
import torch.nn.functional as F

from lit_gen.nets.lenet import LeNet


def test_sizes_are_those_of_the_source():
    # Two convolutions, 256 -> 120 -> 84 -> 10, biases included.
    layers = [(1 * 25 + 1) * 6, (6 * 25 + 1) * 16, 257 * 120, 121 * 84, 85 * 10]
    assert sum(p.numel() for p in LeNet(1, 10).parameters()) == sum(layers)


def test_features_are_taken_before_the_relu_that_the_classes_see():
    net = LeNet(3, 7)
    features, logits = net(torch.rand(5, 3, 28, 28) * 2 - 1)
    assert features.shape == (5, 84) and logits.shape == (5, 7)
    assert (features < 0).any()
    torch.testing.assert_close(logits, F.linear(features.relu(), net.classes[1].weight, net.classes[1].bias))


def test_other_sizes_are_resized_to_its_own():
    net, small = LeNet(1, 10), torch.rand(4, 1, 8, 8) * 2 - 1
    grown = F.interpolate(small, (28, 28), mode="bilinear", align_corners=False)
    assert torch.equal(net(small)[0], net(grown)[0])
    assert LeNet(1, 10, size=16)(small)[0].shape == (4, 84)


def test_a_size_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="size=15"):
        LeNet(1, 10, size=15)
