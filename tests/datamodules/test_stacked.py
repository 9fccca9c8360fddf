"""Stacked digits: every channel is an image of the part, the label counts through their classes."""

import pytest
import torch

from datamodules.digits import Digits
from datamodules.stacked import StackedData
from datamodules.tasks import NoSplit
from lit_gen.core.types import ImageSpec, InputError
from lit_gen.metrics.stacked import StackedExtractor

SPEC = ImageSpec(3, 8, 1000)


def data(seed=0):
    made = StackedData(
        part=Digits(), spec=SPEC, split=NoSplit(), num_images=300, num_test_images=50, seed=seed
    )
    made.setup()
    return made


def test_channels_are_digits_and_labels_count_through_their_classes():
    items, part = data().read("train"), Digits().read("train")
    classes = {
        image.numpy().tobytes(): int(label) for image, label in zip(part.image, part.label, strict=True)
    }
    digits = torch.tensor(
        [[classes[channel.numpy().tobytes()] for channel in image] for image in items.image]
    )
    assert torch.equal(items.label, digits @ torch.tensor([100, 10, 1]))
    assert len(items.label.unique()) > 200


def test_the_seed_decides_and_splits_differ():
    assert torch.equal(data().read("train").image, data().read("train").image)
    assert not torch.equal(data().read("train").label, data(1).read("train").label)
    assert len(data().dataset("test")) == 50


def test_a_number_of_classes_that_cannot_be_is_refused():
    with pytest.raises(InputError, match="num_classes=10: 3 channels of grey images"):
        StackedData(part=Digits(), spec=ImageSpec(3, 8, 10), split=NoSplit())


class Level(torch.nn.Module):
    name, trained_on, num_features, num_logits, weights_hash = "level", "none", 1, 10, "abc"

    def forward(self, image):
        level = image[:, 0, 0, 0].long()
        return level[:, None].float(), 50 * torch.nn.functional.one_hot(level, 10).float()


def test_a_stacked_extractor_names_the_combination():
    image = torch.tensor([[1, 2, 3], [9, 0, 7]], dtype=torch.uint8)[:, :, None, None].expand(-1, -1, 2, 2)
    features, logits = StackedExtractor(Level())(image)
    assert features.tolist() == [[1, 2, 3], [9, 0, 7]] and logits.argmax(1).tolist() == [123, 907]
    assert float(logits.exp().sum(1)[0]) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="3 channels, got 1"):
        StackedExtractor(Level())(image[:, :1])
