"""Ways between codes, and the strips of images along them."""

import pytest
import torch
from analysis_toys import FirstPixels, make_context, test_images

from lit_gen.core.types import InputError
from lit_gen.evaluation.plots import strips
from lit_gen.evaluation.uses.walks import Interpolation, Traversal, linear, spherical

SHARES = torch.linspace(0, 1, 7)


@pytest.mark.parametrize("walk", [linear, spherical])
def test_a_walk_begins_and_ends_exactly_at_its_codes(walk):
    torch.manual_seed(0)
    for first, second in torch.randn(50, 2, 5) * 3:
        path = walk(first, second, SHARES)
        assert path.shape == (7, 5)
        assert path[0].equal(first) and path[-1].equal(second)


def test_the_spherical_way_keeps_the_norm_and_turns_evenly():
    torch.manual_seed(1)
    first, second = torch.nn.functional.normalize(torch.randn(2, 9), dim=1) * 4
    path = spherical(first, second, SHARES)
    torch.testing.assert_close(path.norm(dim=1), torch.full((7,), 4.0))
    whole = torch.acos(first @ second / 16)
    torch.testing.assert_close(torch.acos(path[1:-1] @ first / 16), SHARES[1:-1] * whole)
    in_between = linear(first, second, SHARES)[1:-1]
    assert (in_between.norm(dim=1) < 4).all()


def test_between_codes_of_unlike_length_the_length_changes_evenly():
    first, second = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0])
    path = spherical(first, second, SHARES)
    torch.testing.assert_close(path.norm(dim=1), torch.lerp(torch.tensor(3.0), torch.tensor(1.0), SHARES))


@pytest.mark.parametrize("second", [[2.0, 4.0], [-1.0, -2.0], [0.0, 0.0]])
def test_codes_without_an_arc_between_them_are_joined_by_a_line(second):
    first, second = torch.tensor([1.0, 2.0]), torch.tensor(second)
    assert spherical(first, second, SHARES).equal(linear(first, second, SHARES))


def test_a_strip_shows_both_images_and_the_decoded_codes_between_them():
    context = make_context()
    found = Interpolation(pairs=1, steps=2, way="linear")(context)
    chosen = context.choose(40, 2)
    image = test_images(context)[chosen]
    ends = context.model.decode(image.flatten(1)[:, :6], label=chosen)
    expected = strips([torch.cat([image[:1], ends, image[1:]])])
    assert found.picture.equal(expected)
    # One step from end to end: the squared error between both decoded ends, pixels counted from 0 to 1.
    change = float((ends[0] - ends[1]).square().mean() / 4)
    assert found.table[0]["mean_change"] == pytest.approx(change)
    assert found.table[0]["largest_change"] == pytest.approx(change)


def test_a_conditional_model_is_told_the_label_of_the_nearer_end():
    context = make_context()
    Interpolation(pairs=1, steps=5, way="spherical")(context)
    first, second = (int(place) % 4 for place in context.choose(40, 2))  # label of a synthetic image
    assert context.model.told == [[first, first, second, second, second]]


def test_both_ways_of_a_pair_stand_one_below_the_other():
    found = Interpolation(pairs=3, steps=4)(make_context())
    assert [row["way"] for row in found.table] == ["linear", "spherical"]
    cell = 8 * 13 + 1  # six in 600 pixels
    assert found.picture.shape == (6 * cell + 1, 6 * cell + 1, 1)
    rows = [found.picture[cell * row : cell * row + cell] for row in range(6)]
    for linear_row, spherical_row in zip(rows[::2], rows[1::2], strict=True):
        assert linear_row[:, :cell].equal(spherical_row[:, :cell])  # the same test image
        assert not linear_row.equal(spherical_row)


def test_a_traversal_moves_each_dimension_by_its_own_standard_deviation():
    context = make_context()
    found = Traversal(image=3, dimensions=4, width=2.0, steps=3)(context)
    image = test_images(context)
    std = image.flatten(1)[:, :4].std(0)
    assert [row["dimension"] for row in found.table] == [0, 1, 2, 3]
    for row, value in zip(found.table, std.tolist(), strict=True):
        assert row["std"] == pytest.approx(value, rel=1e-5)
        # One of 64 pixels differs by four standard deviations, two in a range of 1.
        assert row["change"] == pytest.approx((4 * value) ** 2 / 4 / 64, rel=1e-4)
    middle = context.model.decode(image[3:4].flatten(1)[:, :6], label=torch.tensor([3]))
    cell, expected = 8 * 25 + 1, strips([middle.repeat(3, 1, 1, 1)])  # three in 600 pixels
    for row in range(4):
        shown = found.picture[row * cell : row * cell + cell + 1, cell : 2 * cell + 1]
        assert shown.equal(expected[:, cell : 2 * cell + 1])
    assert all(told == [3, 3, 3] for told in context.model.told[:4])


def test_there_are_not_more_dimensions_than_the_code_has():
    assert len(Traversal(dimensions=99)(make_context(FirstPixels(latent_size=3))).table) == 3


def test_an_image_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="image=40: there are test images 0 to 39"):
        Traversal(image=40)(make_context())
