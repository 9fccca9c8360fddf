"""Three ways to the Jacobian's norm against autograd's full Jacobian, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_gen.core.types import InputError
from lit_gen.losses.contractive import HutchinsonContraction, JacobianContraction, LayerContraction
from lit_gen.nets.conv import ConvEncoder
from lit_gen.nets.mlp import DenseEncoder


def one_layer():
    torch.manual_seed(0)
    return nn.Sequential(DenseEncoder(2, 4, 5, hidden=[]), nn.Sigmoid()).double()


def deep():
    torch.manual_seed(1)
    return nn.Sequential(DenseEncoder(2, 4, 5, hidden=[9, 7]), nn.Tanh()).double()


def convolutional():
    torch.manual_seed(2)
    return ConvEncoder(2, 8, 5, width=4, hidden=6).double().eval()


def image_of(size=4):
    return torch.randn(3, 2, size, size, dtype=torch.float64)


def reference(encoder, image, keep_graph=False):
    """Image by image, so that no cross terms can hide."""
    rows = [
        torch.autograd.functional.jacobian(lambda x: encoder(x[None])[0], one, create_graph=keep_graph)
        for one in image
    ]
    return torch.stack([row.square().sum() for row in rows])


CASES = [
    (LayerContraction(), one_layer, 4),
    (JacobianContraction(), one_layer, 4),
    (JacobianContraction(), deep, 4),
    (JacobianContraction(), convolutional, 8),
]
IDS = ["closed-form", "exact-one-layer", "exact-deep", "exact-convolutional"]


@pytest.mark.parametrize(("penalty", "make", "size"), CASES, ids=IDS)
def test_value_and_gradient_are_those_of_the_full_jacobian(penalty, make, size):
    encoder, image = make(), image_of(size)
    found = penalty(encoder(image), image, encoder)
    wanted = reference(encoder, image, keep_graph=True)
    assert found.shape == (3,)
    torch.testing.assert_close(found, wanted)
    # torch.func and autograd see the graph in the same way: training moves the weights as it should.
    weights = [p for p in encoder.parameters() if p.ndim > 1]
    theirs = torch.autograd.grad(wanted.sum(), weights)
    for ours, other in zip(torch.autograd.grad(found.sum(), weights), theirs, strict=True):
        torch.testing.assert_close(ours, other)


@pytest.mark.parametrize(
    "penalty", [JacobianContraction(), HutchinsonContraction(2)], ids=["exact", "estimate"]
)
def test_validation_without_gradient_gives_the_same_number(penalty):
    encoder, image = deep(), image_of()
    torch.manual_seed(0)
    wanted = penalty(encoder(image), image, encoder).detach()
    torch.manual_seed(0)
    with torch.no_grad():
        found = penalty(encoder(image), image, encoder)
    assert torch.equal(found, wanted) and not found.requires_grad


def test_the_estimate_is_unbiased_and_exact_when_all_signs_are_seen():
    encoder, image = deep(), image_of()[:1]
    exact = reference(encoder, image)
    torch.manual_seed(0)
    with torch.no_grad():
        draws = torch.stack(
            [HutchinsonContraction(1)(encoder(image), image, encoder) for _ in range(300)]
        ).squeeze(1)
        # Few values are possible, one for each choice of signs up to a common one: their mean is the truth.
        values = draws.round(decimals=9).unique()
        several = HutchinsonContraction(300)(encoder(image), image, encoder)
    assert len(values) == 2**4
    torch.testing.assert_close(values.mean(), exact[0])
    error = values.std(correction=0) / 300**0.5
    assert (draws.mean() - exact[0]).abs() < 4 * error
    assert (several[0] - exact[0]).abs() < 4 * error


@pytest.mark.parametrize(
    "encoder",
    [
        nn.Sequential(DenseEncoder(2, 4, 5, hidden=[]), nn.ReLU()),
        deep().float(),
        DenseEncoder(2, 4, 5, hidden=[]),
    ],
    ids=["relu", "deep", "linear"],
)
def test_the_closed_form_is_refused_where_it_does_not_hold(encoder):
    image = torch.randn(3, 2, 4, 4)
    with pytest.raises(InputError, match="JacobianContraction"):
        LayerContraction()(encoder(image), image, encoder)


def test_batch_norm_in_training_counts_the_batch_once():
    encoder, image = convolutional().train(), image_of(8)
    code = encoder(image)
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    found = JacobianContraction()(code, image, encoder)
    assert all(torch.equal(buffer, before[name]) for name, buffer in encoder.named_buffers())
    # The Jacobian of the batch's summed codes: what an image does to the others' codes is in it.
    rows = torch.autograd.functional.jacobian(lambda x: encoder(x).sum(0), image)  # [Z, B, C, S, S]
    torch.testing.assert_close(found, rows.square().sum((0, 2, 3, 4)))
