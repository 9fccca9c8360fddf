"""SVHN from Matlab files of the official layout."""

import numpy as np
import pytest
import torch
from scipy.io import savemat

from datamodules.svhn import SVHN
from datamodules.tasks import NoSplit
from lit_gen.core.types import ImageSpec, InputError

RNG = np.random.default_rng(0)


def write(root, split="train", **changes):
    (root / "svhn").mkdir(exist_ok=True)
    image = RNG.integers(0, 256, (32, 32, 3, 12), dtype=np.uint8)
    label = np.array([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 1]], dtype=np.uint8).T
    path = root / "svhn" / f"{split}_32x32.mat"
    savemat(path, {"X": image, "y": label} | changes)
    return path, image


def svhn(root):
    spec = ImageSpec(3, 32, 10)
    return SVHN(root=str(root), spec=spec, split=NoSplit(), download=False)


def test_images_come_as_they_were_written_and_ten_is_a_zero(tmp_path):
    (_, image), _ = write(tmp_path), write(tmp_path, "test")
    data = svhn(tmp_path)
    data.prepare_data()
    found = data.read("train")
    assert torch.equal(found.image[5], torch.from_numpy(image[:, :, :, 5]).permute(2, 0, 1))
    assert found.label.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 1]
    assert data.read("test").image.shape == (12, 3, 32, 32)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"y": np.zeros((12, 1), dtype=np.uint8)}, "labels from 0 to 0"),
        ({"y": np.ones((5, 1), dtype=np.uint8)}, "32 x 32 x 3 x 5 for its 5 labels"),
        ({"X": np.zeros((32, 32, 3, 12))}, "float64"),
        ({"X": "words"}, "no Matlab file of SVHN|expected X"),
    ],
)
def test_files_of_another_kind_are_refused_by_name(tmp_path, changes, said):
    path, _ = write(tmp_path, **changes)
    with pytest.raises(InputError, match=said) as caught:
        svhn(tmp_path).read("train")
    assert str(path) in str(caught.value)


def test_damaged_and_missing_files_are_named(tmp_path):
    path, _ = write(tmp_path)
    whole = path.read_bytes()
    for part in (b"", whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(part)
        with pytest.raises(InputError, match=r"train_32x32\.mat: truncated, or no Matlab file"):
            svhn(tmp_path).read("train")
    with pytest.raises(InputError, match=r"test_32x32\.mat not found and data\.download=false"):
        svhn(tmp_path).prepare_data()
