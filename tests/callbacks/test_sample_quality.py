"""SampleQuality on toys: what it draws, with which noise, how often, and what it reports."""

import logging
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed
from sample_quality_toys import COUNTS, Flat, Toy, ToyData, ToyModel, run_test, trainer_with, values
from torch.utils.data import DataLoader

from callbacks.sample_quality import SampleQuality
from lit_gen.core.images import to_uint8
from lit_gen.core.types import InputError
from lit_gen.evaluation.blocks import blocks, choose
from lit_gen.metrics.frechet import FrechetDistance
from lit_gen.metrics.kernel import InceptionScore
from lit_gen.metrics.neighbours import Neighbours


def test_what_is_logged_is_what_is_reported():
    callback, logged = run_test(per_task=True)
    assert set(logged) == {
        f"test/{metric}/flat{task}"
        for metric in ("fid", "precision", "recall", "density", "coverage")
        for task in ("", "/task0", "/task1")
    }
    for score in callback.scores:
        task = "" if score.on_task is None else f"/task{score.on_task}"
        assert logged[f"test/{score.metric}/flat{task}"] == pytest.approx(score.value, rel=1e-6)
    counts = {score.on_task: (score.num_real, score.num_fake) for score in callback.scores}
    assert counts == {0: (150, 150), 1: (130, 130), None: (280, 280)}
    assert {(s.split, s.extractor, s.extractor_hash, s.seed) for s in callback.scores} == {
        ("test", "flat", callback.extractor.weights_hash, 0)
    }


def test_numbers_are_those_of_the_metric_on_the_same_images():
    module = ToyModel({"label"})
    callback, _ = run_test(module, per_task=True)
    extractor, drawn = Flat(), torch.cat(module.drawn)
    by_task = list(to_uint8(drawn).split(COUNTS["test"]))
    for task in (0, 1, None):
        metric = FrechetDistance(6)
        seen = (0, 1) if task is None else (task,)
        metric.update(extractor(Toy("test", seen).batch.image)[0], real=True)
        metric.update(extractor(torch.cat([by_task[each] for each in seen]))[0], real=False)
        assert values(callback.scores)[task, "fid"] == pytest.approx(metric.compute()["fid"].item(), rel=1e-9)


@pytest.mark.parametrize("conditions", [set(), {"task"}, {"label"}, {"task", "label"}])
def test_a_model_is_told_the_conditions_of_the_real_images(conditions):
    module = ToyModel(conditions)
    run_test(module)
    real = Toy("test", (0, 1)).batch
    assert [n for n, _, _ in module.asked] == [64, 64, 22, 64, 64, 2]
    for name, given in (("label", [a[1] for a in module.asked]), ("task", [a[2] for a in module.asked])):
        if name in conditions:
            assert torch.equal(torch.cat(given), getattr(real, name))
        else:
            assert given == [None] * 6


def test_an_unconditional_model_gets_one_sided_scores_per_task_and_a_word_about_it(caplog):
    with caplog.at_level(logging.INFO):
        callback, _ = run_test(ToyModel(), per_task=True)
    assert caplog.text.count("neither task nor label") == 1
    found = values(callback.scores)
    assert {metric for task, metric in found if task == 0} == {"recall", "coverage"}
    assert {metric for task, metric in found if task is None} == {
        "fid",
        "precision",
        "recall",
        "density",
        "coverage",
    }
    assert {(s.num_real, s.num_fake) for s in callback.scores if s.on_task == 0} == {(150, 280)}


def test_noise_is_the_same_in_every_pass_and_the_real_images_are_seen_once():
    callback = SampleQuality(Flat(), [FrechetDistance], batch_size=64, floor=True)
    module, data, trainer = ToyModel(), ToyData(), trainer_with(callback)
    trainer.test(module, data, verbose=False)
    first, num_seen, num_asked = callback.scores, callback.extractor.num_seen, data.num_asked
    assert num_seen == 3 * 280  # real, generated, floor
    torch.rand(7)
    trainer.test(module, data, verbose=False)
    assert callback.scores == first
    assert callback.extractor.num_seen == num_seen + 280
    assert data.num_asked == num_asked
    half = len(module.drawn) // 2
    assert all(torch.equal(a, b) for a, b in zip(module.drawn[:half], module.drawn[half:], strict=True))
    assert not torch.equal(module.drawn[0], module.drawn[1])


def test_another_seed_draws_other_images():
    first, second = ToyModel({"task"}), ToyModel({"task"})
    run_test(first)
    run_test(second, seed=1)
    assert not torch.equal(first.drawn[0], second.drawn[0])


def test_scoring_leaves_training_as_it_is():
    def fitted(**options):
        torch.manual_seed(0)
        module = ToyModel()
        callback = SampleQuality(Flat(), [FrechetDistance], **options)
        trainer_with(callback, max_epochs=2).fit(module, ToyData())
        return module, callback

    (plain, silent), (scored, callback) = fitted(every_n_epochs=0), fitted(every_n_epochs=1)
    assert silent.scores == [] and len(callback.scores) == 1 and len(scored.drawn) == 4
    assert torch.equal(plain.weight, scored.weight)
    assert scored.training and scored.dropout.training and not scored.frozen.training


def test_a_fit_scores_every_n_epochs_on_val():
    module = ToyModel()
    callback = SampleQuality(Flat(), [FrechetDistance], every_n_epochs=2)
    trainer = trainer_with(callback, max_epochs=5, num_sanity_val_steps=1)
    trainer.fit(module, ToyData())
    assert len(module.asked) == 2 * 2  # epochs 1 and 3, one block for each of two tasks
    assert {(score.split, score.num_real) for score in callback.scores} == {("val", 80)}
    assert "val/fid/flat" in trainer.callback_metrics
    trainer.validate(module, ToyData(), verbose=False)
    assert len(module.asked) == 4


