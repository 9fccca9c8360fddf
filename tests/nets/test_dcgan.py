"""Adversarial networks: published parameter counts, sizes, conditions, norms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_gen.core.types import InputError
from lit_gen.nets.dcgan import ConvCritic, ConvGenerator


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("channels", "size", "width", "of_generator", "of_critic"),
    [(1, 28, 32, 634_273, 49_825), (3, 32, 128, 15_323_651, 20_588_545), (3, 64, 50, 5_216_203, 1_794_851)],
)
def test_sizes_are_the_published_ones(channels, size, width, of_generator, of_critic):
    """The authors' generators have 82,525 parameters more, those of the translator before them."""
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
