import numpy as np
import pytest
from PIL import Image

from datamodules.omniglot import Omniglot
from datamodules.tasks import ClassSplit
from lit_gen.core.types import ImageSpec, InputError

NUM_CHARACTERS = 5  # of two alphabets


def write(root):
    """Black strokes on white, 1 bit, as in the official archive; character k has k + 1 black rows."""
    for number in range(NUM_CHARACTERS):
        alphabet, character = ("Angelic", number + 1) if number < 3 else ("Balinese", number - 2)
        folder = root / "omniglot-py" / "images_background" / alphabet / f"character{character:02d}"
        folder.mkdir(parents=True)
        for drawing in range(20):
            pixels = np.full((28, 28), True)
            pixels[: number + 1] = False
            Image.fromarray(pixels).save(folder / f"{number:04d}_{drawing + 1:02d}.png")


def omniglot(root, **settings):
    settings = {"validation": "fraction", "split": ClassSplit(2, drop_rest=True), "num_tasks": 2} | settings
    spec = settings.pop("spec", ImageSpec(1, 28, NUM_CHARACTERS))
    data = Omniglot(root=str(root), spec=spec, download=False, **settings)
    data.prepare_data()
    data.setup()
    return data


@pytest.mark.parametrize(("invert", "stroke"), [(True, 255), (False, 0)])
def test_characters_are_numbered_by_alphabet_in_both_polarities(tmp_path, invert, stroke):
    write(tmp_path)
    for hidden in tmp_path.glob("omniglot-py/*/*/character01"):
        for folder in (hidden, hidden.parent):
            (folder / ".ipynb_checkpoints").mkdir()
            Image.new("1", (28, 28)).save(folder / ".ipynb_checkpoints" / "0001_01-checkpoint.png")
    data = omniglot(tmp_path, invert=invert)
    images = data.read("train")
    assert len(images.label) == 20 * NUM_CHARACTERS
    rows = (images.image[:, 0, :, 0] == stroke).sum(1)
    assert rows.equal(images.label + 1)


def test_each_task_has_equally_many_characters_and_the_last_is_dropped(tmp_path):
    write(tmp_path)
    data = omniglot(tmp_path)
    assert [task.name for task in data.tasks] == ["0-1", "2-3"]
    total = sum(len(data.dataset(split, [0, 1])) for split in ("train", "val"))
    assert total == 4 * 20


def test_it_can_be_scored_on_its_training_images(tmp_path):
    write(tmp_path)
    data = omniglot(tmp_path, validation="train")
    for task in (0, 1):
        assert data.dataset("test", [task]).rows.equal(data.dataset("train", [task]).rows)
    assert len(data.dataset("train", [0, 1])) == 80


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match="omniglot-py/images_background"):
        omniglot(tmp_path)
    write(tmp_path)
    with pytest.raises(InputError, match="has 5 characters"):
        omniglot(tmp_path, spec=ImageSpec(1, 28, 964))
    with pytest.raises(InputError, match="use fraction or train"):
        omniglot(tmp_path, validation="official")
