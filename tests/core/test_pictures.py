"""Picture files of every kind against the pixels that were put into them, at every door they come in by."""

from __future__ import annotations

import logging
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from datamodules.image_cache import Decoding, cached_images, decode
from datamodules.image_folder import ImageFolder
from datamodules.tasks import NoSplit
from datamodules.unpaired import UnpairedData
from lit_gen.cli.open_run import Rebuilt
from lit_gen.cli.translate import _decoding
from lit_gen.cli.translate import run as translate
from lit_gen.core.pictures import pictures_in, read_picture
from lit_gen.core.types import ImageSpec, InputError
from lit_gen.evaluation.image_sets import batches

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
INKS = RNG.integers(0, 256, (8, 8, 4), dtype=np.uint8)
FEW = np.asarray([[200, 10, 0], [0, 255, 70]], dtype=np.uint8)[RNG.integers(0, 2, (8, 8))]  # two colours
UPSIDE = Image.Exif()
UPSIDE[0x0112] = 6  # the camera was turned: 90 degrees clockwise makes it upright
TURNED = np.rot90(COLOUR)  # counter-clockwise


def levels(values, kind, times):
    return Image.fromarray(values.astype(kind) * kind(times))


def with_alpha(pixels, alpha):
    return Image.fromarray(np.dstack([pixels, alpha]))


def palette(pixels):
    """Of these colours exactly."""
    return Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE)


def animation(*frames, **options):
    first, *others = map(Image.fromarray, frames)
    return first, {"save_all": True, "append_images": others, **options}


# File, what is written, and the pixels that everybody should see.
FILES = {
    "plain.png": (Image.fromarray(GREY), GREY),
    "times257.png": (levels(GREY, np.uint16, 257), GREY),
    "times256.tif": (levels(GREY, np.uint16, 256), GREY),
    "deep.pgm": (levels(GREY, np.uint16, 257), GREY),
    "int32.tiff": (levels(GREY, np.int32, 2**23), GREY),
    "alpha.png": (with_alpha(np.full((8, 8, 3), 255, np.uint8), GREY), np.dstack([GREY] * 3)),
    "grey_alpha.png": (with_alpha(np.full((8, 8), 255, np.uint8), GREY), GREY),
    "grey_palette.gif": (Image.fromarray(GREY), GREY),  # as which PIL writes it
    "bits.png": (Image.fromarray(GREY > 99), (GREY > 99) * np.uint8(255)),
    "turned.png": ((Image.fromarray(TURNED), {"exif": UPSIDE}), COLOUR),
    "turned_too.tif": ((Image.fromarray(TURNED), {"exif": UPSIDE}), COLOUR),
    "palette.png": (palette(FEW), FEW),
    "moving.gif": (animation(FEW, 255 - FEW), FEW),
    "moving_too.webp": (animation(COLOUR, FEW, lossless=True), COLOUR),
    "inks.tif": (Image.fromarray(INKS, "CMYK"), np.asarray(Image.fromarray(INKS, "CMYK").convert("RGB"))),
    "more/UPPER.PNG": (Image.fromarray(COLOUR), COLOUR),
}


def write(file, picture):
    file.parent.mkdir(parents=True, exist_ok=True)
    image, options = picture if isinstance(picture, tuple) else (picture, {})
    image.save(file, **options)


def tricky(folder):
    """All of FILES, and what is no picture of it: hidden, linked twice, in a loop, of other kinds."""
    for name, (picture, _) in FILES.items():
        write(folder / name, picture)
    for name in (".ipynb_checkpoints/plain-checkpoint.png", ".hidden.png", "more/.trash/x.png"):
        write(folder / name, Image.fromarray(GREY))
    (folder / "notes.txt").write_text("none")
    (folder / "phone.heic").write_bytes(b"none")
    (folder / "more" / "loop").symlink_to(folder)
    (folder / "again").symlink_to(folder / "more")
    return sorted(FILES)


def colours(pixels):
    return torch.from_numpy(np.dstack([pixels] * 3) if pixels.ndim == 2 else pixels.copy()).permute(2, 0, 1)


class Mirror:
    """A model that translates every image to itself."""

    spec, device = ImageSpec(3, 8, 0), torch.device("cpu")

    def abilities(self):
        return self

    def translate(self, image, to):
        return image


