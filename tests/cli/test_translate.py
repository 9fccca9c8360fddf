"""lit-gen translate on a tiny trained model: names, formats, and what it refuses without leaving a trace."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from analysis_toys import TINY, VAE
from PIL import Image

import lit_gen
from lit_gen.__main__ import main
from lit_gen.cli.translate import run
from lit_gen.core.images import to_float, to_uint8
from lit_gen.core.types import InputError

CYCLEGAN = [
    "model=cyclegan",
    "data=unpaired_digits",
    "recipe=translation",
    "model.generator.width=4",
    "model.generator.num_blocks=1",
    "model.critic.width=4",
    "data.batch_size=64",
    "logger=csv",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.check_val_every_n_epoch=1",
    "callbacks.grid.every_n_epochs=1",
    "callbacks.grid.num_images=4",
    "judges.quality.num_samples=64",
    "checkpoint.min_seconds=0",
    "cpu_threads=1",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "cyclegan"
    assert main(["train", *CYCLEGAN, f"output_dir={folder}"]) == 0
    return folder


@pytest.fixture
def pictures(tmp_path):
    """Grey, colour, with alpha, larger, not square, in a folder of its own; and a text file."""
    folder, rng = tmp_path / "in", np.random.default_rng(0)
    (folder / "more").mkdir(parents=True)
    Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / "grey.png")
    Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / "colour.jpg")
    Image.fromarray(rng.integers(0, 255, (8, 8, 4), dtype=np.uint8)).save(folder / "alpha.PNG")
    Image.fromarray(rng.integers(0, 255, (20, 31, 3), dtype=np.uint8)).save(folder / "more" / "wide.bmp")
    (folder / "notes.txt").write_text("no picture")
    return folder


def files(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


@pytest.mark.slow
def test_a_run_leaves_its_scores_and_pictures(trained):
    assert files(trained / "samples") == ["task0-epoch0001-translations.png"]
    width, height = Image.open(trained / "samples" / "task0-epoch0001-translations.png").size
    assert height == 6 * 153 + 1 and width > 4 * 153 + 1  # names of the rows beside them
    assert (trained / "scores.csv").read_text().count("fid") == 1
    parts = [f"{split}_{domain}.npy" for split in ("test", "train") for domain in "ab"]
    assert files(trained / "split") == ["digests.npz", *parts]


@pytest.mark.slow
def test_pictures_are_translated_under_their_own_names(trained, pictures, tmp_path, capsys):
    out = tmp_path / "out" / "b"
    assert main(["translate", f"ckpt={trained}", f"in={pictures}", f"out={out}", "to=b"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"4 images: {out}"
    assert files(out) == ["alpha.png", "colour.png", "grey.png", "more/wide.png"]
    assert files(out.parent) == [f"b/{name}" for name in files(out)], "nothing half-written is left"
    other = tmp_path / "a"
    assert run([f"ckpt={trained}/checkpoints/last.ckpt", f"in={pictures}", f"out={other}", "to=a"]) == 0
    model = lit_gen.load(trained)
    pixels = torch.from_numpy(np.array(Image.open(pictures / "grey.png")))[None, None]
    for to, place in (("b", out), ("a", other)):
        found = np.array(Image.open(place / "grey.png"))
        assert np.array_equal(found, to_uint8(model.translate(to_float(pixels), to=to))[0, 0].numpy())
    assert np.array(Image.open(out / "more" / "wide.png")).shape == (8, 8)


@pytest.mark.slow
def test_a_folder_with_files_is_only_used_when_asked(trained, pictures, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "grey.png").write_text("old")
    (out / "other.txt").write_text("mine")
    words = [f"ckpt={trained}", f"in={pictures}", f"out={out}", "to=b"]
    with pytest.raises(
        InputError, match=r"is not empty \(it holds grey.png, other.txt\); .* give overwrite=true"
    ):
        run(words)
    assert (out / "grey.png").read_text() == "old"
    assert run([*words, "overwrite=true"]) == 0
    assert Image.open(out / "grey.png").size == (8, 8) and (out / "other.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_broken_picture_leaves_no_folder_behind(trained, pictures, tmp_path):
    (pictures / "zz.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"zz\.png: no readable picture"):
        run([f"ckpt={trained}", f"in={pictures}", f"out={tmp_path}/out", "to=b"])
    assert files(tmp_path) == before and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_analysis_of_a_run_says_what_was_kept_and_reached(trained, tmp_path):
    assert main(["analyse", f"ckpt={trained}", "what=translation", "n=50", f"out={tmp_path}"]) == 0
    table = json.loads((tmp_path / "translation.json").read_text())["table"]
    assert [row["way"] for row in table] == ["a to b", "b to a"] and table[0]["images"] == 50
    # The run's extractor knows digits as they are, domain b.
    assert table[0]["accuracy_target"] > 0.9 > table[0]["accuracy_before"]
    assert (tmp_path / "translation.png").exists() and (tmp_path / "translation.csv").exists()


@pytest.mark.slow
def test_a_model_of_another_kind_is_refused(pictures, tmp_path, capsys):
    assert main(["train", *TINY, *VAE, f"output_dir={tmp_path}/vae"]) == 0
    assert main(["translate", f"ckpt={tmp_path}/vae", f"in={pictures}", f"out={tmp_path}/out", "to=b"]) == 2
    assert (
        "VAE does not translate between domains; give a checkpoint of model=cyclegan"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"to": "c"}, "to=c: expected one of 'a', 'b'"),
        ({"to": None}, "to= is missing"),
        ({"ckpt": None}, "ckpt= is missing"),
        ({"in": "nowhere"}, "in=nowhere: there is no such folder"),
        ({"in": "{empty}"}, "holds no images"),
        ({"out": "{pictures}/notes.txt"}, "is a file; give the name of a folder"),
        ({"out": "{pictures}"}, "whose pictures would be mixed"),
        ({"out": "{pictures}/more/b"}, "whose pictures would be mixed"),
        ({"overwrite": "some"}, "overwrite=some: expected bool"),
        ({"two": "b"}, "two=b: Did you mean to? The keys here are ckpt, in, out, to, overwrite, device."),
        ({"ckpt": "{empty}"}, "no checkpoint"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(pictures, tmp_path, capsys, change, text):
    empty = tmp_path / "empty"
    empty.mkdir()
    words = {"ckpt": "run", "in": str(pictures), "out": str(tmp_path / "out"), "to": "b"} | change
    words = {key: value and value.format(empty=empty, pictures=pictures) for key, value in words.items()}
    before = files(tmp_path)
    assert main(["translate", *(f"{key}={value}" for key, value in words.items() if value)]) == 2
    assert text in capsys.readouterr().err
    assert files(tmp_path) == before and not (tmp_path / "out").exists()


def test_pictures_that_would_get_the_same_name_are_refused(pictures, tmp_path):
    Image.new("L", (8, 8)).save(pictures / "grey.bmp")
    with pytest.raises(InputError, match=r"grey\.bmp, grey\.png would all become grey\.png"):
        run(["ckpt=run", f"in={pictures}", f"out={tmp_path}/out", "to=b"])
