import numpy as np
import pytest
import torch
from torchvision.transforms.functional import InterpolationMode, rotate

from datamodules.digits import DigitsData
from datamodules.domains import PermutedData, RotatedData, Taps, TransformedImages, rotation
from datamodules.mixed import MixedData
from datamodules.synthetic import SyntheticData
from datamodules.tasks import ClassSplit, NoSplit, seeded
from lit_gen.core.types import ImageSpec, InputError

IMAGES = torch.randint(256, (6, 3, 9, 9), generator=seeded(0), dtype=torch.uint8)


def source(num_classes=3, channels=1, size=9, num_images=30):
    spec = ImageSpec(channels, size, num_classes)
    return SyntheticData(spec=spec, split=NoSplit(), num_images=num_images, num_test_images=12)


def stream(kind, num_tasks=4, **settings):
    spec, split = ImageSpec(1, 9, 3), ClassSplit(num_tasks)
    data = kind(
        source=source(), num_domains=num_tasks, spec=spec, split=split, num_tasks=num_tasks, **settings
    )
    data.setup()
    return data


def all_of(dataset):
    return dataset[np.arange(len(dataset))]


@pytest.mark.parametrize("quarters", [0, 1, 2, 3, -1])
def test_quarter_turns_move_pixels_exactly(quarters):
    turned = TransformedImages(IMAGES, [rotation(9, 90.0 * quarters)])
    assert turned.index_select(0, torch.arange(6)).equal(torch.rot90(IMAGES, quarters, (-2, -1)))


@pytest.mark.parametrize("angle", [10.0, 45.0, -33.0, 200.0])
@pytest.mark.parametrize("size", [8, 9])
def test_other_angles_agree_with_torchvisions_bilinear_rotation(angle, size):
    images = torch.randint(256, (4, 1, size, size), generator=seeded(1), dtype=torch.uint8)
    ours = TransformedImages(images, [rotation(size, angle)]).index_select(0, torch.arange(4)).float()
    theirs = rotate(images.float(), angle, InterpolationMode.BILINEAR)
    assert (ours - theirs).abs().max() <= 0.51  # ours is rounded


def test_views_are_chosen_by_row_and_change_nothing_else():
    order = torch.randperm(81, generator=seeded(2))
    plain, mixed = (Taps(one[None], torch.ones(1, 81)) for one in (torch.arange(81), order))
    views = TransformedImages(IMAGES, [plain, mixed])
    assert views.shape == (12, 3, 9, 9)
    found = views.index_select(0, torch.tensor([7, 1]))
    assert found[1].equal(IMAGES[1]) and found[0].flatten(1).equal(IMAGES[1].flatten(1)[:, order])


def test_every_permuted_domain_has_all_images_with_its_own_order_of_pixels():
    data = stream(PermutedData)
    upright = all_of(data.dataset("train", [0]))
    assert upright.image.equal(data.source.read("train").image)
    orders = set()
    for task in data.tasks:
        batch = all_of(data.dataset("train", [task.index]))
        assert batch.label.equal(upright.label) and task.label_counts == (10, 10, 10)
        assert batch.image.flatten(1).sort().values.equal(upright.image.flatten(1).sort().values)
        orders.add(batch.image[0].flatten().numpy().tobytes())
        # One order for all images of the domain, in training and test.
        order = data.taps(task.index).index[0]
        assert batch.image.flatten(1).equal(upright.image.flatten(1)[:, order])
        test = all_of(data.dataset("test", [task.index])).image
        assert test.flatten(1).equal(data.source.read("test").image.flatten(1)[:, order])
    assert len(orders) == 4
    assert data.taps(3).index.equal(stream(PermutedData).taps(3).index)
    assert not data.taps(3).index.equal(stream(PermutedData, seed=1).taps(3).index)


def test_rotated_domains_go_from_upright_to_the_largest_angle():
    data = stream(RotatedData, num_tasks=3, max_angle=180.0)
    upright = all_of(data.dataset("train", [0])).image
    assert [task.name for task in data.tasks] == ["0deg", "90deg", "180deg"]
    assert all_of(data.dataset("train", [2])).image.equal(torch.rot90(upright, 2, (-2, -1)))


def test_a_picture_is_held_out_in_every_domain_or_in_none():
    data = stream(PermutedData, validation="fraction")
    train, held_out = (
        [data.dataset(split, [task]).rows % 30 for task in range(4)] for split in ("train", "val")
    )
    for task in range(4):
        assert train[task].equal(train[0]) and held_out[task].equal(held_out[0])
        assert sorted([*train[task].tolist(), *held_out[task].tolist()]) == [*range(30)]


def mixed(num_tasks, num_classes=13, **settings):
    digits = DigitsData(spec=ImageSpec(1, 8, 10), split=NoSplit())
    reverse = settings.pop("reverse", False)
    data = MixedData(
        parts=[source(size=8), digits],
        spec=ImageSpec(1, 8, num_classes),
        split=ClassSplit(num_tasks, reverse=reverse),
        num_tasks=num_tasks,
        **settings,
    )
    data.setup()
    return data


def test_mixed_sets_keep_their_classes_apart():
    data = mixed(13)
    assert [task.name for task in data.tasks][:4] == ["Synthetic0", "Synthetic1", "Synthetic2", "Digits0"]
    digits = data.parts[1].read("train")
    batch = all_of(data.dataset("train", [5]))
    assert batch.label.unique().tolist() == [5] and batch.image.equal(digits.image[digits.label == 2])
    assert [task.name for task in mixed(13, reverse=True).tasks][:2] == ["Digits9", "Digits8"]


def test_whole_sets_can_be_tasks_and_share_their_classes():
    data = mixed(2, num_classes=10, group_by="part", share_labels=True)
    assert [task.name for task in data.tasks] == ["Synthetic", "Digits"]
    assert data.tasks[0].label_counts == (10, 10, 10, 0, 0, 0, 0, 0, 0, 0)
    assert all_of(data.dataset("train", [1])).label.equal(data.parts[1].read("train").label)


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="set it to 13"):
        mixed(2, num_classes=10)
    parts = [source(size=8), source(size=9)]
    data = MixedData(parts=parts, spec=ImageSpec(1, 8, 6), split=NoSplit())
    with pytest.raises(InputError, match=r"data\.parts: .*\(1, 8, 8\), \(1, 9, 9\)"):
        data.setup()
