import pickle

import numpy as np
import pytest

from datamodules.cifar import CIFAR10, CIFAR100
from datamodules.tasks import NoSplit
from lit_gen.core.types import ImageSpec, InputError

RNG = np.random.RandomState(0)


def images(count):
    return RNG.randint(0, 256, (count, 3072)).astype(np.uint8)


def write_pickle(path, pixels, labels, key="labels"):
    path.parent.mkdir(exist_ok=True)
    # Protocol 2 with byte keys is what Python 2 wrote.
    path.write_bytes(pickle.dumps({b"data": pixels, key.encode(): np.asarray(labels).tolist()}, protocol=2))


def cifar10(root, **settings):
    return CIFAR10(root=str(root), spec=ImageSpec(3, 32, 10), split=NoSplit(), download=False, **settings)


def write_cifar10(root):
    pixels, labels = images(12), np.arange(12) % 10
    for number in range(5):
        part = slice(2 * number, 2 * number + 2)
        write_pickle(root / "cifar-10-batches-py" / f"data_batch_{number + 1}", pixels[part], labels[part])
    write_pickle(root / "cifar-10-batches-py" / "test_batch", pixels[10:], labels[10:])
    return pixels, labels


def test_pickled_cifar10_gives_the_pixels_that_were_written(tmp_path):
    pixels, labels = write_cifar10(tmp_path)
    data = cifar10(tmp_path)
    data.prepare_data()
    train, test = data.read("train"), data.read("test")
    assert train.image.flatten(1).numpy().tolist() == pixels[:10].tolist()  # red, green, blue plane
    assert train.label.tolist() == labels[:10].tolist() and test.label.tolist() == labels[10:].tolist()


def test_binary_files_hold_the_same(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    pixels, labels = images(12), np.arange(12) % 10
    table = np.concatenate([labels[:, None].astype(np.uint8), pixels], axis=1)
    for number in range(5):
        (folder / f"data_batch_{number + 1}.bin").write_bytes(table[2 * number : 2 * number + 2].tobytes())
    (folder / "test_batch.bin").write_bytes(table[10:].tobytes())
    data = cifar10(tmp_path)
    data.prepare_data()
    train = data.read("train")
    assert train.image.flatten(1).numpy().tolist() == pixels[:10].tolist()
    assert train.label.tolist() == labels[:10].tolist()


@pytest.mark.parametrize("binary", [True, False])
def test_cifar100_uses_the_fine_labels(tmp_path, binary):
    pixels, fine, coarse = images(4), np.array([99, 3, 50, 7]), np.array([1, 2, 3, 4])
    if binary:
        (tmp_path / "cifar-100-binary").mkdir()
        table = np.concatenate([coarse[:, None], fine[:, None], pixels], axis=1).astype(np.uint8)
        for name in ("train.bin", "test.bin"):
            (tmp_path / "cifar-100-binary" / name).write_bytes(table.tobytes())
    else:
        for name in ("train", "test"):
            write_pickle(tmp_path / "cifar-100-python" / name, pixels, fine, "fine_labels")
    data = CIFAR100(root=str(tmp_path), spec=ImageSpec(3, 32, 100), split=NoSplit(), download=False)
    data.prepare_data()
    assert data.read("train").label.tolist() == fine.tolist()
    assert data.read("test").image.flatten(1).numpy().tolist() == pixels.tolist()


def test_missing_files_are_named(tmp_path):
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(InputError, match="data_batch_3 not found"):
        cifar10(tmp_path).prepare_data()
    with pytest.raises(InputError, match="data_batch_3: no such file"):
        cifar10(tmp_path).read("train")


class RunsCode:
    def __reduce__(self):
        import os

        return os.system, ("true",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps({b"data": images(2), b"labels": [0, 1]}, protocol=2)[:-500], "truncated"),
        (pickle.dumps({b"data": images(2), b"labels": [0]}, protocol=2), "1 labels"),
        (
            pickle.dumps({b"data": images(2).astype(np.float32), b"labels": [0, 1]}, protocol=2),
            "expected bytes",
        ),
        (pickle.dumps({b"data": images(2), b"labels": [0, 10]}, protocol=2), "labels from 0 to 10"),
        (pickle.dumps({b"data": images(2)}, protocol=2), "labels"),
        (pickle.dumps({b"data": RunsCode(), b"labels": []}, protocol=2), "which no CIFAR file needs"),
        (b"", "truncated"),
    ],
)
def test_wrong_pickles_are_refused_by_name(tmp_path, content, words):
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        cifar10(tmp_path).read("train")
    assert "data_batch_2" in str(caught.value)


def test_truncated_binary_files_are_refused(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "test_batch.bin").write_bytes(bytes(3073 * 2 - 1))
    with pytest.raises(InputError, match=r"test_batch\.bin: 6145 bytes"):
        cifar10(tmp_path).read("test")
