"""The noise generator, the discriminator of codes, priors, and the nets of the published comparison."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from lit_gen.nets.cwae_nets import CelebADecoder, CelebAEncoder, CIFARDecoder, CIFAREncoder
from lit_gen.nets.latent_discriminator import LatentDiscriminator
from lit_gen.nets.mlp import DenseDecoder, DenseEncoder
from lit_gen.nets.noise_generator import NoiseGenerator
from lit_gen.nets.priors import Ring, StandardNormal, UniformBall, UniformBox

CPU = torch.device("cpu")


def count(module):
    return sum(p.numel() for p in module.parameters())


def linear(*sizes):
    return sum((a + 1) * b for a, b in pairwise(sizes))


def test_the_noise_generator_has_the_published_layers():
    told, untold = NoiseGenerator(10, 20, 128, 9), NoiseGenerator(10, 20, 128)
    assert count(told) == linear(10, 256) + linear(9, 128) + linear(384, 512, 512, 20)
    assert count(untold) == linear(10, 256) + linear(256, 512, 512, 20)
    assert told(torch.randn(3, 10), torch.eye(9)[:3]).shape == (3, 20)
    assert untold(torch.randn(3, 10)).shape == (3, 20)


def test_the_noise_generator_hears_noise_and_condition():
    generator, noise = NoiseGenerator(4, 3, 8, 2), torch.randn(1, 4)
    a, b, c = generator(noise.repeat(3, 1) + torch.tensor([[0.0], [0.0], [1.0]]), torch.eye(2)[[0, 1, 0]])
    assert not torch.allclose(a, b) and not torch.allclose(a, c)


def test_the_discriminator_gives_one_logit_per_code():
    net = LatentDiscriminator(64)
    assert count(net) == linear(64, 512, 512, 512, 512, 1)
    assert net(torch.randn(5, 64)).shape == (5,)


def test_the_published_dense_nets():
    encoder, decoder = (
        DenseEncoder(1, 28, 8, (200, 200, 200), slope=0.0),
        DenseDecoder(1, 28, 8, (200, 200, 200)),
    )
    assert count(encoder) == linear(784, 200, 200, 200, 8)
    assert count(decoder) == linear(8, 200, 200, 200, 784)
    encoder.net[0].bias.data.fill_(-100.0)
    # ReLU lets nothing of them through.
    rest = encoder.net[1:](torch.full((1, 200), -100.0))
    torch.testing.assert_close(encoder(torch.zeros(1, 1, 28, 28)), rest)
    torch.testing.assert_close(rest, encoder.net[2:](torch.zeros(1, 200)))


def test_the_published_nets_for_cifar():
    encoder, decoder = CIFAREncoder(3, 32, 64), CIFARDecoder(3, 32, 64)
    convolutions = (3 * 4 + 1) * 3 + (3 * 4 + 1) * 32 + 2 * (32 * 4 + 1) * 32
    assert count(encoder) == convolutions + linear(16 * 16 * 32, 128, 64)
    transposed = 2 * (32 * 4 + 1) * 32 + (32 * 9 + 1) * 32 + (32 * 4 + 1) * 3
    assert count(decoder) == linear(64, 128, 16 * 16 * 32) + transposed
    image = decoder(encoder(torch.rand(2, 3, 32, 32)))
    assert image.shape == (2, 3, 32, 32) and image.abs().max() <= 1


def test_the_published_nets_for_celeba():
    encoder, decoder = CelebAEncoder(3, 64, 64), CelebADecoder(3, 64, 64)
    weights = 16 * (3 * 128 + 128 * 256 + 256 * 512 + 512 * 1024)
    assert count(encoder) == weights + 2 * (128 + 256 + 512 + 1024) + linear(16384, 64)
    transposed = 16 * (1024 * 512 + 512 * 256 + 256 * 128) + 2 * (512 + 256 + 128) + (128 * 9 * 3 + 3)
    assert count(decoder) == linear(64, 1024 * 8 * 8) + transposed
    with torch.no_grad():
        image = decoder(encoder(torch.rand(2, 3, 64, 64)))
    assert image.shape == (2, 3, 64, 64) and image.abs().max() <= 1


@pytest.mark.parametrize(
    ("encoder", "decoder", "size"),
    [(CIFAREncoder, CIFARDecoder, 8), (CelebAEncoder, CelebADecoder, 16)],
    ids=["cifar", "celeba"],
)
def test_the_convolutional_nets_take_other_sizes_and_conditions(encoder, decoder, size):
    condition = torch.eye(2)
    code = encoder(1, size, 5, (16,), 2)(torch.rand(2, 1, size, size), condition)
    assert code.shape == (2, 5)
    assert decoder(1, size, 5, (16,), 2)(code, condition).shape == (2, 1, size, size)
    with pytest.raises(ValueError, match=f"size={size + 1}"):
        encoder(1, size + 1, 5)


def test_priors_have_their_moments_and_bounds():
    torch.manual_seed(0)
    n = 20_000
    for prior, variance in (
        (StandardNormal(), 1.0),
        (UniformBall(2.0), 4.0 / 5),  # radius^2 / (size + 2)
        (Ring(1.5, 0.6), (1.5**2 + 0.6**2 / 12) / 3),
        (UniformBox(-1.0, 2.0), 9 / 12),
    ):
        points = prior(n, 3, CPU)
        assert points.shape == (n, 3) and points.dtype == torch.float32
        torch.testing.assert_close(points.var(0), torch.full((3,), variance), rtol=0.05, atol=0)
    lengths = UniformBall(2.0)(n, 3, CPU).norm(dim=1)
    assert lengths.max() <= 2.0 + 1e-5
    assert (lengths < 1).float().mean().item() == pytest.approx(1 / 8, abs=0.01)
    lengths = Ring(1.5, 0.6)(n, 2, CPU).norm(dim=1)
    assert lengths.min() >= 1.2 - 1e-5 and lengths.max() <= 1.8 + 1e-5
    assert UniformBox(-1.0, 2.0)(n, 2, CPU).min() >= -1
