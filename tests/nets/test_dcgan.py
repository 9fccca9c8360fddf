"""Adversarial networks: published parameter counts, sizes, conditions, norms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lit_gen.core.types import InputError
from lit_gen.nets.dcgan import ConvCritic, ConvGenerator


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("channels", "size", "width", "of_generator", "of_critic"),
    [(1, 28, 32, 634_048, 49_825), (3, 32, 128, 15_321_728, 20_588_545), (3, 64, 50, 5_215_850, 1_794_851)],
)
def test_sizes_are_the_published_ones(channels, size, width, of_generator, of_critic):
    """The authors' generators have 82,525 parameters more, those of the translator before them."""
    if size == 28:  # a linear layer with a bias, four convolutions without, and four norms
        convolutions = 16 * (128 * 128 + 128 * 64 + 64 * 32 + 32)
        assert of_generator == 101 * 2048 + convolutions + 2 * (128 + 128 + 64 + 32)
    with torch.device("meta"):
        assert count(ConvGenerator(channels, size, 100, width)) == of_generator
        assert count(ConvCritic(channels, size, width)) == of_critic


@pytest.mark.parametrize(("size", "norm"), [(28, "none"), (32, "batch"), (64, "layer")])
def test_images_and_scores_have_their_shapes(size, norm):
    image = ConvGenerator(3, size, 8, width=2)(torch.randn(4, 8))
    assert image.shape == (4, 3, size, size) and image.abs().max() <= 1
    assert ConvCritic(3, size, width=2, norm=norm)(image).shape == (4, 1)


def test_a_condition_changes_images_and_scores():
    generator, critic = (
        ConvGenerator(1, 28, 8, 8, condition_size=3),
        ConvCritic(1, 28, 2, condition_size=3),
    )
    noise, labels = torch.randn(1, 8).expand(3, -1), torch.eye(3)
    images = generator(noise, labels)
    assert not torch.equal(images[0], images[1])
    scores = critic(images[:1].expand(3, -1, -1, -1), labels)
    assert len(scores.unique()) == 3
    with pytest.raises(ValueError, match="size 3"):
        critic(images)


def test_the_published_generator_is_linear_up_to_its_second_norm_and_has_no_bias_behind_the_first_layer():
    net = ConvGenerator(1, 28, 8, 4, activate_start=False)
    kinds = [type(layer).__name__ for layer in net.layers]
    assert kinds == ["BatchNorm2d", *["ConvTranspose2d", "BatchNorm2d", "ReLU"] * 3, "ConvTranspose2d"]
    assert all(layer.bias is None for layer in net.layers if isinstance(layer, nn.ConvTranspose2d))
    assert net.stem.bias is not None
    assert [type(layer).__name__ for layer in ConvGenerator(1, 28, 8, 4).layers][:2] == [
        "BatchNorm2d",
        "ReLU",
    ]


def test_the_map_of_a_class_is_the_published_one():
    """The authors' net: an embedding of K rows of K numbers, K -> 400, LeakyReLU, 400 -> S x S."""
    classes, side = 10, 28
    net = ConvCritic(1, side, 32, condition_size=classes, map_hidden=400)
    embedding, (first, _, last) = net.label_map[0], net.label_map[1:]
    label = torch.tensor([3, 0, 9])
    hidden = F.leaky_relu(F.embedding(label, embedding.weight.T) @ first.weight.T + first.bias, 0.2)
    found = net.label_map(F.one_hot(label, classes).float())
    torch.testing.assert_close(found, hidden @ last.weight.T + last.bias)
    one_more_channel = 32 * 4 * 4
    of_map = classes**2 + (classes + 1) * 400 + 401 * side**2
    assert count(net) == 49_825 + one_more_channel + of_map
    assert net.head.bias is not None
    assert count(ConvCritic(1, side, 32, map_hidden=400)) == 49_825, "without classes there is no map"


def test_first_weights_of_dcgan_are_normal():
    torch.manual_seed(0)
    for net in (
        ConvGenerator(1, 28, 100, initial_std=0.02),
        ConvCritic(1, 28, norm="batch", initial_std=0.02),
    ):
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.BatchNorm2d):
                error = 4 * 0.02 / layer.weight.numel() ** 0.5
                mean = float(isinstance(layer, nn.BatchNorm2d))
                assert layer.weight.mean().item() == pytest.approx(mean, abs=error)
                assert layer.weight.std().item() == pytest.approx(0.02, rel=5 / layer.weight.numel() ** 0.5)
                assert layer.bias is None or layer.bias.eq(0).all()
    with pytest.raises(InputError, match=r"initial_std=0\.02.*spectral"):
        ConvCritic(1, 28, spectral=True, initial_std=0.02)


def test_layer_norm_judges_every_image_alone():
    critic = ConvCritic(1, 28, 4)
    images = torch.randn(5, 1, 28, 28)
    torch.testing.assert_close(critic(images)[2:3], critic(images[2:3]))


def test_spectral_normalisation_bounds_every_layer():
    critic = ConvCritic(1, 28, 4, norm="none", spectral=True)
    for _ in range(50):  # each pass is one step of the power iteration
        critic(torch.randn(2, 1, 28, 28))
    critic.eval()
    for layer in [*critic.layers, critic.head]:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)


def test_other_sizes_are_refused():
    for net in (lambda: ConvGenerator(1, 20, 8), lambda: ConvCritic(1, 20)):
        with pytest.raises(InputError, match=r"size=20.*28, 32, 64"):
            net()
