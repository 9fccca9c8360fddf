"""Samplers of codes: the family's own way at temperature 1, a spread in proportion to the temperature."""

import copy

import pytest
import torch

from lit_gen.cli.config import compose
from lit_gen.continual.separate import SeparateModels
from lit_gen.families.density import LatentDensity
from lit_gen.families.samplers import LatentSampler

GIVEN = {"label": torch.tensor([0, 1, 2]), "task": torch.tensor([0, 1, 1])}


def built(name):
    words = ["data=synthetic", "data.spec.size=8", "stream=split_classes", "stream.num_tasks=2"]
    net = ["net=gan_dense"] if name == "gan" else []
    torch.manual_seed(0)
    return compose("train", [f"model={name}", *net, *words]).build("model").eval()


def drawn(model, sampler=None):
    model.sampler = sampler
    torch.manual_seed(1)
    return model.sample(3, **{name: GIVEN[name] for name in model.conditions})


@pytest.mark.parametrize("name", ["vae_conditional", "aae", "sinkhorn_ae", "gan"])
def test_a_temperature_of_1_is_the_own_way_and_another_is_not(name):
    model = built(name)
    own = drawn(model)
    assert torch.equal(drawn(model, LatentSampler()), own)
    assert not torch.equal(drawn(model, LatentSampler(temperature=0.5)), own)
    torch.manual_seed(1)
    whole = model.sample_codes(3, label=GIVEN["label"], task=GIVEN["task"])
    torch.manual_seed(1)
    torch.testing.assert_close(
        model.sample_codes(3, 0.5, label=GIVEN["label"], task=GIVEN["task"]), 0.5 * whole
    )


def test_a_fitted_density_is_narrowed_around_its_means():
    density = LatentDensity(2, "gaussian")
    density.means.fill_(3.0)
    assert (density.sample(5, temperature=0) == 3).all()
    torch.manual_seed(0)
    whole = density.sample(5)
    torch.manual_seed(0)
    torch.testing.assert_close(density.sample(5, temperature=0.5) - 3, (whole - 3) / 2)


def test_separate_models_all_have_it():
    model = SeparateModels(built("vae"), num_tasks=2)
    own = drawn(copy.deepcopy(model))
    assert not torch.equal(drawn(model, LatentSampler(temperature=0.5)), own)
    assert torch.equal(drawn(model, None), own)


@pytest.mark.parametrize(
    ("name", "sampler", "message"),
    [
        ("multiband", LatentSampler(), "MultibandVAE draws no codes"),
        ("separate_multiband", LatentSampler(), "MultibandLocal draws no codes"),
        ("vae", LatentSampler(pixels="draw"), "pixels=draw"),
    ],
)
def test_a_sampler_that_cannot_draw_from_the_model_is_refused(name, sampler, message):
    model = built(name)
    with pytest.raises(ValueError, match=message):
        model.sampler = sampler
    assert model.sampler is None


class Still:
    """A sampler that needs nothing of a model but its own way to draw."""

    def check(self, model):
        pass

    def __call__(self, model, n, **conditions):
        return 0 * model.generate(n, **conditions)


@pytest.mark.parametrize("name", ["multiband", "multiband_gan", "separate_multiband", "progan"])
def test_any_model_takes_a_sampler_that_can_draw_from_it(name):
    assert (drawn(built(name), Still()) == 0).all()
