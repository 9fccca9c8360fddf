"""Variational autoencoder, conditional if asked. Source: Kingma & Welling 2014, arXiv:1312.6114."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from lit_gen.core.module import LitGenerator
from lit_gen.core.types import Batch, Fraction, NonNegative, Positive, Terms
from lit_gen.losses.divergence import gaussian_kl
from lit_gen.losses.reconstruction import squared_error


class VAE(LitGenerator):
    """Gaussian prior and posterior; the decoder's output is the mean image.

    Args:
        encoder: image [B, C, S, S] and condition [B, K] or None -> [B, 2 * latent_size], mean and
            log-variance.
        decoder: code [B, latent_size] and condition -> image [B, C, S, S] in [-1, 1].
        condition: what both networks are told, as a one-hot vector (Sohn et al. 2015, "Learning structured
            output representation using deep conditional generative models").
        condition_size: K: number of tasks, number of classes, or 0.
        reconstruction: (image, target) -> one value per image.
        beta: weight of the KL term. Source of beta != 1: Higgins et al. 2017, "beta-VAE".
        warmup: part of the phase over which beta grows from 0; 0 means no warm-up.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_size: Positive,
        condition: Literal["none", "task", "label"] = "none",
        condition_size: NonNegative = 0,
        reconstruction: Callable[[Tensor, Tensor], Tensor] = squared_error,
        beta: Annotated[float, Ge(0)] = 1.0,
        warmup: Fraction = 0.0,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        if (condition == "none") != (condition_size == 0):
            raise ValueError(
                f"VAE: condition={condition!r} with condition_size={condition_size}; a condition needs the "
                "number of its values (condition=label needs data with labels), and condition=none needs 0"
            )
        self.encoder, self.decoder = encoder, decoder
        self.latent_size = latent_size
        self.condition, self.condition_size = condition, condition_size
        self.conditions = frozenset() if condition == "none" else frozenset({condition})
        self.reconstruction = reconstruction
        self.beta, self.warmup = beta, warmup

    def step(self, batch: Batch, progress: float) -> Terms:
        condition = self._one_hot(label=batch.label, task=batch.task)
        mean, log_var = self.encoder(batch.image, condition).chunk(2, dim=1)
        code = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        error = self.reconstruction(self.decoder(code, condition), batch.image).mean()
        kl = gaussian_kl(mean, log_var).mean()
        beta = self.beta * min(1.0, progress / self.warmup) if self.warmup else self.beta
        return {"loss": error + beta * kl, "reconstruction": error, "kl": kl}

    @torch.no_grad()
    def sample(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        self.refuse(label=label, task=task)
        return self.decode(torch.randn(n, self.latent_size, device=self.device), label=label, task=task)

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        return self.encoder(batch.image, self._one_hot(label=batch.label, task=batch.task)).chunk(2, dim=1)[0]

    @torch.no_grad()
    def decode(self, codes: Tensor, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        return self.decoder(codes, self._one_hot(label=label, task=task))

    @torch.no_grad()
    def reconstruct(self, batch: Batch) -> Tensor:
        return self.decode(self.encode(batch), label=batch.label, task=batch.task)

    def _one_hot(self, **conditions: Tensor | None) -> Tensor | None:
        """float32 [B, K] of the condition that this model takes; an unlabelled image (-1) gives zeros."""
        if self.condition == "none":
            return None
        value = conditions[self.condition].to(self.device)
        known = F.one_hot(value.clamp(min=0), self.condition_size).float()
        return known * (value >= 0).unsqueeze(1)
