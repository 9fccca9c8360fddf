"""Augmentations stay in the range of images, and what is mixed is mixed with its labels."""

import pytest
import torch

from lit_gen.nets.augmentation import Augmentation


@pytest.mark.parametrize("channels", [1, 3])
def test_images_stay_within_their_range_and_change_independently(channels):
    torch.manual_seed(0)
    image = (torch.rand(64, channels, 12, 12) > 0.5).float() * 2 - 1  # as far out as they get
    changed, wanted = Augmentation(share=1.0, mixup=0.0)(image, torch.eye(64))
    assert changed.min() >= -1 and changed.max() <= 1 and torch.equal(wanted, torch.eye(64))
    assert changed.min() < -0.5, "the dark half is not lost"
    same, _ = Augmentation(share=0.0, flip=0.0, mixup=0.0)(image, wanted)
    torch.testing.assert_close(same, image)
    some, _ = Augmentation(share=0.0, flip=0.5, mixup=0.0)(image, wanted)
    mirrored = torch.isclose(some, image.flip(-1), atol=1e-5).flatten(1).all(1)
    assert 20 < mirrored.sum() < 44
    torch.testing.assert_close(some[~mirrored], image[~mirrored])


def test_a_mixture_has_the_labels_of_what_is_in_it_and_unlabelled_images_are_left_alone():
    torch.manual_seed(0)
    label = torch.tensor([0, 1, 2, 3, -1, -1, -1, -1] * 8)
    brightness = torch.tensor([-1.0, -0.3, 0.4, 1.0])
    known = label >= 0
    image = torch.where(known, brightness[label.clamp(min=0)], 0.77).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    wanted = torch.where(known[:, None], torch.eye(4)[label.clamp(min=0)], -1.0)
    mixed, targets = Augmentation(mixup=1.0).mixed(image, wanted)
    torch.testing.assert_close(targets[known].sum(1), torch.ones(32))
    torch.testing.assert_close(mixed[known].mean((1, 2, 3)), targets[known] @ brightness)
    assert ((targets[known] > 0).sum(1) == 2).any(), "some are mixed"
    assert torch.equal(mixed[~known], image[~known]) and torch.equal(targets[~known], wanted[~known])
