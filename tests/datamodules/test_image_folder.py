import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import image_cache
from datamodules.image_cache import Decoding, cached_images, decode
from datamodules.image_folder import ImageFolder
from datamodules.tasks import ClassSplit, NoSplit
from lit_gen.cli.config import compose, recompose
from lit_gen.core.pictures import Picture
from lit_gen.core.types import ImageSpec, InputError

RNG = np.random.RandomState(0)


def write(path, size=(8, 8), mode="RGB", pixels=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels is None:
        pixels = RNG.randint(0, 256, (*size, 3)[: 3 if mode == "RGB" else 2]).astype(np.uint8)
    Image.fromarray(pixels, mode).save(path)
    return pixels


def two_classes(root, splits=("train", "test")):
    for split in splits:
        for kind in ("cat", "dog"):
            for number in range(4):
                write(root / split / kind / f"{number}.png")


def folder(root, channels=3, num_classes=2, **settings):
    settings = {"split": NoSplit()} | settings
    return ImageFolder(root=str(root), spec=ImageSpec(channels, 8, num_classes), **settings)


def test_pictures_of_the_asked_size_are_kept_to_the_last_bit(tmp_path):
    two_classes(tmp_path)
    pixels = write(tmp_path / "train" / "dog" / "9.png")
    data = folder(tmp_path)
    data.prepare_data()
    data.setup()
    last = data.dataset("train", [0])[8]
    assert last.image.numpy().tolist() == pixels.transpose(2, 0, 1).tolist() and last.label == 1
    assert len(data.dataset("test", [0])) == 8


def test_shorter_side_is_resized_and_the_middle_cut_out(tmp_path):
    pixels = np.zeros((16, 48), dtype=np.uint8)
    pixels[:, 16:32] = 200  # the middle third
    write(tmp_path / "wide.png", mode="L", pixels=pixels)
    found = decode(tmp_path / "wide.png", Decoding(channels=1, size=8))
    assert found.shape == (1, 8, 8) and (found[0, :, 1:-1] == 200).all()


def test_a_centre_crop_comes_before_resizing(tmp_path):
    pixels = np.zeros((20, 20), dtype=np.uint8)
    pixels[6:14, 6:14] = RNG.randint(0, 256, (8, 8))
    write(tmp_path / "a.png", mode="L", pixels=pixels)
    found = decode(tmp_path / "a.png", Decoding(channels=1, size=8, crop=8))
    assert found[0].tolist() == pixels[6:14, 6:14].tolist()


def test_a_corrupt_picture_is_named_and_leaves_no_cache(tmp_path):
    two_classes(tmp_path)
    bad = tmp_path / "train" / "dog" / "broken.png"
    write(bad, size=(64, 64))
    bad.write_bytes(bad.read_bytes()[:300])
    with pytest.raises(InputError, match="no readable picture") as caught:
        folder(tmp_path).prepare_data()
    assert str(bad) in str(caught.value)
    left = [path.suffix for path in (tmp_path / ".lit_gen_cache").iterdir()]
    assert left.count(".npy") == 1, "of test/, which is whole"


def test_a_grey_picture_among_colour_ones_is_named_or_converted(tmp_path):
    two_classes(tmp_path)
    write(tmp_path / "train" / "cat" / "grey.png", mode="L")
    with pytest.raises(InputError, match=r"a grey picture .*data\.spec\.channels=3") as caught:
        folder(tmp_path, convert=False).prepare_data()
    assert "grey.png" in str(caught.value) and "data.convert=true" in str(caught.value)
    data = folder(tmp_path)
    data.setup()
    grey = data.dataset("train", [0])[4].image  # after cat's 0 to 3
    assert grey[0].equal(grey[1]) and grey[0].equal(grey[2])


def test_the_cache_is_used_until_a_file_changes(tmp_path, monkeypatch):
    two_classes(tmp_path)
    paths = sorted(map(str, (tmp_path / "train").rglob("*.png")))
    first = cached_images(paths, tmp_path, Decoding(3, 8), None)
    with monkeypatch.context() as patch:
        patch.setattr(image_cache, "read_all", lambda *args, **rest: pytest.fail("decoded again"))
        assert cached_images(paths, tmp_path, Decoding(3, 8), None).equal(first)
    pixels = write(Path(paths[0]))
    os.utime(paths[0], ns=(0, 12345))
    assert cached_images(paths, tmp_path, Decoding(3, 8), None)[0].numpy().tolist() == (
        pixels.transpose(2, 0, 1).tolist()
    )
    cached_images(paths, tmp_path, Decoding(3, 4), None)  # other settings, another file
    assert len(list((tmp_path / ".lit_gen_cache").glob("*.npy"))) == 3


@pytest.mark.parametrize("damage", ["zeroed", "cut", "empty"])
def test_a_damaged_cache_is_made_again_and_says_so(tmp_path, damage, caplog):
    two_classes(tmp_path)
    paths = sorted(map(str, (tmp_path / "train").rglob("*.png")))
    whole = cached_images(paths, tmp_path, Decoding(3, 8), None).clone()
    (file,) = (tmp_path / ".lit_gen_cache").glob("*.npy")
    content = file.read_bytes()
    spoilt = {"zeroed": content[:300] + bytes(64) + content[364:], "cut": content[: len(content) // 2]}
    file.write_bytes(spoilt.get(damage, b""))
    assert cached_images(paths, tmp_path, Decoding(3, 8), None).equal(whole)
    assert "the cache is damaged" in caplog.text and file.read_bytes() == content


def test_an_interrupted_cache_is_never_seen(tmp_path, monkeypatch):
    two_classes(tmp_path)
    paths = sorted(map(str, (tmp_path / "train").rglob("*.png")))

    def stops(picture: Picture, how: Decoding):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(image_cache, "fitted", stops)
        with pytest.raises(KeyboardInterrupt):
            cached_images(paths, tmp_path, Decoding(3, 8), None)
    assert list((tmp_path / ".lit_gen_cache").glob("*.npy")) == []
    assert len(cached_images(paths, tmp_path, Decoding(3, 8), None)) == 8


def test_a_folder_that_cannot_be_written_uses_the_users_cache(tmp_path, monkeypatch):
    two_classes(tmp_path)
    (tmp_path / ".lit_gen_cache").write_text("a file is in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    data = folder(tmp_path)
    data.setup()
    assert len(list((tmp_path / "home" / "lit_gen").glob("*.npy"))) == 2


def test_tasks_carry_the_names_of_the_folders(tmp_path):
    two_classes(tmp_path)
    data = folder(tmp_path, split=ClassSplit(2), num_tasks=2)
    data.setup()
    assert [task.name for task in data.tasks] == ["cat", "dog"]


def test_without_a_test_folder_a_part_is_held_out(tmp_path):
    two_classes(tmp_path, splits=("train",))
    data = folder(tmp_path, validation_fraction=0.5)
    data.setup()
    assert 0 < len(data.dataset("val", [0])) < 8
    assert len(data.dataset("val", [0])) + len(data.dataset("train", [0])) == 8


def test_pictures_without_classes_have_no_labels(tmp_path):
    for number in range(6):
        write(tmp_path / "train" / f"{number}.png")
    data = folder(tmp_path, num_classes=0, validation="fraction", seed=1)
    data.setup()
    assert data.tasks[0].label_counts == () and data.tasks[0].name == "all"
    assert data.dataset("train", [0])[torch.tensor([0])].label.tolist() == [-1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_classes": 3}, r"data.spec.num_classes=3, .* has 2 folders with pictures \(cat, dog\)"),
        ({"channels": 2}, "spec.channels=2"),
    ],
)
def test_a_spec_that_does_not_fit_is_refused(tmp_path, settings, words):
    two_classes(tmp_path)
    with pytest.raises(InputError, match=words):
        folder(tmp_path, **settings).setup()


def test_an_empty_or_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        folder(tmp_path / "nowhere").setup()
    (tmp_path / "train" / "cat").mkdir(parents=True)
    (tmp_path / "train" / "dog").mkdir()
    with pytest.raises(InputError, match="no pictures"):
        folder(tmp_path, num_classes=0).setup()


def test_what_a_spec_leaves_open_is_taken_from_the_files(tmp_path):
    for kind, sizes in {"cat": [40, 70, 90], "dog": [64, 65, 500], "empty": []}.items():
        (tmp_path / kind).mkdir()
        for size in sizes:
            write(tmp_path / kind / f"{size}.png", (size, size + 9), "L")
    (tmp_path / "cat" / "broken.png").write_bytes(b"none")
    assert ImageFolder.spec_of(tmp_path) == {"channels": 1, "size": 64, "num_classes": 2}
    write(tmp_path / "dog" / "colour.png", (30, 30))
    assert ImageFolder.spec_of(tmp_path)["channels"] == 3
    assert ImageFolder.spec_of(tmp_path / "dog")["num_classes"] == 0
    assert ImageFolder.spec_of(tmp_path / "dog")["size"] == 64  # the median of 30, 64, 65, 500
    with pytest.raises(InputError, match="no pictures"):
        ImageFolder.spec_of(tmp_path / "empty")


def test_the_root_alone_makes_a_config_which_stays_when_the_files_change(tmp_path):
    two_classes(tmp_path)
    composed = compose("train", [f"data.root={tmp_path}", "data.spec.size=8"])
    assert composed.choices["data"] == "image_folder"
    assert composed.config["model"]["spec"] == composed.config["data"]["spec"]
    kept = {key: composed.config["data"]["spec"][key] for key in ("channels", "size", "num_classes")}
    assert kept == {"channels": 3, "size": 8, "num_classes": 2}
    write(tmp_path / "train" / "owl" / "0.png")
    assert recompose(composed.source).config == composed.config
