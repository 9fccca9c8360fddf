"""A labelled source and an unlabelled target: which labels reach training, what the target looks like."""

import numpy as np
import pytest
import torch
from data_toys import SPEC

from datamodules.adaptation import AdaptationData
from datamodules.synthetic import SyntheticData
from datamodules.tasks import NoSplit
from lit_gen.cli.config import compose
from lit_gen.core.types import ImageSpec, InputError


def part(num_images, seed, spec=SPEC, num_test_images=12) -> SyntheticData:
    sizes = {"num_images": num_images, "num_test_images": num_test_images}
    return SyntheticData(spec=spec, split=NoSplit(), seed=seed, **sizes)


def adapted(**settings) -> AdaptationData:
    defaults = {"source": part(40, 0), "target": part(24, 1), "spec": SPEC, "split": NoSplit()}
    data = AdaptationData(**defaults | settings)
    data.setup()
    return data


def all_of(data, split):
    images = data.dataset(split, [0])
    return images[np.arange(len(images))]


def test_the_target_is_trained_on_without_labels_and_scored_with_them():
    data = adapted(target_looks=["invert"])
    source, target, tested = (
        data.source.read("train"),
        data.target.read("train"),
        data.target.read("test"),
    )
    trained = all_of(data, "train")
    assert trained.image.equal(torch.cat([source.image, 255 - target.image]))
    assert trained.label.equal(torch.cat([source.label, torch.full((24,), -1)]))
    assert data.tasks[0].label_counts == (10, 10, 10, 10) and data.tasks[0].num_images == 64
    for split in ("val", "test"):
        held_out = all_of(data, split)
        assert held_out.image.equal(255 - tested.image) and held_out.label.equal(tested.label)
    shuffled = [batch.label for batch in data.train_dataloader()]
    assert (torch.cat(shuffled) < 0).sum() == 24


def test_a_part_of_the_target_is_drawn_by_the_seed_and_none_is_the_source_alone():
    target, draws = part(24, 1).read("train").image, []
    for seed in (0, 0, 1):
        drawn = all_of(adapted(num_target=7, seed=seed), "train").image[40:]
        draws.append([int((target == image).flatten(1).all(1).nonzero()) for image in drawn])
    assert draws[0] == draws[1] != draws[2] and len(set(draws[0])) == 7
    alone = adapted(num_target=0, target_degrees=0.5, target_looks=["thicken"])
    assert alone.dataset("train").label.equal(alone.source.read("train").label)
    assert len(alone.dataset("test")) == 12


def test_a_labelled_share_is_one_of_the_source():
    assert adapted(labelled_share=0.2).tasks[0].label_counts == (2, 2, 2, 2)
    assert adapted(labelled_share=0.01).tasks[0].label_counts == (1, 1, 1, 1)


def test_the_target_is_turned_before_it_is_inverted():
    upright = part(24, 1).read("train").image
    turned = all_of(adapted(target_degrees=90.0), "train").image[40:]
    assert turned.equal(torch.rot90(upright, 1, (-2, -1)))
    both = all_of(adapted(target_degrees=45.0, target_looks=["invert"]), "train").image[40:]
    assert (both[..., 0, 0] == 255).all(), "black corners are inverted too"


def test_unlabelled_attributes_count_for_none():
    class Attributes(SyntheticData):
        def read(self, split):
            read = super().read(split)
            return read._replace(label=torch.nn.functional.one_hot(read.label, 4).float())

    parts = [Attributes(spec=SPEC, split=NoSplit(), num_images=20, num_test_images=8) for _ in range(2)]
    data = adapted(source=parts[0], target=parts[1])
    assert data.tasks[0].label_counts == (5, 5, 5, 5)
    assert (all_of(data, "train").label[20:] == -1).all()


@pytest.mark.parametrize("name", ["source", "target"])
@pytest.mark.parametrize(("rows", "size", "said"), [(0, 8, "no images"), (5, 7, "images of 1 x 7 x 7")])
def test_files_that_hold_nothing_or_other_sizes_are_named(name, rows, size, said):
    class Other(SyntheticData):
        def read(self, split):
            read = super().read(split)
            if split == "test":
                return read
            return read._replace(image=read.image[:rows, :, :size, :size], label=read.label[:rows])

    other = Other(spec=SPEC, split=NoSplit(), num_images=20, num_test_images=8)
    with pytest.raises(InputError, match=rf"Other \({name}, train\): .*{said}"):
        adapted(**{name: other})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"target": part(9, 1, ImageSpec(1, 9, 4))}, r"data\.target has 1 channel\(s\), 9 pixels a side"),
        ({"source": part(9, 1, ImageSpec(1, 8, 3))}, r"data\.source has .* 3 classes, data\.spec .* 4"),
        ({"target_looks": ["repeat"]}, r"data\.target has 3 channel\(s\)"),
        ({"target_looks": ["fat"]}, "target_looks=.*should be 'thicken'"),
        ({"num_target": 25}, r"data\.num_target=25: the target has 24 training images"),
        ({"num_tasks": 2}, r"stream\.num_tasks=2.*stream=none"),
        ({"validation": "fraction"}, r"data\.validation=fraction.*official"),
        ({"without_classes": [1]}, r"data\.without_classes=\[1\]"),
        ({"target_degrees": 400.0}, "target_degrees=400"),
    ],
)
def test_what_does_not_fit_is_refused_by_key(settings, said):
    with pytest.raises(InputError, match=said):
        adapted(**settings)


@pytest.mark.parametrize("name", ["digits_mnist", "mnist", "svhn_mnist"])
def test_source_and_target_of_every_config_fit_each_other(name):
    data = compose("train", [f"data=adaptation_{name}"]).build("data")
    assert data.source.spec.shape[1:] == data.target.spec.shape[1:] == data.spec.shape[1:]
    assert data.root == data.target.root
