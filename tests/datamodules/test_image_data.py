"""datamodules/base.py and dataset.py, on images made in memory."""

import importlib
import inspect
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from data_toys import Recorder, joined, stream, trainer
from torch.utils.data import DataLoader, Dataset

import datamodules
from datamodules import loading
from datamodules.digits import Digits
from datamodules.loading import LoadedStream
from datamodules.tasks import NoSplit
from lit_gen.__main__ import main
from lit_gen.core.images import to_float
from lit_gen.core.types import ImageSpec, InputError


def test_no_past_image_is_ever_in_a_later_tasks_loader():
    data, seen = stream(num_tasks=4), set()
    for task in data.tasks:
        data.current_task = task.index
        batch = joined(data.train_dataloader())
        own = set(batch.index.tolist())
        assert own.isdisjoint(seen) and len(own) == len(batch.index) == task.num_images
        assert own == set(range(task.first_index, task.first_index + task.num_images))
        assert batch.task.unique().tolist() == [task.index] == batch.label.unique().tolist()
        seen |= own
    assert seen == set(range(90))


def test_an_image_keeps_its_index_whatever_loads_it():
    data = stream()
    everything = data.dataset("train", [0, 1])[np.arange(90)]
    assert everything.index.tolist() == [*range(90)]
    data.current_task = 1
    for batch in (joined(data.train_dataloader()), joined(data.predict_dataloader())):
        assert batch.image.equal(everything.image[batch.index])
        assert batch.label.equal(everything.label[batch.index])


def test_validation_sees_all_tasks_so_far_in_one_loader():
    data = stream(num_tasks=4)
    for current in range(4):
        data.current_task = current
        loader = data.val_dataloader()
        assert isinstance(loader, DataLoader)
        batch = joined(loader)
        assert batch.task.unique().tolist() == [*range(current + 1)]
        assert len(batch.index.unique()) == len(batch.index) == len(data.dataset("test", range(current + 1)))


def test_a_joint_stage_trains_on_the_union_and_keeps_the_tasks():
    data = stream(num_tasks=4, joint=True)
    apart = stream(num_tasks=4)
    assert data.tasks == apart.tasks == apart.stages
    (stage,) = data.stages
    assert stage.index == 3 and stage.name == "all" and stage.num_images == 90
    assert stage.label_counts == tuple(np.sum([task.label_counts for task in data.tasks], axis=0))
    data.current_task = stage.index
    batch = joined(data.train_dataloader())
    assert sorted(batch.index.tolist()) == [*range(90)] and batch.task.unique().tolist() == [0, 1, 2, 3]
    assert sorted(joined(data.predict_dataloader()).index.tolist()) == [*range(90)]


def test_a_random_part_of_the_training_images_is_held_out():
    seed = 5
    data = stream(num_tasks=1, num_images=2000, validation="fraction", seed=seed)
    again = stream(num_tasks=1, num_images=2000, validation="fraction", seed=seed)
    kept, held_out = data.dataset("train", [0]), data.dataset("val", [0])
    assert sorted([*kept.rows.tolist(), *held_out.rows.tolist()]) == [*range(2000)]
    assert abs(len(held_out) - 600) < 4 * (2000 * 0.3 * 0.7) ** 0.5  # four standard deviations
    assert again.dataset("val", [0]).rows.equal(held_out.rows)
    assert data.dataset("test", [0]).rows.equal(held_out.rows)


def test_the_split_is_saved_as_rows_of_the_files(tmp_path):
    data = stream()
    data.save_split(tmp_path)
    official = data.read("train")
    for task in data.tasks:
        rows = np.load(tmp_path / f"train_task{task.index}.npy")
        batch = data.dataset("train", [task.index])[np.arange(task.num_images)]
        assert official.image[rows].equal(batch.image)
    tests = [np.load(tmp_path / f"test_task{index}.npy") for index in range(2)]
    assert sorted(np.concatenate(tests).tolist()) == [*range(31)]


def test_indexing_one_image_equals_the_row_of_a_batch():
    dataset = stream().dataset("train", [1])
    one, many, listed = dataset[3], dataset[np.array([3, 4])], dataset.__getitems__([3, 4])
    assert all(a.equal(b[0]) for a, b in zip(one, many, strict=True))
    assert all(a.equal(b) for a, b in zip(many, listed, strict=True))
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_worker_processes_load_the_same_batches():
    alone, helped = stream(), stream(num_workers=1)
    for a, b in zip(alone.train_dataloader(), helped.train_dataloader(), strict=True):
        assert all(x.equal(y) for x, y in zip(a, b, strict=True))


