"""Networks that grow: unit variance, norms against numpy, published sizes, and levels that fade in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_gen.core.types import InputError
from lit_gen.nets.equalised import EqualisedConv2d, EqualisedLinear, MinibatchStd, PixelNorm
from lit_gen.nets.progan import GrowingCritic, GrowingGenerator, enlarged, reduced, resolutions


def nets(condition_size=0, seed=0):
    """Levels of 4, 8 and 16 pixels."""
    torch.manual_seed(seed)
    return (
        GrowingGenerator(3, 16, 6, 4, 4, 8, condition_size).eval(),
        GrowingCritic(3, 16, 4, 4, 8, 4, condition_size).eval(),
    )


@pytest.mark.parametrize(("kind", "gain"), [("linear", 1.0), ("conv3", 2**0.5), ("conv1", 1.0)])
def test_equalised_layers_keep_the_variance(kind, gain):
    torch.manual_seed(0)
    if kind == "linear":
        out = EqualisedLinear(64, 400, gain)(torch.randn(400, 64))
    else:
        out = EqualisedConv2d(32, 64, int(kind[-1]), gain)(torch.randn(8, 32, 16, 16))[:, :, 1:-1, 1:-1]
    # Unscaled weights would give 64, 288 and 32.
    assert out.var().item() == pytest.approx(gain**2, rel=0.1)
    assert out.mean().item() == pytest.approx(0, abs=0.1)


def test_pixel_norm_makes_the_mean_square_one():
    image = 5 * torch.randn(2, 7, 3, 3) + 2
    torch.testing.assert_close(PixelNorm()(image).square().mean(1), torch.ones(2, 3, 3))
    empty = torch.zeros(1, 7, 1, 1, requires_grad=True)
    PixelNorm()(empty).sum().backward()
    assert empty.grad.isfinite().all()


@pytest.mark.parametrize(("count", "size"), [(1, 1), (3, 3), (5, 1), (6, 3), (8, 4)])
def test_minibatch_std_is_numpys(count, size):
    torch.manual_seed(count)
    features = torch.randn(count, 5, 2, 3)
    out = MinibatchStd(4)(features)
    assert out.shape == (count, 6, 2, 3) and torch.equal(out[:, :5], features)
    for first in range(0, count, size):
        group = features[first : first + size].numpy().astype(np.float64)
        expected = np.sqrt(group.var(axis=0) + 1e-8).mean()
        np.testing.assert_allclose(out[first : first + size, 5], expected, rtol=1e-5)


def test_minibatch_std_knows_groups_but_no_order_within_them():
    torch.manual_seed(0)
    features, layer = torch.randn(8, 5, 2, 2), MinibatchStd(4)
    inside, across = torch.tensor([2, 0, 3, 1, 7, 6, 5, 4]), torch.tensor([4, 1, 2, 3, 0, 5, 6, 7])
    channel = layer(features)[:, 5]
    torch.testing.assert_close(layer(features[inside])[:, 5], channel)
    assert (layer(features[across])[:, 5] - channel).abs().min() > 1e-4
    same = torch.zeros(4, 5, 2, 2, requires_grad=True)
    layer(same).sum().backward()
    assert same.grad.isfinite().all()


def test_at_the_published_size_both_nets_have_23_1_million_parameters():
    """Table 2, which has the image layers of the last level only."""
    sizes = {"channels": 3, "size": 1024, "first_size": 4, "width": 16, "max_width": 512}
    with torch.device("meta"):
        for net in (GrowingGenerator(in_size=512, **sizes), GrowingCritic(**sizes)):
            count = sum(p.numel() for p in net.up_to(8).parameters())
            assert round(count / 1e6, 1) == 23.1


@pytest.mark.parametrize("level", [0, 1, 2])
def test_images_and_scores_have_the_size_of_the_level(level):
    generator, critic = nets()
    image = generator(torch.randn(4, 6), level=level)
    assert image.shape == (4, 3, 4 * 2**level, 4 * 2**level)
    assert critic(image, level=level).shape == (4, 1)
    last = generator(torch.randn(4, 6))
    assert last.shape == (4, 3, 16, 16) and critic(last).shape == (4, 1)


@pytest.mark.parametrize("level", [1, 2])
def test_nets_fade_from_the_level_before_to_their_own(level):
    generator, critic = nets()
    noise, image = torch.randn(5, 6), torch.randn(4, 3, 4 * 2**level, 4 * 2**level)
    for net, given, before in (
        (generator, noise, enlarged(generator(noise, level=level - 1))),
        (critic, image, critic(reduced(image), level=level - 1)),
    ):
        stable = net(given, level=level)
        assert torch.equal(net(given, level=level, fade=0.0), before)
        assert torch.equal(net(given, level=level, fade=1.0), stable)
        almost = net(given, level=level, fade=1 - 1e-6)  # the other branch of the code
        torch.testing.assert_close(almost, stable, rtol=0, atol=1e-4)
        assert (before - stable).abs().max() > 1e-3
    half = generator(noise, level=level, fade=0.25)
    expected = 0.75 * enlarged(generator(noise, level=level - 1)) + 0.25 * generator(noise, level=level)
    torch.testing.assert_close(half, expected)


@pytest.mark.parametrize(("level", "fades"), [(0, False), (1, True), (1, False), (2, True), (2, False)])
def test_up_to_is_exactly_what_a_level_uses(level, fades):
    generator, critic = nets()
    fade = 0.5 if fades else 1.0
    image = generator(torch.randn(4, 6), level=level, fade=fade)
    critic(image, level=level, fade=fade).sum().backward()
    for net in (generator, critic):
        used = {name for name, p in net.named_parameters() if p.grad is not None}
        part = {id(p) for p in net.up_to(level, fades).parameters()}
        assert used == {name for name, p in net.named_parameters() if id(p) in part}


def test_a_condition_changes_images_and_scores():
    generator, critic = nets(condition_size=3)
    noise, labels = torch.randn(1, 6).expand(3, -1), torch.eye(3)
    for level in range(3):
        images = generator(noise, labels, level)
        assert not torch.allclose(images[0], images[1], atol=1e-3)
        assert len(critic(images[:1].expand(3, -1, -1, -1), labels, level).unique()) == 3
    with pytest.raises(ValueError, match="size 3"):
        critic(images)


def test_enlarging_repeats_pixels_and_reducing_averages_them():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert reduced(image).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert torch.equal(enlarged(image, 3), image.repeat_interleave(3, 2).repeat_interleave(3, 3))
    assert torch.equal(reduced(enlarged(image)), image)


@pytest.mark.parametrize(
    ("first", "size", "way_out"),
    [
        (0, 8, "first_size=0.*at least 1"),
        (8, 28, r"first_size=8.*one of 7, 14, 28, or data.spec.size to 32"),
        (8, 4, r"one of 4, .*to 8"),
    ],
)
def test_sizes_that_are_never_reached_are_refused(first, size, way_out):
    with pytest.raises(InputError, match=way_out):
        resolutions(first, size)


def test_wrong_levels_and_images_are_refused():
    generator, critic = nets()
    with pytest.raises(ValueError, match="level=3: there are 3 levels, 0 to 2"):
        generator(torch.randn(1, 6), level=3)
    with pytest.raises(ValueError, match=r"8 x 8 pixels at level 2, which is for 16 x 16"):
        critic(torch.randn(1, 3, 8, 8))


def test_batches_of_one_image_have_finite_gradients():
    _, critic = nets()
    image = torch.zeros(1, 3, 16, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(critic(image).sum(), image, create_graph=True)
    gradient.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in critic.parameters())
