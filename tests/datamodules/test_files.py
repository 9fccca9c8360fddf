import gzip
import struct

import numpy as np
import pytest
import torch
import torchvision.datasets

from datamodules.files import fitted, read_idx
from datamodules.mnist import MNIST, FashionMNIST
from datamodules.tasks import ClassSplit
from lit_gen.core.types import ImageSpec, InputError


def idx(array):
    """The bytes of an IDX file of unsigned bytes."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


PICTURES = np.random.RandomState(0).randint(0, 256, (5, 4, 3))
NAME = "train-images-idx3-ubyte"


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_plain_and_gzipped_files_give_the_array_that_was_written(tmp_path, suffix):
    data = idx(PICTURES)
    (tmp_path / f"{NAME}{suffix}").write_bytes(gzip.compress(data, mtime=0) if suffix else data)
    found = read_idx(tmp_path, NAME, 3)
    assert found.dtype == torch.uint8 and found.numpy().tolist() == PICTURES.tolist()


@pytest.mark.parametrize(
    ("content", "suffix", "words"),
    [
        (idx(PICTURES)[:-1], "", "5 x 4 x 3 bytes and 59 follow"),
        (idx(PICTURES) + b"!", "", "61 follow"),
        (idx(PICTURES)[:7], "", "truncated"),
        (b"", "", "first bytes"),
        (b"<html>not found</html>", "", "first bytes"),
        (idx(PICTURES[0]), "", "3 dimension"),
        (gzip.compress(idx(PICTURES), mtime=0)[:-12], ".gz", "gzip"),
        (idx(PICTURES), ".gz", "gzip"),
        (idx(PICTURES[:0]), "", r"holds nothing \(0 x 4 x 3\)"),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path, content, suffix, words):
    (tmp_path / f"{NAME}{suffix}").write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_idx(tmp_path, NAME, 3)
    assert f"{NAME}{suffix}" in str(caught.value)


def test_a_missing_file_is_named_with_its_folder(tmp_path):
    with pytest.raises(InputError, match=NAME) as caught:
        read_idx(tmp_path, NAME, 3)
    assert str(tmp_path) in str(caught.value)


def test_a_failed_download_names_the_files_and_where_they_belong(tmp_path, monkeypatch):
    def unreachable(*args: object, **rest: object):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets, "MNIST", unreachable)
    with pytest.raises(InputError, match="no route to host") as caught:
        MNIST(tmp_path).prepare_data()
    assert "train-images-idx3-ubyte, train-labels" in str(caught.value)
    assert str(tmp_path / "MNIST" / "raw") in str(caught.value)


def test_nothing_is_downloaded_when_files_are_there_or_downloads_are_off(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "MNIST", lambda *_, **rest: pytest.fail("downloaded"))
    with pytest.raises(InputError, match=r"data\.download=false"):
        MNIST(tmp_path, download=False).prepare_data()
    write_mnist(tmp_path)
    assert MNIST(tmp_path).missing() == []
    assert MNIST(tmp_path).dataset("train")[3].image.shape == (1, 28, 28), "without a Trainer, or a setup"


def test_padding_keeps_the_picture_in_the_middle():
    image = torch.randint(1, 256, (2, 1, 28, 28), dtype=torch.uint8)
    wide = fitted(image, 32)
    assert wide.shape == (2, 1, 32, 32) and wide[:, :, 2:30, 2:30].equal(image)
    assert wide.long().sum() == image.long().sum()  # the rest is black


def test_a_smaller_size_averages_areas_of_the_cropped_picture():
    image = torch.randint(256, (2, 3, 28, 28), dtype=torch.uint8)
    cut = image[:, :, 2:26, 2:26].double()
    small = fitted(image, 8, crop=24)
    assert (small - cut.view(2, 3, 8, 3, 8, 3).mean((3, 5))).abs().max() <= 0.5
    assert small.dtype == torch.uint8 and fitted(image, 24, crop=24).equal(cut.to(torch.uint8))
    with pytest.raises(InputError, match="crop=29: the images have 28 pixels"):
        fitted(image, 8, crop=29)


def write_mnist(root, name="MNIST", num_test_labels=4):
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    rng = np.random.RandomState(1)
    for part, count, labels in (("train", 12, 12), ("t10k", 4, num_test_labels)):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(rng.randint(0, 256, (count, 28, 28))))
        packed = gzip.compress(idx(np.arange(labels) % 4))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(packed)


@pytest.mark.parametrize(("kind", "name"), [(MNIST, "MNIST"), (FashionMNIST, "FashionMNIST")])
def test_mnist_is_read_in_its_official_layout(tmp_path, kind, name):
    write_mnist(tmp_path, name)
    data = kind(root=str(tmp_path), spec=ImageSpec(1, 32, 4), split=ClassSplit(2), num_tasks=2)
    data.prepare_data()
    data.setup()
    assert [task.num_images for task in data.tasks] == [6, 6]
    assert data.dataset("train", [1])[np.arange(6)].label.unique().tolist() == [2, 3]
    assert data.dataset("test", [0, 1]).image.shape == (4, 1, 32, 32)


def test_images_and_labels_that_do_not_belong_together_are_refused(tmp_path):
    write_mnist(tmp_path, num_test_labels=3)
    data = MNIST(root=str(tmp_path), spec=ImageSpec(1, 28, 4), split=ClassSplit(2), num_tasks=2)
    with pytest.raises(InputError, match="4 images, but 3 labels"):
        data.setup()
