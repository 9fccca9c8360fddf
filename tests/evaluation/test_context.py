"""What all analyses share: promises, blocks of images, noise, errors."""

import math
from dataclasses import replace

import pytest
import torch
from analysis_toys import FirstPixels, OnlySamples, make_context, test_images
from toys import make_data

from lit_gen.core.types import HasCodes, InputError, Restores
from lit_gen.evaluation.context import Codes, Context, only_labelled, peak_ratio, pixel_error, undisturbed
from lit_gen.evaluation.uses.reconstruction import Reconstruction, pairs_of_rows


def test_squared_error_per_pixel_counts_pixels_from_0_to_1():
    black, white = torch.full((2, 3, 4, 4), -1.0), torch.full((2, 3, 4, 4), 1.0)
    assert pixel_error(black, white).tolist() == [1.0, 1.0]
    half = white.clone()
    half[0, :, :2] = -1.0
    assert pixel_error(half, white).tolist() == [0.5, 0.0]


@pytest.mark.parametrize(("error", "decibels"), [(1.0, 0.0), (0.1, 10.0), (0.001, 30.0), (0.0, math.inf)])
def test_peak_signal_to_noise_ratio(error, decibels):
    assert peak_ratio(error) == pytest.approx(decibels)


def test_the_error_is_that_of_the_pixels_left_out():
    context = make_context()
    left_out = test_images(context).flatten(1)[:, 6:]
    expected = left_out.square().sum(1) / 64 / 4
    row = Reconstruction(n=8)(context).table[0]
    assert row["images"] == 40 and row["mse"] == pytest.approx(float(expected.mean()))
    assert row["psnr"] == pytest.approx(-10 * math.log10(float(expected.mean())), rel=1e-6)


def test_noise_is_a_function_of_the_seed_and_leaves_the_global_generator_alone():
    noisy = FirstPixels(noise=0.5)
    state = torch.get_rng_state()
    codes = [make_context(noisy, seed=seed).codes("test").code for seed in (1, 1, 2)]
    assert torch.get_rng_state().equal(state)
    assert codes[0].equal(codes[1]) and not codes[0].equal(codes[2])


def test_codes_come_with_what_is_known_about_their_images():
    context = make_context()
    codes = context.codes("test", places=torch.tensor([30, 2]))
    assert codes.code.equal(test_images(context)[[30, 2]].flatten(1)[:, :6])
    assert (
        codes.label.tolist() == [2, 2] and codes.index.tolist() == [30, 2] and codes.task.tolist() == [0, 0]
    )


def test_choosing_fewer_images_draws_them_and_choosing_all_keeps_their_order():
    context = make_context()
    assert context.choose(5, 9).tolist() == context.choose(5, None).tolist() == [0, 1, 2, 3, 4]
    few = context.choose(40, 12)
    assert len(set(few.tolist())) == 12 and few.equal(context.choose(40, 12))
    assert not few.equal(make_context(seed=1).choose(40, 12)) and not few.equal(context.choose(40, 12, 1))
    assert len(replace(context, is_dry=True).choose(40, 20)) == 16  # a block


def test_a_missing_promise_is_named():
    context = make_context(OnlySamples(), name="my-run")
    for promise, method in ((HasCodes, "encode and decode"), (Restores, "reconstruct")):
        with pytest.raises(InputError, match=rf"my-run: OnlySamples .* {promise.__name__} \({method}\)"):
            context.promised(promise)


def test_images_without_a_class_are_left_out_or_refused():
    place = torch.arange(3)
    codes = Codes(torch.eye(3), torch.tensor([1, -1, 0]), place, place)
    assert only_labelled(make_context(), codes, "test").index.tolist() == [0, 2]
    assert codes.classes().tolist() == [1, -1, 0]
    hidden = codes._replace(label=torch.full((3,), -1))
    assert hidden.classes().equal(place)
    with pytest.raises(InputError, match="none of its test images has a label"):
        only_labelled(make_context(), hidden, "test")
    with pytest.raises(InputError, match="attributes"):
        only_labelled(make_context(), codes._replace(label=torch.zeros(3, 40)), "test")


def test_the_last_row_of_a_grid_is_filled_with_white():
    image = torch.full((3, 1, 24, 24), -1.0)
    picture = pairs_of_rows([image, image], columns=2)
    side = 13 * 24  # two in 600 pixels
    assert picture.shape == (4 * (side + 1) + 1, 2 * (side + 1) + 1, 1)
    cells = picture[1:, 1:, 0].unfold(0, side, side + 1).unfold(1, side, side + 1)
    assert cells.flatten(2).float().mean(2).tolist() == [[0, 0], [0, 0], [0, 255], [0, 255]]


def test_modes_come_back_module_by_module():
    model = FirstPixels()
    model.part = torch.nn.Dropout().eval()
    model.training = True
    with undisturbed(model):
        assert not any(part.training for part in model.modules()) and not torch.is_grad_enabled()
    assert model.training and not model.part.training


@pytest.mark.parametrize("names", [{"label"}, {"label", "task"}])
def test_images_are_asked_for_by_labels_that_were_learned_alone(names):
    data = make_data(without_classes=[2])  # the tasks have the classes 0 and 1, and 2 and 3
    context = Context(FirstPixels(), data, num_seen=2)
    like = context.load(data.dataset("test"), torch.arange(len(data.dataset("test"))))
    assert 2 in like.label
    told = context.conditions(like, names)
    assert set(told) == names
    assert torch.equal(told["label"], like.label.where(like.label != 2, 3))
    whole = Context(FirstPixels(), make_data(), num_seen=2)
    assert torch.equal(whole.conditions(like, names)["label"], like.label)
