import numpy as np
import pytest
import torch

from datamodules.samplers import Blocks, EvenBatches, ShuffledBatches
from lit_gen.core.types import InputError


def epochs(seed, epoch, world=1, num_images=50, batch_size=8):
    """All batches of each process."""
    shares = []
    for rank in range(world):
        sampler = ShuffledBatches(num_images, batch_size, seed, world, rank)
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        shares.append(batches)
    return shares


def test_training_order_is_a_function_of_seed_and_epoch_alone():
    def order(seed, epoch):
        return np.concatenate(epochs(seed, epoch)[0]).tolist()

    torch.manual_seed(1)
    np.random.seed(1)
    first = order(0, 3)
    torch.manual_seed(2)
    np.random.seed(2)
    assert order(0, 3) == first
    # Also along the diagonal, where seed + epoch is the same.
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


@pytest.mark.parametrize(("world", "num_images"), [(1, 49), (2, 49), (3, 50), (3, 2)])
def test_training_gives_every_process_equally_many_batches_and_leaves_nothing_out(world, num_images):
    shares = epochs(0, 1, world, num_images)
    assert len({tuple(len(batch) for batch in share) for share in shares}) == 1
    assert {*np.concatenate([np.concatenate(share) for share in shares])} == {*range(num_images)}


def test_processes_deal_one_permutation_round_robin():
    alone = np.concatenate(epochs(7, 2, 1, 48)[0])
    two = [np.concatenate(share) for share in epochs(7, 2, 2, 48)]
    assert np.stack(two, axis=1).ravel().tolist() == alone.tolist()


@pytest.mark.parametrize(
    ("world", "batch_size", "accumulated"), [(2, 32, 1), (4, 16, 1), (1, 32, 2), (2, 8, 4)]
)
@pytest.mark.parametrize("num_images", [192, 160, 131, 130, 129, 63])  # 128 and 2 more: not one for each
def test_a_step_weighs_the_same_images_alike_on_any_number_of_devices(
    world, batch_size, accumulated, num_images
):
    samplers = [ShuffledBatches(num_images, batch_size, 3, world, rank, accumulated) for rank in range(world)]
    shares, steps = [list(sampler) for sampler in samplers], list(ShuffledBatches(num_images, 64, 3))
    assert (
        {len(sampler) for sampler in samplers}
        == {len(share) for share in shares}
        == {len(steps) * accumulated}
    )
    for number, images in enumerate(steps):
        weight, counted = np.zeros(num_images), 0
        for batch in range(number * accumulated, (number + 1) * accumulated):
            assert len({len(share[batch]) for share in shares}) == 1  # as replay and its pools need it
            for share, sampler in zip(shares, samplers, strict=True):
                dealt = sampler.dealt(batch)
                np.add.at(weight, share[batch][: dealt.own], dealt.weight / max(1, dealt.own))
            counted += dealt.images
        wanted = np.zeros(num_images)
        wanted[images] = 1 / len(images)
        np.testing.assert_allclose(weight / (world * accumulated), wanted, rtol=1e-12)
        assert counted == len(images)


@pytest.mark.parametrize(
    ("world", "batch_size", "num_images"),
    [(1, 4, 17), (2, 4, 16), (2, 64, 65), (3, 1, 3), (3, 4, 130), (3, 64, 17)],
)
def test_evaluation_shows_every_image_once_in_equally_many_batches(world, batch_size, num_images):
    samplers = [EvenBatches(num_images, batch_size, world, rank) for rank in range(world)]
    shares = [list(sampler) for sampler in samplers]
    assert {len(share) for share in shares} == {len(samplers[0])}
    everything = np.concatenate([np.concatenate(share) for share in shares])
    assert np.sort(everything).tolist() == [*range(num_images)]
    sizes = [len(batch) for share in shares for batch in share]
    assert min(sizes) >= 1 and max(sizes) <= batch_size + 1
    for share in shares:
        own = [len(batch) for batch in share]
        assert max(own) - min(own) <= 1
    totals = [sum(map(len, share)) for share in shares]
    assert max(totals) - min(totals) <= 1


def test_fewer_images_than_processes_are_refused():
    with pytest.raises(InputError, match="2 images cannot be shared by 3 processes"):
        EvenBatches(2, 8, 3, 0)


@pytest.mark.parametrize(("world", "length"), [(1, 5), (2, 3), (3, 2), (7, 1)])
def test_blocks_are_the_same_for_any_number_of_processes_and_every_image_is_in_one(world, length):
    shares = [list(Blocks([5, 3], 2, world, rank)) for rank in range(world)]
    assert {len(share) for share in shares} == {length}
    dealt = [block.tolist() for blocks in zip(*shares, strict=True) for block in blocks]
    assert [block for block in dealt if block] == [[0, 1], [2, 3], [4], [5, 6], [7]]  # none of two tasks
