import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.celeba import CelebA, groups_of
from datamodules.tasks import ClassSplit, NoSplit
from lit_gen.core.types import ImageSpec, InputError

BALD, BLACK, BLOND, BROWN, GRAY, MALE, HAT = 4, 8, 9, 11, 17, 20, 35


def face(*attributes):
    present = torch.zeros(40, dtype=torch.bool)
    present[list(attributes)] = True
    return present


def test_published_classes_by_hair_or_hat_a_later_rule_overwriting_an_earlier_one():
    published = {
        (BLACK, MALE): 0,
        (BLACK,): 1,
        (BLOND, MALE): 2,
        (BLOND,): 3,
        (HAT, MALE): 4,
        (HAT,): 5,
        (BROWN, MALE): 6,
        (BROWN,): 7,
        (GRAY, MALE): 8,
        (BALD, MALE): 9,
        (MALE,): -1,
        (BLACK, BROWN): 7,
        (BROWN, HAT): 5,
        (HAT, BLOND): 3,
        (BLOND, GRAY): 8,
        (GRAY, BALD): 9,
        (BLACK, HAT, BLOND, BALD, MALE): 9,
    }
    faces = torch.stack([face(*attributes) for attributes in published])
    assert groups_of(faces, "hair_and_hat").tolist() == [*published.values()]


def test_first_ten_attributes_with_the_published_accident():
    published = {(): 0, (30,): 0, (0,): -1, (3,): 3, (0, 3): 3, (1, 9, 4): 9, (10, 39): 0}
    faces = torch.stack([face(*attributes) for attributes in published])
    assert groups_of(faces, "first_ten").tolist() == [*published.values()]


def write(root, count=24):
    """One grey level each; every third one is black-haired, blond, or neither; the last four are test."""
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    lines, parts = [str(count), " ".join(f"attribute{number}" for number in range(40)) + " "], []
    for number in range(count):
        name = f"{number + 1:06d}.jpg"
        pixels = np.full((218, 178, 3), 255, dtype=np.uint8)
        pixels[39:179, 19:159] = 10 * number  # what CenterCrop(140) keeps
        Image.fromarray(pixels).save(folder / "img_align_celeba" / name, quality=95)
        present = face(*((BLACK,), (BLOND, MALE), ())[number % 3])
        lines.append(f"{name}  " + " ".join(" 1" if one else "-1" for one in present))
        parts.append(f"{name} {2 if number >= count - 4 else int(number == 0)}")
    (folder / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    (folder / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    return folder


def celeba(root, **settings):
    settings = {"split": NoSplit(), "spec": ImageSpec(3, 16, 10), "validation": "official"} | settings
    data = CelebA(root=str(root), download=False, **settings)
    data.prepare_data()
    return data


def test_official_partition_and_excluded_faces(tmp_path):
    write(tmp_path)
    data = celeba(tmp_path, split=ClassSplit(2, order=[1, 2]), num_tasks=2)
    data.setup()
    # Number 0 is of the official validation split, 20 to 23 are test, every third has no class.
    assert [task.name for task in data.tasks] == ["black_female", "blond_male"]
    train, test = (
        [data.dataset(split, [task]).rows.tolist() for task in (0, 1)] for split in ("train", "test")
    )
    assert train == [[2, 5, 8, 11, 14, 17], [0, 3, 6, 9, 12, 15, 18]]  # face 1 is row 0
    assert test == [[1], [2]]


@pytest.mark.parametrize("crop", [None, 140])
def test_both_published_crops(tmp_path, crop):
    write(tmp_path)
    image = celeba(tmp_path, crop=crop).read("train").image[4].float()  # face 5
    assert image.shape == (3, 16, 16)
    grey = (image - 50).abs() < 4
    if crop:
        assert grey.all()
    else:  # 140 of 178 pixels around the middle
        assert grey[:, 3:-3, 3:-3].all() and (image[:, 0] > 240).all() and (image[:, :, 0] > 240).all()


def test_attributes_as_labels(tmp_path):
    write(tmp_path)
    data = celeba(tmp_path, label="attributes", classes="none", spec=ImageSpec(3, 16, 40))
    data.setup()
    batch = data.dataset("train", [0])[np.arange(19)]
    assert batch.label.dtype == torch.float32 and batch.label.shape == (19, 40)
    counts = data.tasks[0].label_counts
    assert counts == tuple(batch.label.sum(0).long().tolist()) and counts[BLACK] == 6 and counts[MALE] == 7


def test_a_partition_without_faces_is_named(tmp_path):
    folder = write(tmp_path)
    lines = (folder / "list_eval_partition.txt").read_text().splitlines()
    (folder / "list_eval_partition.txt").write_text("\n".join(line[:-1] + "0" for line in lines))
    with pytest.raises(InputError, match=r"CelebA \(test\): there are no images in the files"):
        celeba(tmp_path).setup()


def test_damaged_lists_and_missing_pictures_are_named(tmp_path):
    with pytest.raises(InputError, match=r"list_attr_celeba\.txt, .* not found"):
        celeba(tmp_path)
    folder = write(tmp_path)
    for number in (7, 9):
        (folder / "img_align_celeba" / f"{number:06d}.jpg").unlink()
    with pytest.raises(InputError, match=r"000007\.jpg, .*000009\.jpg: no such file"):
        celeba(tmp_path)
    lines = (folder / "list_attr_celeba.txt").read_text().splitlines()
    (folder / "list_attr_celeba.txt").write_text("\n".join(lines[:-3]))
    with pytest.raises(InputError, match=r"list_attr_celeba\.txt: .*'24'.*21 lines"):
        celeba(tmp_path)
    (folder / "list_attr_celeba.txt").write_text("\n".join(lines))
    (folder / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 0\n")
    with pytest.raises(InputError, match=r"list_eval_partition\.txt: no line for 000003\.jpg"):
        celeba(tmp_path)
