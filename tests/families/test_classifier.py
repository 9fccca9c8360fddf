"""The classifier's terms and its augmentation."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import nn

from lit_gen.core.types import Batch, ImageSpec
from lit_gen.families.classifier import Classifier


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16, 3)

    def forward(self, image):
        return image.flatten(1), self.head(image.flatten(1))


def make(shift=0):
    return Classifier(ImageSpec(1, 4, 3), Net(), shift, optimizer=functools.partial(torch.optim.SGD, lr=0.1))


def test_unlabelled_images_do_not_count():
    model = make()
    image, label = torch.randn(6, 1, 4, 4), torch.tensor([0, 1, 2, 0, -1, -1])
    terms = model.step(Batch(image, label, label, label), 0.0)
    logits = model.classify(image[:4])
    torch.testing.assert_close(terms["loss"], F.cross_entropy(logits, label[:4]))
    torch.testing.assert_close(terms["accuracy"], (logits.argmax(1) == label[:4]).float().mean())


def test_logits_that_are_no_numbers_are_right_of_no_class():
    model = make()
    image, label = torch.randn(4, 1, 4, 4), torch.tensor([0, 0, 1, -1])
    image[3] = torch.nan  # unlabelled, and so not counted
    assert model.step(Batch(image, label, label, label), 0.0)["accuracy"].isfinite()
    image[0] = torch.nan
    assert model.step(Batch(image, label, label, label), 0.0)["accuracy"].isnan()


def test_shifted_images_are_the_originals_moved_over_black():
    torch.manual_seed(0)
    image = torch.rand(200, 1, 4, 4)
    moved = make(shift=1)._moved(image)
    padded = F.pad(image, [1] * 4, value=-1.0)
    options = torch.stack([padded[:, :, y : y + 4, x : x + 4] for y in range(3) for x in range(3)])
    same = (options == moved).flatten(2).all(2)  # [9, 200]
    assert same.any(0).all()
    assert same.any(1).all(), "all nine shifts occur"
