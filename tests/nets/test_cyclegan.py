"""CycleGAN's networks, against the published sizes, and its image pool, against plain Python."""

from __future__ import annotations

import pytest
import torch

from lit_gen.core.types import InputError
from lit_gen.nets.cyclegan import PatchCritic, ResnetGenerator
from lit_gen.nets.image_pool import ImagePool


def count(net) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_published_sizes():
    """11.378 and 2.765 million, as the authors' code prints them for 9 blocks and 70 x 70 patches."""
    with torch.device("meta"):
        assert count(ResnetGenerator(3, 256)) == 11_378_179
        assert count(PatchCritic(3, 256)) == 2_764_737


@pytest.mark.parametrize(("size", "halvings"), [(8, 2), (28, 1), (27, 0)])
def test_images_keep_their_size_and_range(size, halvings):
    net = ResnetGenerator(2, size, width=4, num_blocks=1, halvings=halvings)
    image = net(torch.randn(3, 2, size, size))
    assert image.shape == (3, 2, size, size) and image.abs().max() <= 1


@pytest.mark.parametrize(("num_strides", "patch"), [(1, 16), (2, 34), (3, 70)])
def test_a_score_sees_a_patch_of_the_published_size(num_strides, patch):
    # Without the norm, which looks at the whole image.
    net = PatchCritic(1, 128, width=2, num_strides=num_strides)
    net.layers = torch.nn.Sequential(*(x for x in net.layers if not isinstance(x, torch.nn.InstanceNorm2d)))
    image = torch.randn(1, 1, 128, 128, requires_grad=True)
    scores = net(image)
    middle = scores.shape[-1] // 2
    scores[0, 0, middle, middle].backward()
    seen = image.grad[0, 0] != 0
    assert seen.any(0).sum() == seen.any(1).sum() == patch


def test_every_image_is_treated_alone():
    torch.manual_seed(0)
    net = ResnetGenerator(1, 8, width=4, num_blocks=1, halvings=1)
    image = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(net(image)[3:4], net(image[3:4]))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ResnetGenerator(1, 30, halvings=2), "size=30 with halvings=2"),
        (lambda: ResnetGenerator(1, 4, halvings=2), "size=4 with halvings=2"),
        (lambda: PatchCritic(1, 16, num_strides=3), "size=16 with num_strides=3 leaves 2"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(make, text):
    with pytest.raises(InputError, match=text):
        make()


# --- the pool


def numbered(first: int, number: int) -> torch.Tensor:
    """Images [number, 1, 1, 1] that say which they are."""
    return torch.arange(first, first + number).float().view(-1, 1, 1, 1)


def simulated(size: int, batches: list[list[int]]) -> tuple[list[int], list[int]]:
    """What a pool hands out and what it holds, with the same draws from the global generator."""
    pool, out = [], []
    for batch in batches:
        room = min(size - len(pool), len(batch))
        pool += batch[:room]
        out += batch[:room]
        late = batch[room:]
        swap, where = torch.rand(len(late)), torch.randint(size, (len(late),))
        for image, chance, place in zip(late, swap, where, strict=True):
            if chance < 0.5:
                out.append(pool[place])
                pool[place] = image
            else:
                out.append(image)
    return out, pool


@pytest.mark.parametrize("batch", [1, 16])
def test_the_pool_is_its_plain_simulation(batch):
    pool, batches = ImagePool(8, 1, 1), [list(range(i, i + batch)) for i in range(0, 90, batch)]
    torch.manual_seed(5)
    shown = torch.cat([pool(numbered(images[0], batch)) for images in batches]).flatten().tolist()
    torch.manual_seed(5)
    out, held = simulated(8, batches)
    assert shown == out and pool.images.flatten().tolist() == held and pool.num_filled == 8


def test_the_first_images_pass_and_later_ones_are_half_old_each_stored_one_once():
    pool, total = ImagePool(50, 1, 1), 6050
    torch.manual_seed(0)
    shown = torch.cat([pool(numbered(first, 10)) for first in range(0, total, 10)]).flatten().long()
    assert shown[:50].tolist() == [*range(50)]
    later = shown[50:]
    is_old = later != torch.arange(50, total)
    # Four standard deviations of 6,000 coins.
    assert abs(is_old.sum().item() - 3000) < 4 * (6000 * 0.25) ** 0.5
    old = later[is_old]
    assert (old < torch.arange(50, total)[is_old]).all()
    # What was handed out is no longer there: together with what is held every image came out exactly once,
    # the first 50 once more, when they passed.
    kept = pool.images.flatten().long()
    assert sorted([*later.tolist(), *kept.tolist()]) == [*range(total)]


def test_a_pool_of_size_0_hands_everything_on_and_draws_nothing():
    pool, images = ImagePool(0, 1, 2), torch.randn(4, 1, 2, 2, requires_grad=True)
    torch.manual_seed(1)
    shown = pool(images)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(shown, images) and not shown.requires_grad and torch.equal(after, torch.rand(1))


def test_a_pool_goes_on_from_its_state():
    first, second = ImagePool(4, 1, 1), ImagePool(4, 1, 1)
    torch.manual_seed(2)
    first(numbered(0, 9))
    second.load_state_dict(first.state_dict())
    outcomes = []
    for pool in (first, second):
        torch.manual_seed(3)
        outcomes.append(torch.cat([pool(numbered(9, 6)).flatten(), pool.images.flatten()]))
    assert torch.equal(*outcomes)


def test_what_is_shown_is_a_copy():
    pool, images = ImagePool(3, 1, 1), numbered(0, 3)
    pool(images).fill_(9.0)
    assert pool.images.flatten().tolist() == images.flatten().tolist() == [0, 1, 2]
