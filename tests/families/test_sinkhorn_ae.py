"""The end-to-end Sinkhorn autoencoder: one loss for three nets, a coupling that respects the condition."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from lit_gen.core.types import Batch, ImageSpec
from lit_gen.families.sinkhorn_ae import SinkhornAE
from lit_gen.losses.latent_penalties import CramerWold
from lit_gen.losses.reconstruction import squared_error
from lit_gen.losses.sinkhorn import SinkhornDivergence
from lit_gen.nets.mlp import DenseDecoder, DenseEncoder
from lit_gen.nets.noise_generator import NoiseGenerator
from lit_gen.nets.priors import UniformBox

SPEC = ImageSpec(channels=1, size=4, num_classes=2)


class Given(nn.Module):
    """The same codes whatever comes in."""

    def __init__(self, codes):
        super().__init__()
        self.codes = nn.Parameter(codes)

    def forward(self, whatever, condition=None):
        return self.codes


def make(condition="none", condition_size=0, **options):
    nets = {
        "encoder": DenseEncoder(1, 4, 2, (16,)),
        "generator": NoiseGenerator(3, 2, 8, condition_size),
        "decoder": DenseDecoder(1, 4, 2, (16,)),
        "divergence": SinkhornDivergence(0.1, 0.8),
        "noise_size": 3,
    }
    return SinkhornAE(
        latent_size=2,
        condition=condition,
        condition_size=condition_size,
        spec=SPEC,
        optimizer=functools.partial(torch.optim.Adam, lr=1e-2),
        **(nets | options),
    )


def batch_of(n):
    return Batch(torch.rand(n, 1, 4, 4) * 2 - 1, torch.arange(n) % 2, torch.arange(n) % 2, torch.arange(n))


def test_the_loss_is_the_sum_of_its_terms_computed_by_hand():
    model, batch = make(weight=5.0, noise=UniformBox()), batch_of(8)
    torch.manual_seed(0)
    terms = model.step(batch, 0.5)
    torch.manual_seed(0)
    code, generated = model.encoder(batch.image), model.generator(torch.rand(8, 3))
    penalty = SinkhornDivergence(0.1, 0.8)(code, generated)
    error = squared_error(model.decoder(code), batch.image).mean()
    torch.testing.assert_close(terms["penalty"], penalty)
    torch.testing.assert_close(terms["loss"], error + 5 * penalty)


def test_the_divergence_pulls_at_encoder_and_generator_but_not_at_the_decoder():
    model = make()
    model.step(batch_of(8), 0.5)["penalty"].backward()
    pulled = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert pulled == {"encoder", "generator"}
    assert all(p.grad.abs().sum() > 0 for p in (*model.encoder.parameters(), *model.generator.parameters()))


def test_the_coupling_respects_the_condition():
    """Generated codes sit on the codes of the other label: near if labels are ignored, far if they count."""
    n = 20
    places = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    batch = batch_of(n)
    encoder, generator = Given(places[batch.label]), Given(places[1 - batch.label])
    values, pulls = {}, {}
    for scale in (0.0, 10.0):
        model = make("label", 2, encoder=encoder, generator=generator, condition_scale=scale)
        values[scale] = model.step(batch, 0.5)["penalty"]
        pulls[scale] = torch.autograd.grad(values[scale], generator.codes)[0] * n
    assert values[0.0].item() == pytest.approx(0, abs=1e-4)
    assert pulls[0.0].abs().max() < 1e-3
    # Every generated code has half a squared unit to go, to the place of its own label.
    assert values[10.0].item() == pytest.approx(0.5, rel=1e-3)
    torch.testing.assert_close(pulls[10.0], places[1 - batch.label] - places[batch.label], rtol=0, atol=1e-2)


def test_samples_are_decoded_codes_of_the_generator():
    model = make("label", 2)
    label = torch.tensor([0, 1, 1])
    torch.manual_seed(0)
    images = model.sample(3, label=label)
    torch.manual_seed(0)
    codes = model.generator(torch.randn(3, 3), torch.eye(2)[label])
    assert torch.equal(images, model.decoder(codes).detach())
    torch.manual_seed(0)
    assert not torch.equal(model.sample(3, label=1 - label), images)


def test_encoder_and_decoder_are_not_told():
    model, batch = make("label", 2), batch_of(4)
    other = batch._replace(label=1 - batch.label)
    assert torch.equal(model.reconstruct(batch), model.reconstruct(other))


def test_a_penalty_that_looks_at_codes_alone_is_refused():
    with pytest.raises(ValueError, match="CramerWold"):
        make(divergence=CramerWold())