def test_every_door_sees_the_pixels_that_were_written(tmp_path, caplog, monkeypatch):
    run = Rebuilt(SimpleNamespace(config={"data": {}}), Mirror(), 0, 0, ())
    monkeypatch.setattr("lit_gen.cli.translate.read_own", lambda path: None)
    monkeypatch.setattr("lit_gen.cli.translate.rebuild", lambda stored, device: run)
    monkeypatch.setattr("lit_gen.cli.translate.log_to", lambda *args: None)  # would take the log from caplog
    names = tricky(tmp_path / "a" / "train")
    write(tmp_path / "elsewhere" / "linked.png", Image.fromarray(COLOUR))
    (tmp_path / "a" / "train" / "link").symlink_to(tmp_path / "elsewhere")
    names = sorted([*names, "link/linked.png"])
    expected = torch.stack(
        [colours({"link/linked.png": COLOUR}.get(n, FILES.get(n, (0, 0))[1])) for n in names]
    )
    folder, how = tmp_path / "a" / "train", Decoding(3, 8, convert=True)

    spec = ImageSpec(3, 8, 0)
    data = ImageFolder(tmp_path / "a", convert=True, spec=spec, split=NoSplit(), validation="train")
    with caplog.at_level(logging.INFO):
        data.read_once()
        data.prepare_data()
    said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 2 and ".txt (1), .heic (1)" in said[0] and "moving_too.webp" in said[1]
    assert said[1].startswith("2 picture(s) have more than one frame, of which the first is read: ")
    trained = data.read("train").image
    assert [n for n, a, b in zip(names, trained, expected, strict=True) if not a.equal(b)] == []
    unpaired = UnpairedData(a=data, b=data, spec=spec).dataset("train").a
    assert unpaired[torch.arange(len(names))].image.equal(expected)

    evaluated = [image for batch in batches("real", folder, 64) for image in batch]
    assert len(evaluated) == len(names)
    for name, image, right in zip(names, evaluated, expected, strict=True):
        assert image.expand(3, 8, 8).equal(right), name
    for name, right in zip(names, expected, strict=True):
        assert torch.from_numpy(decode(folder / name, how).copy()).equal(right), name

    translate([f"in={folder}", f"out={tmp_path}/out", "ckpt=run", "to=b"])
    for name, right in zip(names, expected, strict=True):
        assert colours(np.asarray(Image.open((tmp_path / "out" / name).with_suffix(".png")))).equal(right), (
            name
        )
    assert len(pictures_in(tmp_path / "out").paths) == len(names)


@pytest.mark.parametrize(("channels", "refused"), [(1, {"colour"}), (3, {"grey"})])
def test_only_grey_and_colour_are_other_channels(tmp_path, channels, refused):
    tricky(tmp_path)
    for name, (_, pixels) in FILES.items():
        kind = "grey" if pixels.ndim == 2 else "colour"
        if kind in refused and name != "grey_palette.gif":
            with pytest.raises(InputError, match=f"a {kind} picture where data.spec.channels={channels}"):
                decode(tmp_path / name, Decoding(channels, 8))
        else:
            assert decode(tmp_path / name, Decoding(channels, 8)).shape == (channels, 8, 8)


def test_transparency_shows_the_background(tmp_path):
    clear = np.where(GREY > 99, 255, 0).astype(np.uint8)
    write(tmp_path / "colour.png", with_alpha(COLOUR, clear))
    write(tmp_path / "grey.png", with_alpha(GREY, clear))
    write(tmp_path / "key.png", (Image.fromarray(COLOUR), {"transparency": tuple(COLOUR[0, 0].tolist())}))
    index = palette(FEW)
    write(tmp_path / "palette.png", (index, {"transparency": index.getpixel((0, 0))}))
    clear, is_first = clear[..., None] > 0, (FEW[0, 0] == FEW).all(2, keepdims=True)
    for name, background in (("black", [0, 0, 0]), ("#ff8000", [255, 128, 0])):
        read = {p.stem: np.asarray(read_picture(p, name).image) for p in tmp_path.glob("*.png")}
        assert (read["colour"] == np.where(clear, COLOUR, background)).all()
        assert (
            read["key"] == np.where((COLOUR[0, 0] == COLOUR).all(2, keepdims=True), background, COLOUR)
        ).all()
        assert (read["palette"] == np.where(is_first, background, FEW)).all()
        luminance = Image.new("RGB", (1, 1), tuple(background)).convert("L").getpixel((0, 0))
        assert (read["grey"] == np.where(clear[..., 0], GREY, luminance)).all()
    with pytest.raises(InputError, match="background=blak: no colour"):
        ImageFolder(tmp_path, background="blak", spec=ImageSpec(3, 8, 0), split=NoSplit())


def test_a_photo_of_every_orientation_is_turned_upright(tmp_path):
    lossless = Image.fromarray(np.kron(COLOUR, np.ones((8, 8, 1), np.uint8)))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        lossless.save(tmp_path / "p.jpg", exif=exif, quality=95)
        right = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "p.jpg")))
        assert (np.asarray(read_picture(tmp_path / "p.jpg").image) == right).all()


def test_all_damaged_files_are_named_at_once_before_anything_starts(tmp_path):
    for part in ("a", "b"):
        for split in ("train", "test"):
            write(tmp_path / part / split / "good.png", Image.fromarray(COLOUR))
    bad = ["a/train/cut.png", "a/test/text.jpg", "b/train/empty.gif", "b/train/float.tif", "b/train/gone.png"]
    write(tmp_path / bad[0], Image.fromarray(np.kron(COLOUR, np.ones((9, 9, 1), np.uint8))))
    (tmp_path / bad[0]).write_bytes((tmp_path / bad[0]).read_bytes()[:150])
    (tmp_path / bad[1]).write_text("none")
    (tmp_path / bad[2]).write_bytes(b"")
    write(tmp_path / bad[3], Image.fromarray(GREY.astype(np.float32)))
    (tmp_path / bad[4]).symlink_to(tmp_path / "nowhere.png")
    spec = ImageSpec(3, 8, 0)
    sides = {n: ImageFolder(tmp_path / n, spec=spec, split=NoSplit()) for n in "ab"}
    with pytest.raises(InputError) as caught:
        UnpairedData(**sides, spec=spec).prepare_data()
    assert [name for name in bad if str(tmp_path / name) not in str(caught.value)] == []
    for reason in ("levels that are no integers have no range", "no such file, or a broken link"):
        assert reason in str(caught.value)
    with pytest.raises(InputError, match="3 files cannot be used") as caught:
        list(batches("real", tmp_path / "b" / "train", 64))
    assert [name for name in bad[2:] if str(tmp_path / name) not in str(caught.value)] == []


