"""Adapt & Align's classifier: what its features are distilled to, and what its head learns on them."""

from __future__ import annotations

import functools

import pytest
import torch
from multiband_gan_toys import make_multiband_gan
from multiband_toys import make_multiband, task
from toys import SPEC, ToyGenerator, assert_same_state, walk

from lit_gen.continual.aligned import AlignedSolver
from lit_gen.core.types import Batch
from lit_gen.families.classifier import Classifier
from lit_gen.nets.lenet import LeNet

MAKERS = {"vae": make_multiband, "gan": functools.partial(make_multiband_gan, condition="label")}


def aligned(kind="vae", num_tasks=2, **options):
    generator = MAKERS[kind](num_tasks)
    optimizer = functools.partial(torch.optim.Adam, lr=1e-3)
    net = Classifier(SPEC, LeNet(1, 4, size=16), optimizer=optimizer)
    return AlignedSolver(generator, net, num_tasks, **{"pool_size": 40} | options)


@pytest.mark.parametrize("kind", MAKERS)
def test_images_of_translated_codes_are_samples(kind):
    model, number = MAKERS[kind](2).eval(), torch.tensor([0, 1, 1])
    model.tasks_seen.fill_(2)
    if kind == "gan":
        model.classes.counts.copy_(torch.eye(4)[[1, 3]])
    torch.manual_seed(5)
    image = model.decode_translated(model.translated(number))
    torch.manual_seed(5)
    if kind == "gan":
        model.classes.draw(number)
    told = {"label": torch.tensor([1, 3, 3])} if kind == "gan" else {"task": number}
    assert torch.equal(image, model.sample(3, **told))


def test_features_are_held_against_the_codes_behind_drawn_images():
    model = aligned().eval()
    model.past.note(task(0))
    model.generator.tasks_seen.fill_(1)
    batch = Batch(torch.zeros(6, 1, 8, 8), *(torch.zeros(6, dtype=torch.long),) * 3)
    torch.nn.init.zeros_(model.to_code.weight)
    torch.manual_seed(3)
    found = model.distil(batch, 0.0)
    torch.manual_seed(3)
    _, numbers = model.past.draw(6, 1)
    code = model.generator.translated(numbers)
    expected = (model.to_code.bias - code).square().mean()
    torch.testing.assert_close(found["loss"], expected)
    torch.testing.assert_close(found["unexplained"], expected / code.var(0, correction=0).mean())


@pytest.mark.parametrize("frozen", [True, False])
def test_the_head_learns_on_features_that_stay_or_that_learn_too(frozen):
    model = aligned(frozen=frozen, head_optimizer=torch.optim.SGD)
    net = model.classifier.net
    *_, features, head = model.phases(task(1))
    learns = {id(p) for part in features.trains for p in part.parameters()}
    body = {id(p) for part in (net.convolutions, net.features, model.to_code) for p in part.parameters()}
    assert learns == body
    learns = {id(p) for part in head.trains for p in part.parameters()}
    assert learns == {id(p) for p in (net.classes if frozen else net).parameters()}
    assert head.turns[0].optimizer is torch.optim.SGD


def test_labels_are_those_of_the_classifier_before_its_features_changed():
    model = aligned()
    *_, features, head = model.phases(task(0))
    features.begin(task(0))
    before = [value.clone() for value in model.before.state_dict().values()]
    with torch.no_grad():
        model.classifier.net.features[0].weight.add_(1.0)
    head.begin(task(0))
    assert all(map(torch.equal, before, model.before.state_dict().values()))


@pytest.mark.parametrize("kind", MAKERS)
def test_a_resume_changes_nothing(tmp_path, kind):
    made = functools.partial(aligned, kind, distil_epochs=2, epochs=2)
    whole, *_ = walk(tmp_path / "whole", model=made())
    copies = sorted((tmp_path / "whole").glob("copy-*.ckpt"))
    for number in (-5, -3):  # inside the features' phase and inside the head's, of the second task
        resumed, *_ = walk(tmp_path / f"resumed{number}", copies[number], made())
        assert_same_state(whole, resumed)


def test_a_generator_without_a_latent_space_of_all_tasks_is_refused():
    with pytest.raises(ValueError, match=r"ToyGenerator has no latent space.*take multiband"):
        AlignedSolver(ToyGenerator(), Classifier(SPEC), 2)
