import numpy as np
import pytest
import torch
from scipy.ndimage import rotate

from datamodules.digits import Digits
from datamodules.domains import PermutedData, RotatedData, TransformedImages
from datamodules.mixed import MixedData
from datamodules.synthetic import SyntheticData
from datamodules.tasks import ClassSplit, NoSplit
from lit_gen.core.random import generator
from lit_gen.core.types import ImageSpec, InputError

IMAGES = torch.randint(256, (6, 3, 9, 9), generator=generator(0), dtype=torch.uint8)


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


@pytest.mark.parametrize(("angle", "size"), [(10.0, 8), (-33.0, 9), (200.0, 8)])
def test_rotations_are_scipys_bilinear_ones(angle, size):
    image = torch.randint(256, (4, 1, size, size), generator=generator(1), dtype=torch.uint8)
    data = RotatedData(source=source(), num_domains=2, max_angle=angle, spec=ImageSpec(1, size, 3))
    ours = TransformedImages(image, [data.view(0), data.view(1)]).index_select(0, torch.tensor([5, 2, 7]))
    theirs = rotate(image.double().numpy(), angle, axes=(3, 2), reshape=False, order=1, mode="grid-constant")
    assert np.abs(ours[[0, 2]].numpy() - theirs[[1, 3]]).max() <= 0.51, "ours is rounded"
    assert ours[1].equal(image[2])


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
        view = data.view(task.index)
        assert batch.image.equal(view(upright.image))
        test = all_of(data.dataset("test", [task.index])).image
        assert test.equal(view(data.source.read("test").image))
    assert len(orders) == 4
    again, other = (stream(PermutedData, **one).view(3)(upright.image) for one in ({}, {"seed": 1}))
    assert again.equal(batch.image) and not other.equal(batch.image)


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
    digits = Digits(spec=ImageSpec(1, 8, 10), split=NoSplit())
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
