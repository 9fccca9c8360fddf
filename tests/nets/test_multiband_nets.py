"""The networks of Multiband VAE and GAN: published sizes, task codes, binary codes, translators."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lit_gen.nets.binary import (
    BinaryEncoder,
    gaussian_code,
    gumbel_temperature,
    relaxed_bits,
)
from lit_gen.nets.dcgan import ConvGenerator
from lit_gen.nets.multiband import ConvFeatures, ConvImages, DenseFeatures, DenseImages
from lit_gen.nets.translator import Band, EmbeddingTranslator, Translator, task_codes


def count(*modules) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("latent_size", "num_bits", "code_size", "out_size", "translator", "total"),
    [
        (8, 4, 4, 256, 37_048, 1_974_684),  # MNIST
        (12, 4, 4, 384, 80_760, 2_084_452),  # FashionMNIST, double MNIST
        (16, 12, 6, 512, 149_790, 2_220_058),  # Omniglot
    ],
)
def test_dense_networks_have_the_published_sizes(
    latent_size, num_bits, code_size, out_size, translator, total
):
    net = Translator(latent_size, num_bits, 10, out_size, code_size)
    encoder = BinaryEncoder(DenseFeatures(1, 28), latent_size, num_bits)
    assert count(net) == translator
    assert count(encoder, net, DenseImages(1, 28, out_size)) == total


def test_networks_for_celeba_have_the_published_sizes():
    net = Translator(32, 8, 10, 1600)
    encoder = BinaryEncoder(ConvFeatures(3, 64, width=50), 32, 8, bias_of_bits=False)
    total = count(encoder, net, ConvImages(3, 64, 1600, width=50))
    assert count(net) == 1_334_316
    assert total == 46_953_880 and round(total / 1e6, 2) == 46.95


@pytest.mark.parametrize(("size", "sides"), [(28, [14, 7, 3]), (44, [22, 11, 5, 2]), (64, [31, 15, 7, 3])])
def test_encoders_shrink_as_published(size, sides):
    found, image = [], torch.zeros(2, 1, size, size)
    for layer in ConvFeatures(1, size, width=4).net:
        image = layer(image)
        if isinstance(layer, torch.nn.Conv2d):
            found.append(image.shape[-1])
    assert found == sides


@pytest.mark.parametrize(
    ("size", "sides"),
    [(28, [10, 22, 25, 28]), (32, [8, 16, 32, 32]), (44, [10, 20, 40, 44]), (64, [16, 32, 64, 64])],
)
def test_decoders_grow_as_published(size, sides):
    net = ConvImages(3, size, in_size=6, width=4)
    found, image = [], net.stem(torch.randn(2, 6)).unflatten(1, net.start)
    for layer in net.blocks:
        image = layer(image)
        if isinstance(layer, torch.nn.ConvTranspose2d):
            found.append(image.shape[-1])
    assert found == sides
    assert net(torch.randn(2, 6)).shape == (2, 3, size, size)


@pytest.mark.parametrize("make", [DenseFeatures, ConvFeatures])
def test_published_encoders_are_given_pixels_from_0_to_1(make):
    torch.manual_seed(0)
    net, image = make(1, 28, unit_range=True).eval(), torch.rand(2, 1, 28, 28) * 2 - 1
    torch.testing.assert_close(net(image), net.net((image + 1) / 2))
    assert not torch.equal(net(image), net.net(image))
    ours = make(1, 28).eval()
    assert torch.equal(ours(image), ours.net(image))


def test_a_size_without_layout_is_refused():
    with pytest.raises(ValueError, match="28, 32, 44, 64"):
        ConvFeatures(1, 30)


@pytest.mark.parametrize(("num_tasks", "code_size", "code_step"), [(10, 4, 9), (16, 4, 9), (20, 6, 13)])
def test_every_task_has_its_own_code(num_tasks, code_size, code_step):
    codes = task_codes(num_tasks, code_size, code_step)
    assert codes.shape == (num_tasks, code_size) and set(codes.unique().tolist()) == {-1.0, 1.0}
    assert len({tuple(code) for code in codes.tolist()}) == num_tasks
    assert codes[1].tolist() == [1.0 if digit == "1" else -1.0 for digit in f"{code_step + 1:0{code_size}b}"]


def test_codes_that_cannot_tell_the_tasks_apart_are_refused():
    with pytest.raises(ValueError, match=r"code_size=3 .* 9 tasks.* 4 bits"):
        task_codes(9, 3, 9)
    with pytest.raises(ValueError, match="code_step=4"):
        task_codes(5, 4, 4)
    assert len(task_codes(1, 1, 1)) == 1


def test_a_band_depends_on_all_parts_of_the_code_and_on_the_task():
    band = Band(Translator(3, 2, 4, 8), DenseImages(1, 4, 8, hidden=(6,)))
    code = torch.cat([torch.randn(1, 3), torch.tensor([[1.0, -1.0]])], 1)
    image = band(code, torch.tensor([0]))
    for place in range(5):
        other = code.clone()
        other[0, place] *= -1
        assert not torch.equal(band(other, torch.tensor([0])), image)
    assert not torch.equal(band(code, torch.tensor([1])), image)


def test_codes_without_bits_work():
    encoder = BinaryEncoder(DenseFeatures(1, 4, (6,)), latent_size=3, num_bits=0)
    posterior = encoder(torch.randn(5, 1, 4, 4))
    assert posterior.logits.shape == (5, 0) and relaxed_bits(posterior.logits, None).shape == (5, 0)
    code = torch.cat([gaussian_code(posterior), posterior.logits], 1)
    assert Translator(3, 0, 2, 8)(code, torch.zeros(5, dtype=torch.long)).shape == (5, 8)


@pytest.mark.parametrize(("num_epochs", "first_hard"), [(70, 13), (210, 38)])
def test_bits_are_hard_from_the_published_epoch_on(num_epochs, first_hard):
    temperatures = [gumbel_temperature(epoch / num_epochs, num_epochs) for epoch in range(num_epochs)]
    assert all(value is None for value in temperatures[first_hard:])
    for epoch, value in enumerate(temperatures[:first_hard]):
        assert value == pytest.approx(1 - 5 * epoch / num_epochs) and value >= 0.1
    # Constant within an epoch: just before the next one begins it is still the same.
    assert gumbel_temperature((first_hard - 1e-3) / num_epochs, num_epochs) == temperatures[first_hard - 1]


def test_relaxed_bits_are_the_first_of_two_gumbel_softmax_classes():
    """The same distribution as torch's function on the logits (a, -a): moments over many draws."""
    torch.manual_seed(0)
    logits, temperature = torch.tensor([-0.8, 0.0, 0.4]).repeat(200_000, 1), 0.7
    ours = relaxed_bits(logits, temperature)
    theirs = F.gumbel_softmax(torch.stack([logits, -logits], -1), tau=temperature, dim=-1)[..., 0] * 2 - 1
    for power in (1, 2, 3):
        torch.testing.assert_close(ours.pow(power).mean(0), theirs.pow(power).mean(0), atol=5e-3, rtol=0)
    assert ours.abs().max() <= 1


