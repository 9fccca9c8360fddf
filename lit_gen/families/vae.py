"""Variational autoencoder, conditional if asked. Source: Kingma & Welling 2014, arXiv:1312.6114."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn

from lit_gen.core.module import OptimizerFactory, ScheduleFactor
from lit_gen.core.types import (
    Batch,
    Fraction,
    ImageSpec,
    InputError,
    NonNegative,
    Positive,
    Posterior,
    Terms,
)
from lit_gen.families.base import ADAM, CodedGenerator, ConditionKind, Reconstruction
from lit_gen.losses.divergence import (
    free_bits,
    gaussian_kl,
    gaussian_kl_by_dimension,
    gaussian_log_ratio,
    importance_bound,
)
from lit_gen.losses.likelihood import PixelLikelihood
from lit_gen.losses.reconstruction import squared_error
from lit_gen.nets.mlp import DenseDecoder, DenseEncoder

_DECODED_AT_ONCE = 2000  # images, where a likelihood is estimated from many codes of each


class VAE(CodedGenerator):
    """Gaussian prior and posterior; the decoder's output is the mean image.

    With a condition both networks are told it (Sohn et al. 2015, "Learning structured output representation
    using deep conditional generative models").

        >>> model = VAE(ImageSpec(channels=1, size=8, num_classes=10))
        >>> image = torch.rand(4, 1, 8, 8) * 2 - 1
        >>> batch = Batch(image, *torch.zeros(3, 4, dtype=torch.long))
        >>> sorted(model.step(batch, progress=0.0))
        ['kl', 'loss', 'reconstruction']
        >>> list(model.sample(3).shape)
        [3, 1, 8, 8]

    Args:
        encoder: image [B, C, S, S] and condition [B, K] or None -> [B, 2 * latent_size], mean and
            log-variance; None is a dense one.
        decoder: code [B, latent_size] and condition -> image [B, C, S, S] in [-1, 1]; None is a dense one.
        reconstruction: (image, target) -> one value per image. With a `PixelLikelihood` it is a likelihood
            with all its constants, and the model can say how likely images are.
        beta: weight of the KL term. Source of beta != 1: Higgins et al. 2017, "beta-VAE".
        warmup: part of the phase over which beta grows from 0; 0 means no warm-up.
        free_bits: nats of KL that every dimension has for nothing, see `losses.divergence.free_bits`.
        importance_samples: codes per image in the importance-weighted bound (Burda et al. 2016,
            arXiv:1509.00519), which takes the place of the ELBO; 1 is the ELBO.
    """

    def __init__(
        self,
        spec: ImageSpec,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        latent_size: Positive = 16,
        reconstruction: Reconstruction = squared_error,
        beta: Annotated[float, Ge(0)] = 1.0,
        warmup: Fraction = 0.0,
        free_bits: Annotated[float, Ge(0)] = 0.0,
        importance_samples: Positive = 1,
        condition: ConditionKind = "none",
        condition_size: NonNegative | None = None,
        optimizer: OptimizerFactory = ADAM,
        schedule: ScheduleFactor | None = None,
    ) -> None:
        super().__init__(spec, condition, condition_size, optimizer, schedule)
        if importance_samples > 1 and (beta, warmup, free_bits) != (1, 0, 0):
            raise ValueError(
                f"VAE: importance_samples={importance_samples} with beta={beta}, warmup={warmup}, "
                f"free_bits={free_bits}; the importance-weighted bound has no KL term to weigh. Leave these "
                "at 1, 0 and 0, or set importance_samples=1"
            )
        if encoder is None:
            encoder = DenseEncoder(*spec[:2], 2 * latent_size, condition_size=self.condition_size)
        if decoder is None:
            decoder = DenseDecoder(*spec[:2], latent_size, condition_size=self.condition_size)
        self.encoder, self.decoder = encoder, decoder
        self.latent_size = latent_size
        self.reconstruction = reconstruction
        self.beta, self.warmup, self.free_bits = beta, warmup, free_bits
        self.importance_samples = importance_samples

    def step(self, batch: Batch, progress: float) -> Terms:
        condition = self.one_hot(label=batch.label, task=batch.task)
        mean, log_var = self.encoder(batch.image, condition).chunk(2, dim=1)
        if self.importance_samples > 1:
            codes = _draw(mean, log_var, self.importance_samples)
            error = self._errors(codes, batch.image, condition)
            bound = importance_bound(gaussian_log_ratio(codes, mean, log_var) - error)
            kl = gaussian_kl(mean, log_var)
            return {"loss": -bound.mean(), "reconstruction": error.mean(), "kl": kl.mean()}
        code = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        error = self.reconstruction(self.decoder(code, condition), batch.image).mean()
        kl = gaussian_kl(mean, log_var).mean()
        cost = free_bits(gaussian_kl_by_dimension(mean, log_var), self.free_bits) if self.free_bits else kl
        beta = self.beta * min(1.0, progress / self.warmup) if self.warmup else self.beta
        return {"loss": error + beta * cost, "reconstruction": error, "kl": kl}

    @torch.no_grad()
    def sample_codes(
        self, n: int, temperature: float = 1.0, *, label: Tensor | None = None, task: Tensor | None = None
    ) -> Tensor:
        return temperature * torch.randn(n, self.latent_size, device=self.device)

    @torch.no_grad()
    def posterior(self, batch: Batch) -> Posterior:
        parameters = self.encoder(batch.image, self.one_hot(label=batch.label, task=batch.task))
        return Posterior(*parameters.chunk(2, dim=1))

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, draws: int) -> Tensor:
        """log p(image), or log p(image | condition), by importance sampling from the posterior.

        It is a lower bound in expectation, which `draws` makes tight.

        Raises:
            InputError: the reconstruction error is no likelihood, or not one of these images.
        """
        if not isinstance(self.reconstruction, PixelLikelihood):
            raise InputError(
                f"model.reconstruction={_name(self.reconstruction)}: without a likelihood of pixels there is "
                "none of images; use a module of lit_gen.losses.likelihood, as vae_bernoulli, vae_gaussian "
                "and vae_logistic do"
            )
        self.reconstruction.refuse(batch.image)
        condition = self.one_hot(label=batch.label, task=batch.task)
        mean, log_var = self.posterior(batch)
        at_once = max(1, _DECODED_AT_ONCE // len(mean))
        sums = []
        for first in range(0, draws, at_once):
            codes = _draw(mean, log_var, min(at_once, draws - first))
            errors = self._errors(codes, batch.image, condition)
            sums.append((gaussian_log_ratio(codes, mean, log_var) - errors).logsumexp(0))
        return torch.stack(sums).logsumexp(0) - math.log(draws)

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        return self.posterior(batch).mean

    def _errors(self, codes: Tensor, image: Tensor, condition: Tensor | None) -> Tensor:
        """Reconstruction errors of several codes per image: [N, B, Z] and [B, C, S, S] -> [N, B]."""
        count = len(codes)
        condition = None if condition is None else condition.repeat(count, 1)
        decoded = self.decoder(codes.flatten(0, 1), condition)
        return self.reconstruction(decoded, image.repeat(count, 1, 1, 1)).view(count, -1)


def _draw(mean: Tensor, log_var: Tensor, count: int) -> Tensor:
    """`count` codes for each image: [B, Z] twice -> [count, B, Z]."""
    noise = torch.randn(count, *mean.shape, device=mean.device, dtype=mean.dtype)
    return mean + (0.5 * log_var).exp() * noise


def _name(function: Callable[..., Any]) -> str:
    bare = getattr(function, "func", function)  # of a partial
    return getattr(bare, "__name__", type(bare).__name__)
