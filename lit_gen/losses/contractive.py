"""Squared Frobenius norm of the encoder's Jacobian, of each image: three ways to one number.

They are called as every penalty of an autoencoder is, with (code, image, encoder); `encoder` maps images to
codes, activation included. Unit: (code / pixel range 2)^2. Source: Rifai et al. 2011, "Contractive
auto-encoders", ICML.

The source ties the decoder's weights to the encoder's. Where they are free, a small encoder before a large
decoder contracts without having learned anything, which weight decay holds back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lit_gen.core.types import InputError, Positive


@dataclass(frozen=True)
class LayerContraction:
    """In closed form, for an encoder of one linear layer and a sigmoid: [B].

    sum_j (h_j (1 - h_j))^2 sum_i W_ji^2, which costs hardly more than the code.
    """

    def __call__(self, code: Tensor, image: Tensor, encoder: nn.Module) -> Tensor:
        parts = [part for part in encoder.modules() if not any(part.children())]
        if [type(part) for part in parts] != [nn.Linear, nn.Sigmoid]:
            found = ", ".join(type(part).__name__ for part in parts)
            raise InputError(
                f"model.penalty: LayerContraction is for one Linear and one Sigmoid; the encoder is {found}. "
                "Set model.encoder.hidden=[] and model.activation to torch.nn.Sigmoid, or take "
                "JacobianContraction"
            )
        slope = code * (1 - code)
        return slope.square() @ parts[0].weight.square().sum(1)


@dataclass(frozen=True)
class JacobianContraction:
    """Exact for any encoder, by one backward pass per number of the code: [B].

    Takes memory for Z batches of images. Where images of a batch see each other (batch norm in training),
    their cross terms are in it.
    """

    def __call__(self, code: Tensor, image: Tensor, encoder: nn.Module) -> Tensor:
        backward = _backward(encoder, image)
        units = torch.eye(code.shape[1]).to(code)[:, None].expand(-1, len(code), -1)  # [Z, B, Z]
        return torch.func.vmap(lambda unit: _squared_norm(backward(unit)))(units).sum(0)


@dataclass(frozen=True)
class HutchinsonContraction:
    """An unbiased estimate for any encoder: the mean squared norm of v^T J, with v random signs: [B].

    Args:
        num_probes: draws of v, one backward pass each.

    Source: Hutchinson 1990, "A stochastic estimator of the trace of the influence matrix", of tr(J J^T).
    """

    num_probes: Positive = 1

    def __call__(self, code: Tensor, image: Tensor, encoder: nn.Module) -> Tensor:
        backward = _backward(encoder, image)
        signs = torch.randint(2, (self.num_probes, *code.shape), device=code.device).to(code) * 2 - 1
        return sum(_squared_norm(backward(sign)) for sign in signs) / self.num_probes


def _backward(encoder: nn.Module, image: Tensor) -> Callable[[Tensor], Tensor]:
    """[B, Z] -> [B, C, S, S], the product with each image's Jacobian from the left; also under no_grad."""

    def encode(image: Tensor) -> Tensor:
        # Batch norm updates its buffers in place, which torch.func refuses; the step counted them.
        copies = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
        return torch.func.functional_call(encoder, copies, (image,))

    _, backward = torch.func.vjp(encode, image)
    return lambda cotangent: backward(cotangent)[0]


def _squared_norm(image: Tensor) -> Tensor:
    return image.square().flatten(1).sum(1)
