"""scikit-learn's handwritten digits: real data that ships inside a dependency.

Source: Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI repository.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from datamodules.base import ImageDataModule
from datamodules.dataset import LabelledItems
from datamodules.files import fitted
from lit_gen.core.types import ImageSpec


@dataclass(kw_only=True, eq=False, repr=False)
class Digits(ImageDataModule):
    """1,797 digits, 8 x 8, grey; a larger `spec.size` pads them with black. They have no official test split:
    of every class the last 30 % in an order that is fixed once for all are the test split (1,262 and 535
    images), whatever the seed is.
    """

    spec: ImageSpec = field(default=ImageSpec(1, 8, 10))

    def read(self, split: Literal["train", "test"]) -> LabelledItems:
        from sklearn.datasets import load_digits

        digits = load_digits()
        order = np.random.RandomState(0).permutation(len(digits.target))  # the legacy generator never changes
        chosen = np.zeros(len(order), dtype=bool)
        for kind in range(10):
            members = order[digits.target[order] == kind]
            first = len(members) - int(0.3 * len(members))
            chosen[members[first:] if split == "test" else members[:first]] = True
        # A pixel counts the dark points of a 4 x 4 block: 0 to 16.
        grey = np.rint(digits.images[chosen] * (255 / 16)).astype(np.uint8)
        label = torch.from_numpy(digits.target[chosen].astype(np.int64))
        return LabelledItems(fitted(torch.from_numpy(grey)[:, None], self.spec.size), label, label)
