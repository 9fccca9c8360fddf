"""What a family returns is looked at as it comes; a mistake is told in the family's own words."""

import pytest
import torch
from toys import SPEC, ToyGenerator, make_data, make_trainer

from lit_gen.core.answers import images_from, logits_from
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import InputError


class Flow(ToyGenerator):
    answer = staticmethod(lambda loss: {"loss": loss})

    def step(self, batch, progress):
        return self.answer(super().step(batch, progress)["loss"])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda loss: loss, r"returned a tensor float32 \[\]"),
        (lambda loss: float(loss), "returned a float"),
        (lambda loss: None, "returned None"),
        (lambda loss: {"nll": loss}, "returned a dict with 'nll'"),
        (lambda loss: {"loss": loss.repeat(7)}, r"returned 'loss': a tensor float32 \[7\]"),
        (lambda loss: {"loss": loss, "bits": 1.0}, "returned 'bits': a float"),
        (lambda loss: {"loss": loss.detach()}, "a loss without gradient"),
    ],
)
def test_terms_are_refused_in_the_words_of_the_step(answer, words):
    model = Flow()
    model.answer = answer
    model.phases = lambda task: ToyGenerator.phases(model, task)
    with pytest.raises(InputError, match=rf"Flow\.step must return a dict of terms.*{words}"):
        fit_stages(make_trainer(), model, make_data())


def test_samples_of_another_shape_are_refused():
    class Flat(ToyGenerator):
        def generate(self, n, *, label=None, task=None):
            return torch.zeros(n, 64)

    Flat.sample = ToyGenerator.__mro__[1].sample
    with pytest.raises(InputError, match=r"Flat\.generate must .*\[3, 1, 8, 8\].*32 \[3, 64\]"):
        Flat().sample(3)
    right = torch.zeros(3, *SPEC[:1], SPEC.size, SPEC.size)
    assert images_from(Flat().generate, right, tuple(right.shape)) is right


def test_logits_of_other_classes_are_refused():
    with pytest.raises(InputError, match=r"must return logits \[2, 10\].*returned a tensor float32 \[2, 4\]"):
        logits_from(ToyGenerator.sample, torch.zeros(2, 4), (2, 10))
