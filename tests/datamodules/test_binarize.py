"""data.binarize: how often pixels are white, and when the same images come back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from data_toys import Recorder, joined, stream, trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules.binarize import fixed_draw, threshold
from datamodules.digits import Digits
from datamodules.domains import RotatedData
from datamodules.mixed import MixedData
from datamodules.tasks import ClassSplit, NoSplit
from lit_gen.core.types import ImageSpec

LEVELS = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)


def digits(num_tasks=1, **settings):
    data = Digits(spec=ImageSpec(1, 8, 10), split=ClassSplit(num_tasks), num_tasks=num_tasks, **settings)
    data.setup()
    return data


def test_a_threshold_makes_the_upper_half_of_the_levels_white():
    image = threshold(LEVELS, torch.tensor([5]), torch.tensor([5]))
    assert image.flatten().tolist() == [0] * 128 + [255] * 128 and image.dtype == torch.uint8


def test_pixels_are_white_as_often_as_their_level_says_and_independently():
    count = 3000
    rows = torch.arange(count)
    white = fixed_draw(LEVELS.expand(count, -1, -1, -1), rows, rows).flatten(1).double() / 255
    assert white.unique().tolist() == [0, 1]
    chance = LEVELS.flatten().double() / 255
    error = (chance * (1 - chance) / count).sqrt()
    assert ((white.mean(0) - chance).abs() <= 5 * error).all(), "black and white stay what they are"
    # Neither neighbours in an image nor one pixel in consecutive images know of each other.
    standard = (white - chance)[:, 50:200] / (chance * (1 - chance)).sqrt()[50:200]
    for a, b in ((standard[:, 1:], standard[:, :-1]), (standard[1:], standard[:-1])):
        assert abs((a * b).mean().item()) < 5 / a.numel() ** 0.5


def test_neither_seed_nor_split_changes_how_an_image_is_evaluated():
    whole, apart = digits(binarize="dynamic"), digits(num_tasks=2, binarize="dynamic", seed=3)
    images = whole.dataset("test", [0])
    expected = images[np.arange(len(images))].image  # in the order of the rows
    for task in (0, 1):
        images = apart.dataset("test", [task])
        assert images[np.arange(len(images))].image.equal(expected[images.rows])


@pytest.mark.parametrize("how", ["threshold", "dynamic"])
def test_every_part_of_the_data_is_black_and_white(how):
    data, grey = stream(binarize=how, validation="fraction"), stream(validation="fraction")
    for split in ("train", "val", "test"):
        images, before = (one.dataset(split, [0, 1])[np.arange(20)] for one in (data, grey))
        assert set(images.image.unique().tolist()) == {0, 255}
        assert not before.image.equal(images.image)
        assert all(a.equal(b) for a, b in zip(images[1:], before[1:], strict=True))
    for loader in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        assert set(joined(loader).image.unique().tolist()) == {0, 255}


def fitted(folder=None, epochs=2, resume=None, **settings):
    """A model that was fitted, and the data."""
    data, model = stream(num_tasks=1, **settings), Recorder()
    saver = [ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)] if folder else []
    walker = trainer(*saver, max_epochs=epochs)
    walker.fit(model, datamodule=data, ckpt_path=resume)
    return model, data


def test_training_images_are_drawn_anew_in_every_epoch_and_the_same_in_every_run():
    torch.manual_seed(0)
    model, data = fitted(binarize="dynamic")
    torch.manual_seed(1)
    again, _ = fitted(binarize="dynamic")
    shown = [batch.image for batch in model.trained]
    assert all(a.equal(b.image) for a, b in zip(shown, again.trained, strict=True))
    assert {*torch.cat(shown).unique().tolist()} == {-1.0, 1.0}
    index = joined(model.trained).index
    first, second = (torch.cat(shown).chunk(2)[i][index.chunk(2)[i].argsort()] for i in (0, 1))
    differs = (first != second).double().mean().item()
    chance = data.read("train").image.double() / 255
    assert differs == pytest.approx((2 * chance * (1 - chance)).mean().item(), abs=0.02)
    other, _ = fitted(binarize="dynamic", seed=1)
    assert not other.trained[0].image.equal(shown[0])
    held = joined(model.validated).image.chunk(2)
    assert held[0].equal(held[1]), "validation is repeatable"


def test_a_threshold_shows_the_same_images_in_training():
    model, data = fitted(binarize="threshold", epochs=1)
    index = joined(model.trained).index
    expected = data.dataset("train", [0])[index.numpy()].image
    assert joined(model.trained).image.equal(expected.float() / 127.5 - 1)


@pytest.mark.parametrize("setting", [{"binarize": "dynamic"}, {"flip": True}], ids=["binarize", "flip"])
def test_a_resumed_fit_draws_as_if_it_had_not_been_stopped(tmp_path, setting):
    whole, _ = fitted(tmp_path, epochs=3, **setting)
    torch.manual_seed(99)
    rest, _ = fitted(tmp_path / "b", epochs=3, resume=tmp_path / "epoch=1.ckpt", **setting)
    batches = len(whole.trained) // 3
    assert len(rest.trained) == batches
    for a, b in zip(whole.trained[-batches:], rest.trained, strict=True):
        assert a.image.equal(b.image) and a.index.equal(b.index)


def test_transformed_and_mixed_data_are_binarised_after_all_else():
    source = Digits(spec=ImageSpec(1, 8, 10), split=NoSplit())
    settings = {"spec": ImageSpec(1, 8, 10), "split": NoSplit(), "binarize": "threshold"}
    turned = RotatedData(source=source, num_domains=2, **settings)
    mixed = MixedData(parts=[source, source], share_labels=True, **settings)
    for data in (turned, mixed):
        data.setup()
        image = data.dataset("train", [0])[np.arange(2000)].image
        assert set(image.unique().tolist()) == {0, 255}
