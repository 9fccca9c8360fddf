"""The VAE against a model whose best loss is known, and its conditions."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import nn

from lit_gen.core.types import Batch, ImageSpec
from lit_gen.families.vae import VAE
from lit_gen.losses.divergence import gaussian_kl
from lit_gen.losses.reconstruction import squared_error

SPEC = ImageSpec(channels=1, size=2, num_classes=3)


class Linear(nn.Module):
    """Maps without squashing, for closed forms."""

    def __init__(self, in_size, out_size, image=False):
        super().__init__()
        self.map, self.image = nn.Linear(in_size, out_size), image

    def forward(self, x, condition=None):
        x = x.flatten(1) if condition is None else torch.cat([x.flatten(1), condition], 1)
        return self.map(x).view(-1, 1, 2, 2) if self.image else self.map(x)


def make(condition="none", condition_size=0, **options):
    return VAE(
        encoder=Linear(4 + condition_size, 4),
        decoder=Linear(2 + condition_size, 4, image=True),
        latent_size=2,
        condition=condition,
        condition_size=condition_size,
        spec=SPEC,
        optimizer=functools.partial(torch.optim.Adam, lr=1e-2),
        **options,
    )


def batch_of(n):
    return Batch(torch.randn(n, 1, 2, 2), torch.arange(n) % 3, torch.arange(n) % 2, torch.arange(n))


def test_the_loss_is_the_sum_of_its_terms_computed_by_hand():
    vae, batch = make(beta=2.0), batch_of(5)
    torch.manual_seed(0)
    terms = vae.step(batch, 1.0)
    torch.manual_seed(0)
    mean, log_var = vae.encoder(batch.image).chunk(2, 1)
    code = mean + torch.exp(log_var / 2) * torch.randn(5, 2)
    error = squared_error(vae.decoder(code), batch.image).mean()
    kl = gaussian_kl(mean, log_var).mean()
    torch.testing.assert_close(terms["loss"], error + 2 * kl)
    torch.testing.assert_close(terms["kl"], kl)


def test_beta_grows_over_the_warm_up():
    vae, batch = make(beta=4.0, warmup=0.5), batch_of(5)
    for progress, beta in ((0.0, 0.0), (0.25, 2.0), (0.5, 4.0), (1.0, 4.0)):
        torch.manual_seed(0)
        terms = vae.step(batch, progress)
        torch.testing.assert_close(terms["loss"], terms["reconstruction"] + beta * terms["kl"])


def test_a_linear_vae_reaches_the_likelihood_of_probabilistic_pca():
    """Lucas et al. 2019 (arXiv:1911.02469): the best ELBO of a linear VAE is pPCA's log-likelihood."""
    torch.manual_seed(0)
    scales = torch.tensor([2.0, 1.5, 0.5, 0.3])
    data = torch.randn(4000, 4) * scales
    vae = make()
    optimizer = torch.optim.Adam(vae.parameters(), lr=5e-2)
    for step in range(500):
        image = data[torch.randint(0, 4000, (200,))].view(-1, 1, 2, 2)
        loss = vae.step(Batch(image, *[torch.zeros(200, dtype=torch.long)] * 3), 1.0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == 350:
            optimizer.param_groups[0]["lr"] = 5e-3
    with torch.no_grad():
        whole = Batch(data.view(-1, 1, 2, 2), *[torch.zeros(4000, dtype=torch.long)] * 3)
        found = sum(vae.step(whole, 1.0)["loss"].item() for _ in range(20)) / 20
    # Squared error is a Gaussian of variance 1/2 without its constant; the model's covariance keeps the two
    # widest directions and has 1/2 in the others.
    variance = data.var(0, correction=0)
    model = torch.tensor([variance[0], variance[1], 0.5, 0.5])
    nll = (
        0.5 * (torch.log(2 * math.pi * model) + variance / model).sum()
        + 0.5 * (data.mean(0) ** 2 / model).sum()
    )
    best = nll - 4 * 0.5 * math.log(math.pi)
    assert found == pytest.approx(best.item(), rel=0.01)


def test_a_condition_is_told_to_both_nets_and_unlabelled_images_get_none():
    vae = make("label", 3)
    assert vae.conditions == {"label"}
    one_hot = vae.one_hot(label=torch.tensor([2, -1]), task=torch.tensor([0, 1]))
    assert one_hot.tolist() == [[0, 0, 1], [0, 0, 0]]
    vae = make("task", 2)
    torch.manual_seed(0)
    a = vae.sample(2, task=torch.tensor([0, 0]))
    torch.manual_seed(0)
    b = vae.sample(2, task=torch.tensor([0, 1]))
    assert torch.equal(a[0], b[0]) and not torch.equal(a[1], b[1])


def test_reconstructing_decodes_the_mean_code():
    vae, batch = make(), batch_of(4)
    codes = vae.encode(batch)
    torch.testing.assert_close(codes, vae.encoder(batch.image)[:, :2].detach())
    torch.testing.assert_close(vae.reconstruct(batch), vae.decode(codes))
