"""scikit-learn's handwritten digits: real data that ships inside a dependency.

Source: Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI repository.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from datamodules.base import ImageDataModule
from datamodules.dataset import LabelledImages
from datamodules.files import padded

TEST_SHARE = 0.3
LEVELS = 16  # a pixel counts the dark points of a 4 x 4 block: 0 to 16


class DigitsData(ImageDataModule):
    """1,797 digits, 8 x 8, grey. They have no official test split: of every class the last 30 % in an order
    that is
    fixed once for all are the test split (1,262 and 535 images), whatever the seed is.
    """

    def read(self, split: Literal["train", "test"]) -> LabelledImages:
        from sklearn.datasets import load_digits

        digits = load_digits()
        order = np.random.RandomState(0).permutation(len(digits.target))  # the legacy generator never changes
        chosen = np.zeros(len(order), dtype=bool)
        for kind in range(10):
            members = order[digits.target[order] == kind]
            first = len(members) - int(len(members) * TEST_SHARE)
            chosen[members[first:] if split == "test" else members[:first]] = True
        grey = np.rint(digits.images[chosen] * (255 / LEVELS)).astype(np.uint8)
        label = torch.from_numpy(digits.target[chosen].astype(np.int64))
        return LabelledImages(padded(torch.from_numpy(grey)[:, None], self.spec.size), label, label)
