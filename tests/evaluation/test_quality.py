"""SampleQuality on toys: what it draws, with which noise, and what it reports; without any Trainer."""

import logging

import pytest
import torch
from quality_toys import COUNTS, Flat, Toy, ToyData, ToyModel, context_of, judged, values

from lit_gen.core.images import to_uint8
from lit_gen.core.types import InputError
from lit_gen.evaluation.judges.quality import SampleQuality
from lit_gen.metrics.classes import ClassHistogram
from lit_gen.metrics.frechet import FrechetDistance
from lit_gen.metrics.kernel import InceptionScore, KernelDistance
from lit_gen.metrics.neighbours import Neighbours
from lit_gen.metrics.prd import PRD


def test_numbers_are_those_of_the_metric_on_the_same_images():
    module = ToyModel({"label"})
    judge, rows = judged(module, per_task=True)
    extractor, drawn = Flat(), torch.cat(module.drawn)
    by_task = list(to_uint8(drawn).split(COUNTS["test"]))
    for task in (0, 1, None):
        metric = FrechetDistance(6)
        seen = (0, 1) if task is None else (task,)
        metric.update(extractor(Toy("test", seen).batch.image)[0], real=True)
        metric.update(extractor(torch.cat([by_task[each] for each in seen]))[0], real=False)
        assert values(rows)[task, "fid"] == pytest.approx(metric.compute()["fid"].item(), rel=1e-9)
    counts = {row.on_task: (row.num_real, row.num_fake) for row in rows}
    assert counts == {0: (150, 150), 1: (130, 130), None: (280, 280)}
    about = {(row.split, row.extractor, row.extractor_hash, row.seed) for row in rows}
    assert about == {("test", "flat", judge.extractor.weights_hash, 0)}


@pytest.mark.parametrize("conditions", [set(), {"task"}, {"label"}, {"task", "label"}])
def test_a_model_is_told_the_conditions_of_the_real_images(conditions):
    module = ToyModel(conditions)
    judged(module)
    real = Toy("test", (0, 1)).batch
    assert [n for n, _, _ in module.asked] == [64, 64, 22, 64, 64, 2]
    for name, given in (("label", [a[1] for a in module.asked]), ("task", [a[2] for a in module.asked])):
        if name in conditions:
            assert torch.equal(torch.cat(given), getattr(real, name))
        else:
            assert given == [None] * 6


def test_an_unconditional_model_gets_one_sided_scores_per_task_and_a_word_about_it(caplog):
    with caplog.at_level(logging.INFO):
        _, rows = judged(ToyModel(), per_task=True)
    assert caplog.text.count("neither task nor label") == 1
    found = values(rows)
    assert {metric for task, metric in found if task == 0} == {"recall", "coverage"}
    everything = {"fid", "precision", "recall", "density", "coverage"}
    assert {metric for task, metric in found if task is None} == everything
    assert {(row.num_real, row.num_fake) for row in rows if row.on_task == 0} == {(150, 280)}


def test_noise_is_the_same_in_every_pass_and_the_real_images_are_seen_once():
    module, data = ToyModel(), ToyData()
    judge, first = judged(module, data, [FrechetDistance], floor=True)
    num_seen, num_asked = judge.extractor.num_seen, data.num_asked
    assert num_seen == 3 * 280  # real, generated, floor
    state = torch.get_rng_state()
    assert judge.rows(context_of(module, data), "test") == first
    assert torch.get_rng_state().equal(state)
    assert judge.extractor.num_seen == num_seen + 280 and data.num_asked == num_asked
    half = len(module.drawn) // 2
    assert all(torch.equal(a, b) for a, b in zip(module.drawn[:half], module.drawn[half:], strict=True))
    assert not torch.equal(module.drawn[0], module.drawn[1])
    other = ToyModel()
    judged(other, seed=1)
    assert not torch.equal(module.drawn[0], other.drawn[0])
    judge.rows(context_of(module, ToyData()), "test")  # other data may hold other images
    assert judge.extractor.num_seen == num_seen * 2 + 280


def test_only_tasks_seen_so_far_count_and_no_more_than_so_many_images():
    _, rows = judged(data=ToyData(current_task=0), per_task=True)
    assert {row.on_task for row in rows} == {0, None}
    assert values(rows)[0, "fid"] == values(rows)[None, "fid"]
    options = {"num_samples": 50, "num_val_samples": 30, "per_task": True}
    for split, count in (("test", 50), ("val", 30)):
        _, rows = judged(split=split, **options)
        found = {(row.on_task, row.num_real, row.num_fake) for row in rows}
        assert found == {(0, count, count), (1, count, count), (None, 2 * count, 2 * count)}


def test_the_floor_compares_training_images_with_the_real_ones():
    _, rows = judged(floor=True, per_task=True, num_samples=140)
    train, test = (Toy(split, (1,)).batch.image for split in ("train", "test"))
    floor = next(row for row in rows if (row.on_task, row.metric) == (1, "floor_fid"))
    assert (floor.num_real, floor.num_fake) == (130, 130)
    whole = FrechetDistance(6)
    whole.update(Flat()(test)[0], real=True)
    whole.update(Flat()(train)[0], real=False)
    # 130 of the 300 training images: close to all of them, far from the other task.
    assert floor.value == pytest.approx(whole.compute()["fid"].item(), abs=0.02)
    assert values(rows)[None, "floor_precision"] > 0.8


