"""Grids: what they show, where they go, and that drawing them leaves no trace in the training."""

import numpy as np
import pytest
import torch
from PIL import Image
from toys import SPEC, ToyGenerator, make_data, make_trainer

from callbacks.grid import Grid
from datamodules.synthetic import SyntheticData
from datamodules.tasks import NoSplit
from datamodules.unpaired import UnpairedData
from lit_gen.core.images import grid, to_float, to_uint8
from lit_gen.core.module import LitModel
from lit_gen.core.stages import fit_stages
from lit_gen.evaluation.plots import strips


class Conditional(ToyGenerator):
    """Draws the task and the label as grey levels, and reconstructs an image as its negative."""

    def __init__(self, conditions=("task", "label")):
        super().__init__(epochs=1)
        self.conditions = frozenset(conditions)

    def sample(self, n, *, label=None, task=None):
        self.refuse(label=label, task=task)
        assert not any(part.training for part in self.modules())
        grey = torch.zeros(n)
        grey = grey + (task * 0.25 if task is not None else 0) + (label * 0.05 if label is not None else 0)
        return grey.view(n, 1, 1, 1).expand(n, 1, 8, 8)

    def encode(self, batch):
        return batch.image.flatten(1)

    def decode(self, codes, *, label=None, task=None):
        return codes.view(-1, 1, 8, 8)

    def reconstruct(self, batch):
        return -batch.image


class Pictures:
    """A logger that keeps images."""

    def __init__(self):
        self.kept = []

    def log_image(self, key, image, step):
        self.kept.append((key, tuple(image.shape), step))


def train(model, folder, *callbacks):
    data = make_data()
    trainer = make_trainer(*callbacks, default_root_dir=folder)
    fit_stages(
        trainer, model, data, after_task=lambda task: trainer.test(model, datamodule=data, verbose=False)
    )
    return trainer, data


def cells(path, columns):
    """uint8 [rows, columns]: the middle pixel of each cell, without the names left of them."""
    picture, size = np.asarray(Image.open(path)), 8 * -(-600 // (8 * columns))
    picture = picture[:, picture.shape[1] - columns * (size + 1) - 1 :]
    return picture[1 + size // 2 :: size + 1, 1 + size // 2 :: size + 1]


def test_one_row_per_task_with_its_own_labels(tmp_path):
    model = Conditional()
    _, data = train(model, tmp_path, Grid(num_images=16, every_n_epochs=0))
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == [
        "task0-epoch0002-reconstructions.png",
        "task0-epoch0002.png",
        "task1-epoch0004-reconstructions.png",
        "task1-epoch0004.png",
    ]
    shown = cells(tmp_path / "samples" / "task1-epoch0004.png", columns=8)
    assert shown.shape == (2, 8)
    for task in range(2):
        images = data.dataset("test", [task])
        labels = images.__getitems__([k * len(images) // 8 for k in range(8)]).label
        grey = to_uint8(torch.tensor(task * 0.25) + labels * 0.05)
        assert shown[task].tolist() == grey.tolist()


@pytest.mark.parametrize("conditions", [("task",), ("label",), ()])
def test_each_kind_of_conditioning_is_drawn(tmp_path, conditions):
    train(Conditional(conditions), tmp_path, Grid(num_images=12, every_n_epochs=0))
    shown = cells(tmp_path / "samples" / "task1-epoch0004.png", columns=6 if conditions else 4)
    assert shown.shape == ((2, 6) if conditions else (3, 4))


def test_reconstructions_stand_below_their_images(tmp_path):
    _, data = train(Conditional(), tmp_path, Grid(num_images=16, every_n_epochs=0))
    images = data.dataset("test", [0])
    image = to_float(images.__getitems__([k * len(images) // 4 for k in range(4)]).image)
    large = torch.cat([image, -image]).repeat_interleave(19, 2).repeat_interleave(19, 3)
    expected = grid(large, 4).squeeze(-1).numpy()
    shown = np.asarray(Image.open(tmp_path / "samples" / "task0-epoch0002-reconstructions.png"))
    assert np.array_equal(shown[:, -expected.shape[1] :], expected)


def test_a_model_of_one_task_that_takes_labels_is_drawn_class_by_class(tmp_path):
    model, data = Conditional(("label",)), SyntheticData(spec=SPEC, split=NoSplit())
    data.setup()
    trainer = make_trainer(default_root_dir=tmp_path)
    trainer.datamodule = data
    Grid(num_images=16).draw(trainer, model, 1)
    shown = cells(tmp_path / "samples" / "task0-epoch0001.png", columns=4)
    grey = to_uint8(0.05 * torch.arange(SPEC.num_classes))
    assert shown.tolist() == grey[:, None].expand(-1, 4).tolist()


def test_drawing_changes_neither_weights_nor_noise_and_repeats_itself(tmp_path):
    plain, watched = ToyGenerator(), ToyGenerator()
    train(plain, tmp_path)
    grid_callback = Grid(num_images=9, every_n_epochs=1)
    trainer, _ = train(watched, tmp_path, grid_callback)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, watched.state_dict()[name]), name
    files = sorted((tmp_path / "samples").iterdir())
    assert len(files) == 8  # 2 tasks of 2 phases of 2 epochs; the last one of each task is drawn again
    before = files[-1].read_bytes()
    files[-1].unlink()
    torch.manual_seed(99)
    grid_callback.draw(trainer, watched, trainer.current_epoch)
    assert files[-1].read_bytes() == before


def test_loggers_that_keep_images_get_them_with_the_step(tmp_path):
    callback, pictures = Grid(num_images=4, every_n_epochs=0), Pictures()
    trainer, _ = train(Conditional(()), tmp_path)
    trainer.loggers = [pictures]
    callback.draw(trainer, trainer.lightning_module, 1)
    step = trainer.fit_loop.total_batch_idx + 1
    (_, samples, _), (_, shown, _) = pictures.kept
    assert [(key, at) for key, _, at in pictures.kept] == [("samples", step), ("reconstructions", step)]
    assert samples == (611, 611, 1) and shown[0] == 4 * 153 + 1 and shown[1] > 4 * 153 + 1


def test_translations_stand_below_their_images_and_those_translated_back_below_them(tmp_path):
    class Inverts(LitModel):
        def translate(self, image, to):
            return -image

    half = {"spec": SPEC, "split": NoSplit(), "num_images": 20, "num_test_images": 20}
    data = UnpairedData(a=SyntheticData(**half), b=SyntheticData(seed=1, **half), spec=SPEC)
    data.setup()
    trainer, pictures = make_trainer(default_root_dir=tmp_path), Pictures()
    trainer.datamodule, trainer.loggers = data, [pictures]
    model = Inverts(SPEC, optimizer=None)
    Grid(num_images=4).draw(trainer, model, 3)
    batch = data.dataset("test", [0])[torch.arange(0, 20, 5)]
    rows = [image for half in batch for image in (half.image, 255 - half.image, half.image)]
    shown = np.asarray(Image.open(tmp_path / "samples" / "task0-epoch0003-translations.png"))
    expected = strips(rows).squeeze(-1).numpy()
    assert np.array_equal(shown[:, -expected.shape[1] :], expected)
    assert [key for key, _, _ in pictures.kept] == ["translations"]
