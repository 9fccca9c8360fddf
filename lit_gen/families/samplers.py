"""Samplers of models that decode codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge
from torch import Tensor

from lit_gen.core.module import LitGenerator
from lit_gen.losses.likelihood import PixelLikelihood


@dataclass(frozen=True)
class LatentSampler:
    """Decodes what `sample_codes` draws; a lower temperature gives fewer and more typical images.

    Args:
        temperature: factor of codes from a prior around 0; of deviations from the means where codes come from
            a density that was fitted to them; 1 is the model's own way.
        pixels: "mean" gives the decoder's images, "draw" pixels from the likelihood around them: black or
            white ones of a Bernoulli likelihood, to be compared with black and white images.
    """

    temperature: Annotated[float, Ge(0)] = 1.0
    pixels: Literal["mean", "draw"] = "mean"

    def check(self, model: LitGenerator) -> None:
        if not hasattr(model, "sample_codes"):
            raise ValueError(f"{type(model).__name__} draws no codes; use sampler=default")
        if self.pixels == "draw" and not isinstance(getattr(model, "reconstruction", None), PixelLikelihood):
            raise ValueError(
                f"pixels=draw: this {type(model).__name__} has no likelihood of pixels; use pixels=mean, or "
                "train it with a module of lit_gen.losses.likelihood as its reconstruction, as vae_bernoulli "
                "and vae_gaussian do"
            )

    def __call__(
        self, model: LitGenerator, n: int, *, label: Tensor | None = None, task: Tensor | None = None
    ) -> Tensor:
        codes = model.sample_codes(n, self.temperature, label=label, task=task)
        image = model.decode(codes, label=label, task=task)
        return model.reconstruction.draw(image) if self.pixels == "draw" else image