def test_reconstructions_are_compared_with_what_they_reconstruct():
    class Wrapper(ToyModel):
        reconstruct = None

        def abilities(self):
            return ToyModel()

    for module in (ToyModel(), Wrapper()):
        _, rows = judged(module, source="reconstructions", per_task=True)
        assert values(rows)[0, "fid"] == pytest.approx(0, abs=1e-9) and values(rows)[None, "recall"] == 1


def test_inception_score_gets_the_logits():
    _, rows = judged(metrics=[InceptionScore])
    assert 1 <= values(rows)[None, "inception_score"] <= 3


def test_every_metric_says_what_is_good():
    metrics = [FrechetDistance, Neighbours, PRD, KernelDistance, InceptionScore, ClassHistogram]
    better = SampleQuality(Flat(), metrics).better
    assert {name for name, way in better.items() if way == "lower"} == {"fid", "kid", "class_kl"}
    assert {name for name, way in better.items() if not way} == {"kid_std", "inception_score_std"}


class Told(Flat):
    """Knows the labels of some real images, and takes everything else for the first class."""

    num_logits = 4

    def __init__(self, share):
        super().__init__()
        batch = Toy("test", (0, 1)).batch
        known = zip(batch.image, batch.label.tolist(), strict=True)
        self.known = {image.numpy().tobytes(): label for image, label in list(known)[:: round(1 / share)]}

    def forward(self, image):
        label = [self.known.get(each.numpy().tobytes(), 0) for each in image]
        return super().forward(image)[0], torch.eye(4)[label]


@pytest.mark.parametrize(("share", "tasks"), [(1.0, {0, 1, None}), (0.2, {0})])
def test_classes_count_where_they_are_those_of_the_images(share, tasks):
    # A fifth: of task 0 three in five, since of the others each second one is of the first class.
    rows = SampleQuality(Told(share), [ClassHistogram], per_task=True).rows(
        context_of(ToyModel({"label"}), ToyData()), "test"
    )
    assert {row.on_task for row in rows if row.metric == "class_coverage"} == tasks


class BrokenFlat(Flat):
    """Sees no number in white images, or in their classes."""

    def __init__(self, broken):
        super().__init__()
        self.broken = broken

    def forward(self, image):
        features, logits = (each.clone() for each in super().forward(image))
        if self.broken is not None:
            (features, logits)[self.broken][image.flatten(1)[:, 0] == 255] = torch.inf
        return features, logits


@pytest.mark.parametrize("broken", [None, 0, 1])
def test_a_set_with_images_that_are_no_numbers_has_no_score_and_one_warning(broken, caplog):
    class Breaks(ToyModel):
        def sample(self, n, *, label=None, task=None):
            image = super().sample(n, label=label, task=task).clamp(-1, 0.9)
            if (task == 1).all():
                image[:2, 0, 0, 0] = torch.nan if broken is None else 1
            return image

    metrics = [FrechetDistance, Neighbours, PRD, KernelDistance, InceptionScore, ClassHistogram]
    judge = SampleQuality(BrokenFlat(None), metrics, batch_size=64, per_task=True)
    context = context_of(Breaks({"task"}))
    judge.rows(context, "test")  # of real images the extractor knows the features from now on
    judge.extractor.broken = broken
    caplog.clear()
    rows = judge.rows(context, "test")
    of_names = {name for metric in judge.metrics if not metric.of_classes for name in metric.names}
    for task in (1, None):
        found = {row.metric: row.value for row in rows if row.on_task == task}
        assert set(found) == of_names and all(value != value for value in found.values())
    fine = {row.metric for row in rows if row.on_task == 0 and row.value == row.value}
    assert fine == of_names - {"kid_std"}
    said = [record.getMessage() for record in caplog.records if "infinite or NaN" in record.getMessage()]
    assert said == [
        "6 of 280 generated images (2.14 %) have pixels, features or logits that are infinite or NaN; every "
        "score of them is NaN"
    ]


def test_blocks_are_dealt_without_gaps_or_repeats():
    for world in (1, 2, 3, 7):
        dealt = [
            list(context_of(ToyModel(), batch_size=64, rank=rank, world_size=world).blocks(300))
            for rank in range(world)
        ]
        by_number = dict(block for share in dealt for block in share)
        assert sum(len(share) for share in dealt) == len(by_number) == 5
        assert torch.equal(torch.cat([by_number[n] for n in range(5)]), torch.arange(300))


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(InputError, match="ToyModel does not promise Translates"):
        judged(source="translations")
    for options, message in (
        ({"num_samples": 0}, "num_samples=0"),
        ({"batch_size": -1}, "batch_size=-1"),
        ({"metrics": [Neighbours, Neighbours]}, "same name"),
    ):
        with pytest.raises(ValueError, match=message):
            judged(**options)
