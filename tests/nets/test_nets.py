"""Encoders and decoders at every size they claim."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from lit_gen.nets.conv import ConvDecoder, ConvEncoder
from lit_gen.nets.cwae_nets import CelebAEncoder, CIFAREncoder
from lit_gen.nets.mlp import DenseDecoder, DenseEncoder


@pytest.mark.parametrize(
    ("size", "channels", "condition_size"), [(4, 1, 0), (7, 3, 3), (28, 1, 3), (44, 3, 0), (64, 1, 0)]
)
def test_nets_work_at_every_size(size, channels, condition_size):
    image = torch.rand(2, channels, size, size) * 2 - 1
    condition = torch.eye(3)[:2] if condition_size else None
    for encoder, decoder in (
        (
            DenseEncoder(channels, size, 6, (16,), condition_size),
            DenseDecoder(channels, size, 5, (16,), condition_size),
        ),
        (
            ConvEncoder(channels, size, 6, 4, 16, condition_size),
            ConvDecoder(channels, size, 5, 4, 16, condition_size),
        ),
    ):
        assert encoder(image, condition).shape == (2, 6)
        drawn = decoder(torch.randn(2, 5), condition)
        assert drawn.shape == image.shape
        assert drawn.abs().max() <= 1
        if condition_size:
            with pytest.raises(ValueError, match="condition of size 3"):
                encoder(image)


def test_half_the_gain_before_the_tanh_is_a_sigmoid():
    torch.manual_seed(0)
    net, code = DenseDecoder(1, 4, 3, gain=0.5), torch.randn(5, 3)
    torch.testing.assert_close(net(code).flatten(1), 2 * torch.sigmoid(net.net(code)) - 1)
    net.gain = 1.0
    assert torch.equal(net(code).flatten(1), torch.tanh(net.net(code)))


@pytest.mark.parametrize("make", [partial(DenseEncoder, unit_range=True), CIFAREncoder, CelebAEncoder])
def test_encoders_of_published_comparisons_see_pixels_from_0_to_1(make):
    torch.manual_seed(0)
    net, image = make(3, 32, 4, hidden=()).eval(), torch.rand(2, 3, 32, 32) * 2 - 1
    unit = (image + 1) / 2
    if isinstance(net, DenseEncoder):
        torch.testing.assert_close(net(image), net.net(unit.flatten(1)))
    else:
        torch.testing.assert_close(net(image), net.head(net.convolutions(unit)))
