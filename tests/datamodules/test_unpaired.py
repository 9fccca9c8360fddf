"""Two domains in pairs by chance: order, halves, processes, looks, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from data_toys import SPEC, Recorder, trainer
from PIL import Image
from scipy.ndimage import grey_dilation

from datamodules.image_folder import ImageFolder
from datamodules.looks import LOOKS, channels_after
from datamodules.samplers import EvenBatches, ShuffledPairs
from datamodules.synthetic import SyntheticData
from datamodules.tasks import NoSplit
from datamodules.unpaired import UnpairedData
from lit_gen.core.images import to_float
from lit_gen.core.random import generator
from lit_gen.core.types import ImageSpec, InputError, PairBatch

IMAGES = torch.randint(256, (5, 1, 7, 7), generator=generator(0), dtype=torch.uint8)
INDEX = torch.arange(5)


def source(num_images=40, num_test_images=12, spec=SPEC, **settings) -> SyntheticData:
    sizes = {"num_images": num_images, "num_test_images": num_test_images}
    return SyntheticData(spec=spec, split=NoSplit(), **sizes, **settings)


def unpaired(a=None, b=None, **settings) -> UnpairedData:
    data = UnpairedData(
        **{"a": a or source(), "b": b or source(25, 9, seed=3), "spec": SPEC, "batch_size": 6} | settings
    )
    data.prepare_data()
    data.setup()
    return data


def indices(loader) -> tuple[list[int], list[int]]:
    batches = list(loader)
    return tuple(torch.cat([batch[side].index for batch in batches]).tolist() for side in range(2))


@pytest.mark.parametrize("longer", [0, 1])
def test_an_epoch_shows_the_longer_domain_once_and_the_shorter_one_as_often_as_it_takes(longer):
    sides = [source(40), source(25)]
    data = unpaired(*(sides if longer == 0 else sides[::-1]))
    found = indices(data.train_dataloader())
    long, short = found[longer], found[1 - longer]
    assert sorted(long) == [*range(40)] and len(short) == 40
    assert sorted(short[:25]) == [*range(25)] and len(set(short[25:])) == 15
    assert short[:15] != short[25:], "each round has an order of its own"
    assert data.tasks[0].num_images == 40 and data.stages == data.tasks


def test_both_halves_of_a_batch_are_what_their_data_sets_hold():
    data = unpaired(b_looks=["thicken", "invert"])
    a, b = (one.dataset("train", [0])[np.arange(len(one.dataset("train", [0])))] for one in data.sources)
    changed = 255 - LOOKS["thicken"](b.image, b.index, b.index)
    for batch in data.train_dataloader():
        assert isinstance(batch, PairBatch) and len(batch.a.image) == len(batch.b.image)
        assert batch.a.image.dtype == torch.uint8
        assert torch.equal(batch.a.image, a.image[batch.a.index])
        assert torch.equal(batch.b.image, changed[batch.b.index])
        assert torch.equal(batch.b.label, b.label[batch.b.index])
        assert not batch.a.task.any() and not batch.b.task.any()


def test_the_order_is_a_function_of_seed_and_epoch_and_pairs_are_by_chance():
    def order(seed, epoch, sizes=(30, 30)):
        batches = ShuffledPairs(sizes, 7, seed)
        batches.set_epoch(epoch)
        return np.concatenate(list(batches))

    torch.manual_seed(1)
    first = order(0, 2)
    torch.manual_seed(2)
    assert np.array_equal(order(0, 2), first)
    assert len({order(seed, epoch).tobytes() for seed in range(3) for epoch in range(3)}) == 9
    assert (first[:, 0] == first[:, 1]).sum() < 8  # one hit is expected of two independent orders
    pairs = [{tuple(pair) for pair in order(0, epoch).tolist()} for epoch in range(2)]
    assert len(pairs[0] & pairs[1]) < 8


@pytest.mark.parametrize(("world", "sizes"), [(2, (48, 48)), (3, (50, 17)), (3, (5, 49))])
def test_processes_deal_the_same_order_round_robin(world, sizes):
    shares = [list(ShuffledPairs(sizes, 4, 7, world, rank)) for rank in range(world)]
    assert len({tuple(len(batch) for batch in share) for share in shares}) == 1
    assert {len(share) for share in shares} == {len(ShuffledPairs(sizes, 4, 7, world, 0))}
    together = np.stack([np.concatenate(share) for share in shares], 1).reshape(-1, 2)
    alone = np.concatenate(list(ShuffledPairs(sizes, 4, 7)))
    assert np.array_equal(together[: len(alone)], alone)
    assert len(together) - len(alone) < 2 * world  # two images in the last batch of each
    longer = int(sizes[1] > sizes[0])
    assert set(together[:, longer]) == set(range(max(sizes)))


def test_halves_share_no_image_in_any_split_and_leave_none_out():
    data = unpaired(source(41, 13), source(41, 13), halves=True)
    for split, count in (("train", 41), ("test", 13), ("val", 13)):
        pairs = data.dataset(split, [0])
        a, b = ({*half.rows.tolist()} for half in (pairs.a, pairs.b))
        assert a.isdisjoint(b) and len(a) >= len(b) >= count // 2
        if split == "train":
            assert a | b == set(range(count))
    again = unpaired(source(41, 13), source(41, 13), halves=True)
    other = unpaired(source(41, 13), source(41, 13), halves=True, seed=1)
    chosen = [one.dataset("train", [0]).a.index.tolist() for one in (data, again, other)]
    assert chosen[0] == chosen[1] != chosen[2]
    with pytest.raises(InputError, match=r"data\.halves=true: data\.a has 40 train images and data\.b 41"):
        unpaired(source(40), source(41), halves=True)


def test_evaluation_repeats_no_image():
    data = unpaired(source(40, 12), source(25, 9))
    for loader in (data.val_dataloader(), data.test_dataloader()):
        a, b = indices(loader)
        assert len(set(a)) == len(a) == 9 and sorted(b) == [*range(9)]
        assert a == indices(loader)[0]
    assert a != [*range(9)], "a random part, not the first images"
    everything = indices(data.predict_dataloader())
    assert sorted(everything[0]) == [*range(40)] and set(everything[1]) == set(range(25))


def test_one_place_and_an_array_without_pairs_start_the_shorter_domain_again():
    pairs = unpaired().dataset("train", [0])
    one, many = pairs[27], pairs[np.array([27, 3])]
    for side in range(2):
        assert all(torch.equal(x, y[0]) for x, y in zip(one[side], many[side], strict=True))
    assert one.b.index == 2 and len(pairs) == 40
    assert sum(pairs[places].size for places in EvenBatches(len(pairs), 16)) == 40  # overfit_batches


def fed(data, epochs=1) -> list[PairBatch]:
    module = Recorder()
    trainer(max_epochs=epochs).fit(module, datamodule=data)
    return module.trained


def test_a_model_sees_floats_in_range_and_another_order_in_every_epoch():
    data = unpaired()
    batches = fed(data, epochs=2)
    images = data.dataset("train", [0])
    for batch in batches:
        for half, domain in zip(batch, (images.a, images.b), strict=True):
            assert half.image.dtype == torch.float32 and half.image.abs().max() <= 1
            assert torch.equal(half.image, to_float(domain[half.index].image))
    steps = len(batches) // 2
    first, second = (torch.cat([b.a.index for b in part]) for part in (batches[:steps], batches[steps:]))
    assert first.tolist() != second.tolist() and sorted(first.tolist()) == sorted(second.tolist())


def test_flips_mirror_images_of_both_domains():
    data = unpaired(flip=True)
    images, flipped = data.dataset("train", [0]), [0, 0]
    for batch in fed(data):
        for side, (half, domain) in enumerate(zip(batch, (images.a, images.b), strict=True)):
            plain = to_float(domain[half.index].image)
            for one, other in zip(half.image, plain, strict=True):
                is_same = torch.equal(one, other)
                assert is_same or torch.equal(one, other.flip(-1))
                flipped[side] += not is_same
    assert all(6 < count < 34 for count in flipped)  # 40 coins each, four standard deviations


def test_the_split_is_saved_as_rows_of_each_domain(tmp_path):
    data = unpaired(source(20), source(20), halves=True)
    data.save_split(tmp_path)
    rows = [np.load(tmp_path / f"train_{name}.npy") for name in "ab"]
    assert sorted(np.concatenate(rows)) == [*range(20)] and (tmp_path / "test_b.npy").exists()
    assert torch.equal(
        data.dataset("train", [0]).a[np.arange(10)].image, data.sources[0].read("train").image[rows[0]]
    )


def test_two_folders_are_two_domains(tmp_path):
    rng, spec = np.random.default_rng(0), ImageSpec(3, 8, 0)
    sides = []
    for name, count in (("a", 6), ("b", 4)):
        for split in ("train", "test"):
            folder = tmp_path / name / split
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
        sides.append(ImageFolder(root=str(tmp_path / name), spec=spec, split=NoSplit()))
    data = unpaired(*sides, spec=spec)
    assert data.tasks[0].label_counts == () and len(data.dataset("train", [0])) == 6
    batch = next(iter(data.train_dataloader()))
    assert batch.b.image.shape == (6, 3, 8, 8) and batch.b.label.unique().tolist() == [-1]


# --- looks


def test_thicken_is_scipys_dilation():
    ours = LOOKS["thicken"](IMAGES, INDEX, INDEX)
    theirs = np.stack([grey_dilation(one[0].numpy(), size=(3, 3)) for one in IMAGES])
    # Both take nothing brighter from outside; scipy mirrors the border, whose pixels are in the square.
    assert ours.dtype == torch.uint8 and np.array_equal(ours[:, 0].numpy(), theirs)


def test_invert_twice_is_nothing_and_repeat_is_grey():
    assert torch.equal(LOOKS["invert"](LOOKS["invert"](IMAGES, INDEX, INDEX), INDEX, INDEX), IMAGES)
    assert torch.equal(LOOKS["repeat"](IMAGES, INDEX, INDEX), IMAGES.repeat(1, 3, 1, 1))


def test_colour_is_the_hue_of_the_index_at_full_saturation():
    import colorsys

    index = torch.tensor([0, 1, 7, 1000, 59_999])
    white = torch.full((5, 1, 1, 1), 255, dtype=torch.uint8)
    ours = LOOKS["colour"](white, index, index).flatten(1)
    for number, colour in zip(index.tolist(), ours.tolist(), strict=True):
        theirs = colorsys.hsv_to_rgb(number * 0.6180339887498949 % 1, 1, 1)
        assert colour == pytest.approx([255 * part for part in theirs], abs=0.51)
    assert torch.equal(LOOKS["colour"](IMAGES, INDEX, INDEX).amax(1, keepdim=True), IMAGES)


# --- what is refused


def test_looks_that_cannot_be_used_are_refused():
    assert channels_after("k", ("thicken", "colour"), 1) == 3
    with pytest.raises(InputError, match=r"b_looks=.*should be 'thicken', 'invert', 'colour' or 'repeat'"):
        unpaired(b_looks=["fat"])
    with pytest.raises(InputError, match="repeat takes grey images, and these have 3 channels"):
        unpaired(b_looks=["colour", "repeat"])


def test_domains_that_do_not_fit_are_refused_with_both_named():
    with pytest.raises(InputError, match=r"data\.b has images of 1 channel\(s\) and 9 pixels"):
        unpaired(b=source(spec=ImageSpec(1, 9, 4)))
    with pytest.raises(InputError, match=r"data\.b has images of 3 channel\(s\) and 8 pixels"):
        unpaired(b_looks=["colour"])
    spec = ImageSpec(3, 8, 4)
    assert unpaired(a_looks=["repeat"], b_looks=["colour"], spec=spec).spec == spec
    with pytest.raises(InputError, match=r"data\.spec\.num_classes=7"):
        unpaired(spec=ImageSpec(1, 8, 7))
    with pytest.raises(InputError, match=r"stream\.num_tasks=2"):
        unpaired(num_tasks=2)
