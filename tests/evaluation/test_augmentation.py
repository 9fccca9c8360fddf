"""Classifiers with and without generated images."""

import functools

import pytest
import torch
from analysis_toys import SPEC, FirstPixels, OnlySamples, make_context
from torch import nn

from lit_gen.core.module import LitModel
from lit_gen.core.types import InputError
from lit_gen.evaluation.uses.augmentation import Augmentation


class Recording(LitModel):
    """A linear classifier that remembers what it was given."""

    def __init__(self) -> None:
        super().__init__(spec=SPEC, optimizer=functools.partial(torch.optim.SGD, lr=0.1))
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
        self.first = self.net[1].weight.detach().clone()
        self.batches = []

    def step(self, batch, progress):
        self.batches.append((batch, progress))
        return {"loss": nn.functional.cross_entropy(self.classify(batch.image), batch.label)}

    def classify(self, image):
        return self.net(image)


def asked(context, **settings):
    """The findings and all classifiers that were made."""
    made = []

    def make():
        made.append(Recording())
        return made[-1]

    found = Augmentation(**({"n": 12, "generated": 50, "steps": 9, "batch_size": 8} | settings))(
        context, make
    )
    return found, made


def images_of(classifier):
    return torch.cat([batch.image for batch, _ in classifier.batches])


def test_three_training_sets_get_equal_steps_and_equal_first_weights():
    found, made = asked(make_context(), repeats=2)
    assert [(row["repeat"], row["train_on"], row["images"]) for row in found.rows] == [
        (repeat, name, count)
        for repeat in (0, 1)
        for name, count in (("real", 12), ("real + generated", 62), ("generated", 50))
    ]
    assert {len(each.batches) for each in made} == {9}
    assert [progress for _, progress in made[0].batches] == [step / 9 for step in range(9)]
    for trio in (made[:3], made[3:]):
        assert all(each.first.equal(trio[0].first) for each in trio)
    assert not made[0].first.equal(made[3].first)


def test_generated_images_are_of_the_classes_they_were_asked_for():
    _, (real, _, generated) = asked(make_context(), repeats=1)
    levels = images_of(generated).flatten(1)
    label = torch.cat([batch.label for batch, _ in generated.batches])
    # A class is one grey level, in 8 bits.
    assert (levels == levels[:, :1]).all() and set(label.tolist()) == {0, 1, 2, 3}
    torch.testing.assert_close(levels[:, 0], label / 4 - 0.5, atol=1 / 127, rtol=0)
    assert len(images_of(real).flatten(1).unique(dim=0)) == 12


def test_the_table_has_mean_and_standard_deviation_over_repeats():
    found, _ = asked(make_context(), repeats=3)
    for row in found.table:
        values = [r["accuracy"] for r in found.rows if r["train_on"] == row["train_on"]]
        assert row["accuracy"] == pytest.approx(sum(values) / 3)
        assert row["std"] == pytest.approx(torch.tensor(values, dtype=torch.float64).std().item())
    again, _ = asked(make_context(), repeats=3)
    assert again == found
    other, _ = asked(make_context(seed=1), repeats=3)
    assert other.rows != found.rows


def test_images_whose_label_is_hidden_are_not_taken():
    _, made = asked(make_context(labelled_share=0.25), n=1000, repeats=1)
    real = made[0]
    assert len(images_of(real).flatten(1).unique(dim=0)) == 24  # a quarter of 96
    with pytest.raises(InputError, match="none of its training images has a class"):
        asked(make_context(labelled_share=0.0))


def test_a_model_without_a_condition_on_the_label_is_refused():
    with pytest.raises(InputError, match="without the condition on the label"):
        asked(make_context(OnlySamples()))
    unconditional = FirstPixels()
    unconditional.conditions = frozenset()
    with pytest.raises(InputError, match=r"model\.condition=label"):
        asked(make_context(unconditional))