def test_a_test_after_a_fit_and_a_fit_after_a_test_work_in_one_trainer():
    callback = SampleQuality(Flat(), [FrechetDistance, Neighbours], every_n_epochs=1)
    module, data, trainer = ToyModel(), ToyData(), trainer_with(callback)
    trainer.test(module, data, verbose=False)
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    assert all(math.isfinite(score.value) for score in callback.scores)


def test_only_tasks_seen_so_far_count():
    callback, _ = run_test(data=ToyData(current_task=0), per_task=True)
    assert {score.on_task for score in callback.scores} == {0, None}
    found = values(callback.scores)
    assert found[0, "fid"] == found[None, "fid"]


def test_no_more_than_num_samples_of_each_task_are_chosen_once():
    callback, _ = run_test(num_samples=50, per_task=True)
    assert {(s.on_task, s.num_real, s.num_fake) for s in callback.scores} == {
        (0, 50, 50),
        (1, 50, 50),
        (None, 100, 100),
    }
    chosen = choose(150, 50, seed=3)
    assert len(chosen.unique()) == 50 and torch.equal(chosen, chosen.sort().values)
    assert torch.equal(chosen, choose(150, 50, seed=3)) and not torch.equal(chosen, choose(150, 50, seed=4))
    assert torch.equal(choose(50, 50, seed=3), torch.arange(50))


def test_the_floor_compares_training_images_with_the_real_ones():
    callback, logged = run_test(floor=True, per_task=True, num_samples=140)
    train, test = (Toy(split, (1,)).batch.image for split in ("train", "test"))
    floor = next(s for s in callback.scores if (s.on_task, s.metric) == (1, "floor_fid"))
    assert (floor.num_real, floor.num_fake) == (130, 130)
    assert logged["test/floor/fid/flat/task1"] == pytest.approx(floor.value, rel=1e-6)
    whole = FrechetDistance(6)
    whole.update(Flat()(test)[0], real=True)
    whole.update(Flat()(train)[0], real=False)
    # 130 of the 300 training images: close to all of them, far from the other task.
    assert floor.value == pytest.approx(whole.compute()["fid"].item(), abs=0.02)
    assert values(callback.scores)[None, "floor_precision"] > 0.8


def test_reconstructions_are_compared_with_what_they_reconstruct():
    callback, _ = run_test(source="reconstructions", per_task=True)
    found = values(callback.scores)
    assert found[0, "fid"] == pytest.approx(0, abs=1e-9) and found[None, "recall"] == 1


def test_inception_score_gets_the_logits():
    callback, _ = run_test(metrics=[InceptionScore])
    assert 1 <= values(callback.scores)[None, "inception_score"] <= 3


def test_blocks_are_dealt_without_gaps_or_repeats():
    for world in (1, 2, 3, 7):
        dealt = [
            list(blocks(300, 64, SimpleNamespace(global_rank=r, world_size=world))) for r in range(world)
        ]
        by_number = dict(block for share in dealt for block in share)
        assert sum(len(share) for share in dealt) == len(by_number) == 5
        assert torch.equal(torch.cat([by_number[n] for n in range(5)]), torch.arange(300))


def test_missing_promises_are_refused_before_anything_runs():
    callback = SampleQuality(Flat(), [FrechetDistance], source="translations")
    with pytest.raises(InputError, match="ToyModel does not promise Translates"):
        trainer_with(callback).test(ToyModel(), ToyData())
    callback = SampleQuality(Flat(), [FrechetDistance])
    with pytest.raises(InputError, match="datamodule"):
        trainer_with(callback).test(ToyModel(), DataLoader(torch.zeros(1)))


def test_the_abilities_of_a_wrapped_module_count():
    class Wrapper(ToyModel):
        reconstruct = None

        def abilities(self):
            return ToyModel()

    callback, _ = run_test(Wrapper(), source="reconstructions")
    assert values(callback.scores)[None, "fid"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"source": "dreams"}, "one of samples"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"batch_size": -1}, "-1"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        SampleQuality(Flat(), [FrechetDistance], **options)


def test_two_metrics_of_one_name_are_refused():
    with pytest.raises(InputError, match="same name"):
        SampleQuality(Flat(), [Neighbours, Neighbours])


def test_the_state_key_tells_extractors_apart():
    assert "flat" in SampleQuality(Flat(), []).state_key


MANY = {"metrics": (FrechetDistance, Neighbours, InceptionScore), "per_task": True, "floor": True}


@pytest.mark.slow
def test_scores_do_not_depend_on_the_number_of_processes(tmp_path):
    world = 3
    alone, _ = run_test(**MANY)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, __file__, str(world), str(tmp_path)]
    subprocess.run(command, check=True, timeout=300, env=environment)
    for rank in range(world):
        scores = torch.load(tmp_path / f"{rank}.pt")
        assert [s[:2] + s[3:] for s in scores] == [s[:2] + s[3:] for s in alone.scores]
        assert [s[2] for s in scores] == pytest.approx([s[2] for s in alone.scores], rel=1e-5)


def _test_in_processes(world, folder):
    options = {"strategy": "ddp", "devices": world}
    callback, _ = run_test(trainer_options=options, **MANY)
    torch.save([tuple(s) for s in callback.scores], folder / f"{torch.distributed.get_rank()}.pt")


if __name__ == "__main__":
    _test_in_processes(int(sys.argv[1]), Path(sys.argv[2]))