def test_many_damaged_files_are_counted(tmp_path):
    for number in range(30):
        (tmp_path / f"{number:02d}.png").write_bytes(b"none")
    with pytest.raises(InputError, match=r"30 files(.*\n)+.*07\.png.*\n\.\.\. and 22 more$") as caught:
        cached_images(pictures_in(tmp_path).paths, tmp_path, Decoding(3, 8), None)
    assert "08.png" not in str(caught.value)


def test_levels_that_would_vanish_are_said(tmp_path, caplog):
    write(tmp_path / "x.png", levels(GREY, np.uint16, 1))
    with caplog.at_level(logging.WARNING):
        ((image,),) = batches("in", tmp_path, 1)
    assert image.max() == 0 and "1/256 of the range" in caplog.text and "x.png" in caplog.text
    write(tmp_path / "y.tif", Image.fromarray(GREY.astype(np.int32) - 5))
    with pytest.raises(InputError, match=r"y\.tif: .*levels below 0"):
        list(batches("in", tmp_path, 1))


def test_a_crop_larger_than_a_picture_is_refused(tmp_path):
    write(tmp_path / "small.png", Image.fromarray(np.zeros((20, 9, 3), np.uint8)))
    with pytest.raises(InputError, match=r"small\.png: 9 x 20 pixels, of which data\.crop=10 .*set it to 9"):
        decode(tmp_path / "small.png", Decoding(3, 8, crop=10))
    assert decode(tmp_path / "small.png", Decoding(3, 8, crop=9)).shape == (3, 8, 8)


def test_empty_class_folders_and_loose_pictures_are_said(tmp_path, caplog):
    for split in ("train", "test"):
        write(tmp_path / split / "cat" / "1.png", Image.fromarray(COLOUR))
        (tmp_path / split / "dog").mkdir()
    write(tmp_path / "train" / "dog" / "2.png", Image.fromarray(COLOUR))
    write(tmp_path / "train" / "3.png", Image.fromarray(COLOUR))
    with caplog.at_level(logging.WARNING):
        ImageFolder(tmp_path, spec=ImageSpec(3, 8, 2), split=NoSplit()).prepare_data()
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}/train: 1 pictures in no class folder are left out",
        f"{tmp_path}/test: no pictures of class dog",
    ]


def test_translation_reads_as_the_domain_was_read_in_training():
    data = {"a": {"crop": 9, "background": "white", "convert": False}, "b": {"num_images": 3}}
    assert _decoding(Mirror(), "b", data) == Decoding(3, 8, 9, convert=True, background="white")
    assert _decoding(Mirror(), "a", data) == Decoding(3, 8, convert=True)


def test_folders_are_read_once_where_they_are(tmp_path):
    for name in ("z/1.png", "y/x/2.png", "y/3.png"):
        write(tmp_path / "in" / name, Image.fromarray(GREY))
    write(tmp_path / "beside" / "4.png", Image.fromarray(GREY))
    (tmp_path / "in" / "a").symlink_to(tmp_path / "in" / "z")
    (tmp_path / "in" / "b").symlink_to(tmp_path / "beside")
    (tmp_path / "in" / "c").symlink_to(tmp_path / "beside")
    (tmp_path / "in" / "y" / "up").symlink_to(tmp_path)  # holds all of it, and beside
    found = pictures_in(tmp_path / "in")
    assert [os.path.relpath(path, tmp_path / "in") for path in found.paths] == [
        "b/4.png",
        "y/3.png",
        "y/x/2.png",
        "z/1.png",
    ]
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    classes = ImageFolder(tmp_path / "in", spec=ImageSpec(1, 8, 5), split=NoSplit())
    assert classes.group_names() == ("a", "b", "c", "y", "z"), "a link is a class, but not one to all of them"
    with pytest.raises(InputError, match="nowhere: the folder cannot be read"):
        pictures_in(tmp_path / "nowhere")


def test_copies_of_another_decoder_are_not_used(tmp_path, monkeypatch):
    write(tmp_path / "1.png", Image.fromarray(COLOUR))
    for version in (1, 2, 2):
        monkeypatch.setattr("datamodules.image_cache.DECODER", version)
        cached_images([f"{tmp_path}/1.png"], tmp_path, Decoding(3, 8), tmp_path / "cache")
    assert len([*(tmp_path / "cache").glob("*.npy")]) == 2
