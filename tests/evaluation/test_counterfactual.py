"""Counterfactuals of a model that sees nothing but brightness."""

import dataclasses
import functools
import math

import pytest
import torch
from analysis_toys import make_context
from joint_toys import linear_model, small_model

from lit_gen.cli.analyse import _guide
from lit_gen.core.types import InputError
from lit_gen.evaluation.uses.counterfactual import Counterfactual
from lit_gen.families.diffusion import Diffusion
from lit_gen.metrics.features import FeatureExtractor


class Blind(FeatureExtractor):
    """Has no classes, or sees the last one everywhere."""

    name, num_features, weights_hash = "blind", 1, ""

    def __init__(self, num_logits):
        super().__init__()
        self.num_logits = num_logits

    def forward(self, image):
        logits = torch.arange(float(self.num_logits)).expand(len(image), -1) if self.num_logits else None
        return torch.zeros(len(image), 1), logits


def asked(model, extractor, **options):
    use = Counterfactual(**options)
    make_guide = functools.partial(_guide, use.by, use.steps)
    return use(context_of(model), extractor, make_guide)


def context_of(model):
    return dataclasses.replace(make_context(), model=model.eval())


def test_guidance_turns_images_that_otherwise_stay_what_they_are():
    options = {"to": 0, "at": 0.5, "strength": 300.0, "steps": 10, "columns": 4}
    found = asked(linear_model(), Blind(4), **options)
    none, guided = found.table
    assert (none["guidance"], guided["guidance"]) == ("none", "denoised")
    assert none["images"] == guided["images"] < 40, "images of class 0 need no other"
    assert guided["flipped"] == 1.0 > none["flipped"]
    assert guided["flipped_extractor"] == 0.0
    assert guided["distance"] > none["distance"]
    rows = [row for row in found.rows if row["guidance"] == "denoised"]
    assert len(found.rows) == 2 * len(rows) == 2 * guided["images"]
    assert sum(row["distance"] for row in rows) / len(rows) == pytest.approx(guided["distance"])
    assert found.picture.shape == (4 * 153 + 1, 4 * 153 + 1, 1)
    again = asked(linear_model(), Blind(0), **options).table[1]
    assert again["distance"] == guided["distance"] and math.isnan(again["flipped_extractor"])


def test_no_strength_is_no_guidance_and_without_a_class_the_next_one_is_asked_for():
    found = asked(small_model(), Blind(5), strength=0.0, steps=3, n=20)
    none, guided = ({**row, "guidance": ""} for row in found.table)
    assert none == guided


@pytest.mark.parametrize(
    ("model", "to", "said"),
    [
        (linear_model(), 4, "to=4: there is none; this model knows classes from 0 to 3"),
        (linear_model(attributes=True), 9, "attributes from 0 to 3"),
        (Diffusion(linear_model().spec), 1, "no classifier"),
    ],
)
def test_what_is_not_there_is_refused(model, to, said):
    with pytest.raises(InputError, match=said):
        asked(model, Blind(4), to=to)