def test_a_loader_draws_nothing_from_the_global_generator():
    data = stream()
    state = torch.get_rng_state()
    list(data.train_dataloader())
    list(data.val_dataloader())
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_a_share_of_every_class_keeps_its_label(share):
    data = stream(num_images=400, labelled_share=share, seed=0)
    full = stream(num_images=400, seed=0)
    batch, truth = (one.dataset("train", [0, 1])[np.arange(400)] for one in (data, full))
    assert batch.image.equal(truth.image)
    visible = batch.label >= 0
    assert batch.label[visible].equal(truth.label[visible])
    assert torch.bincount(batch.label[visible], minlength=4).tolist() == [round(100 * share)] * 4
    assert tuple(np.sum([task.label_counts for task in data.tasks], axis=0)) == (round(100 * share),) * 4
    assert data.dataset("test", [0, 1]).label.equal(full.dataset("test", [0, 1]).label)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 0}, "batch_size=0: input should be greater than 0"),
        ({"spec": ImageSpec(1, -8, 4)}, "spec.size=-8"),
        ({"without_classes": [4]}, "classes from 0 to 3"),
        ({"without_classes": [0, 1]}, "task.s. 0"),
        ({"num_tasks": 4, "num_images": 3}, "task.s. 3"),
        ({"validation": "some"}, "validation=some: input should be 'official', 'fraction' or 'train'"),
        ({"labelled_share": 1.5}, "labelled_share=1.5: input should be less than or equal to 1"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_impossible_settings_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        stream(**settings)


def test_digits_have_a_fixed_stratified_test_split():
    a, b = (Digits(spec=ImageSpec(1, 8, 10), split=NoSplit(), seed=seed) for seed in (0, 1))
    train, test = a.read("train"), a.read("test")
    assert test.image.equal(b.read("test").image)
    assert len(train.label) + len(test.label) == 1797 and train.image.max() == 255
    share = torch.bincount(test.label) / torch.bincount(torch.cat([train.label, test.label]))
    assert (share - 0.3).abs().max() < 0.005


def test_lightning_asks_for_new_loaders_at_every_fit_and_shuffles_every_epoch():
    data, model, walker = stream(flip=True), Recorder(), trainer()
    for task in data.tasks:
        data.current_task = task.index
        walker.fit_loop.max_epochs = walker.current_epoch + 2
        walker.fit(model, datamodule=data)
        shown = joined(model.trained)
        first, second = shown.index.chunk(2)
        assert not first.equal(second) and first.sort().values.equal(second.sort().values)
        assert first.sort().values.tolist() == [*range(task.first_index, task.first_index + task.num_images)]
        assert {batch.task.max().item() for batch in model.validated[-1:]} == {task.index}
        truth = to_float(data.dataset("train", [task.index])[(first - task.first_index).numpy()].image)
        images = shown.image[: len(first)]
        same = (images == truth).flatten(1).all(1)
        mirrored = (images == truth.flip(-1)).flatten(1).all(1)
        assert (same ^ mirrored).all() and same.any() and mirrored.any()
        assert all(batch.image.dtype == torch.float32 for batch in model.trained + model.validated)
        model.trained.clear()
        walker.predict(model, datamodule=data)
        shown = joined(model.predicted)
        assert shown.index.tolist() == sorted(first.tolist())
        images = data.dataset("train", [task.index])
        assert shown.image.equal(to_float(images.image[images.rows]))
        model.predicted.clear()


def test_overfit_batches_repeats_the_same_batches():
    data, model = stream(), Recorder()
    trainer(max_epochs=2, overfit_batches=2).fit(model, datamodule=data)
    shown = [batch.index.tolist() for batch in model.trained]
    assert len(shown) == 4 and shown[:2] == shown[2:]


def test_classes_left_out_are_tested_and_never_trained_on_nor_validated_with():
    whole, partial = stream(num_tasks=1, seed=3), stream(num_tasks=1, seed=3, without_classes=[1, 3])
    assert partial.tasks[0].label_counts == tuple(
        0 if kind in (1, 3) else count for kind, count in enumerate(whole.tasks[0].label_counts)
    )
    for split in ("train", "val"):
        rows = whole.dataset(split, [0]).rows
        label = whole.dataset(split, [0]).label[rows]
        assert partial.dataset(split, [0]).rows.equal(rows[(label == 0) | (label == 2)])
    assert partial.dataset("test", [0]).rows.equal(whole.dataset("test", [0]).rows)
    assert set(joined(partial.train_dataloader()).label.tolist()) == {0, 2}
    assert set(joined(partial.val_dataloader()).label.tolist()) == {0, 2}
    assert set(joined(partial.test_dataloader()).label.tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("validation", ["fraction", "train"])
def test_classes_are_left_out_by_their_label_even_where_it_is_hidden(validation):
    data = stream(num_tasks=1, validation=validation, labelled_share=0.0, without_classes=[2])
    original = data.read("train").label
    assert 2 not in original[data.dataset("train", [0]).rows]
    assert 2 in original[data.dataset("test", [0]).rows]


def test_every_data_set_says_what_it_takes_and_works_with_its_defaults():
    """The config's check reads these hints; strings would only be understood where a class is defined."""
    for file in sorted(Path(datamodules.__path__[0]).glob("*.py")):
        module = importlib.import_module(f"datamodules.{file.stem}")
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, LoadedStream):
                parameters = inspect.signature(kind).parameters.values()
                assert not [
                    p.name for p in parameters if isinstance(p.annotation, str) or p.kind is p.VAR_KEYWORD
                ]
    digits = Digits()
    assert len(digits.dataset("train")) == 1262 and digits.tasks[0].name == "all"
    assert digits.dataset("test")[np.arange(9)].ready().image.abs().max() == 1


class Stuck(Dataset):
    """What a worker never brings."""

    def __getitem__(self, index):
        time.sleep(2)


def test_workers_that_bring_nothing_are_told_of_with_the_way_out(monkeypatch, capsys):
    monkeypatch.setattr(loading, "_PATIENCE", 0.5)
    data = stream(num_workers=1)

    def run(words):
        next(iter(data._loader(Stuck(), [0])))

    monkeypatch.setattr("lit_gen.cli.train.run", run)
    assert main(["train"]) == 1
    said = capsys.readouterr().err
    assert "timed out after 0.5 seconds" in said and "use data.num_workers=0" in said
    data.num_workers = 0
    assert len(next(iter(data.train_dataloader())).index) == 7  # none of its own has to hurry