def test_hard_bits_are_plus_one_with_probability_sigmoid_2a_and_have_the_soft_gradient():
    torch.manual_seed(0)
    logits = torch.tensor([-1.0, 0.3, 1.0]).repeat(100_000, 1).requires_grad_()
    torch.manual_seed(1)
    hard = relaxed_bits(logits, None)
    assert set(hard.detach().round(decimals=5).unique().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(
        (hard > 0).float().mean(0), torch.sigmoid(2 * logits[0]).detach(), atol=5e-3, rtol=0
    )
    (gradient,) = torch.autograd.grad(hard.sum(), logits)
    torch.manual_seed(1)
    (of_soft,) = torch.autograd.grad(relaxed_bits(logits, 1.0).sum(), logits)
    torch.testing.assert_close(gradient, of_soft)


@pytest.mark.parametrize(
    ("channels", "size", "width", "of_generator"),
    [(1, 28, 32, 716_573), (3, 32, 128, 15_404_253), (3, 64, 50, 5_298_375)],
)
def test_generators_with_a_translator_have_the_published_sizes(channels, size, width, of_generator):
    with torch.device("meta"):
        translator = EmbeddingTranslator(100, num_values=5, hidden_size=400, out_size=100)
        band = Band(translator, ConvGenerator(channels, size, 100, width))
    assert count(translator) == 82_525
    assert count(band) == of_generator


def test_it_is_two_layers_over_the_noise_and_a_learned_row_of_each_task():
    torch.manual_seed(0)
    translator = EmbeddingTranslator(3, num_values=4, hidden_size=6, out_size=2)
    noise, task = torch.randn(5, 3), torch.tensor([0, 2, 2, 3, 0])
    weights = translator.state_dict()
    rows = torch.cat([noise, weights["embedding.weight"][task]], 1)
    hidden = F.leaky_relu(rows @ weights["out.0.weight"].T + weights["out.0.bias"], 0.2)
    torch.testing.assert_close(
        translator(noise, task), hidden @ weights["out.2.weight"].T + weights["out.2.bias"]
    )
    assert weights["embedding.weight"].shape == (4, 4)
