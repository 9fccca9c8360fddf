"""Images with their noise taken away: what a model with codes makes of a corrupted image.

Source: Vincent et al. 2008, "Extracting and composing robust features with denoising autoencoders".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from lit_gen.core.images import to_float, to_uint8
from lit_gen.core.random import Use
from lit_gen.core.types import Batch, Positive, Restores
from lit_gen.evaluation.context import Context, peak_ratio, pixel_error
from lit_gen.evaluation.tables import lines_of
from lit_gen.evaluation.uses.findings import Findings
from lit_gen.evaluation.uses.reconstruction import pairs_of_rows


@dataclass(frozen=True)
class Denoise:
    """Corrupted test images, or images of the user's, and their reconstructions.

    Attributes:
        corruption: of the test images; the user's are taken as they are.
        noise: standard deviation where the pixel range is 2, or the share of the pixels.
        n: test images at most.
        columns: of the grid, which shows the first four rows: clean, corrupted, denoised.
    """

    corruption: Literal["gaussian", "masking", "salt_and_pepper"] = "gaussian"
    noise: Annotated[float, Ge(0)] = 0.5
    n: Positive = 1000
    columns: Positive = 16

    def __call__(self, context: Context, corrupt: Callable[[Tensor], Tensor]) -> Findings:
        model, images = context.promised(Restores), context.images("test")

        def restored(batch: Batch) -> tuple[Tensor, ...]:
            noisy = corrupt(batch.image)
            return batch.image, noisy, model.reconstruct(batch._replace(image=noisy))

        places = context.choose(len(images), self.n)
        clean, noisy, image = context.ask(restored, images, places, Use.CORRUPTION)
        before, after = (float(pixel_error(each, clean).mean()) for each in (noisy, image))
        row = {
            "corruption": self.corruption,
            "noise": self.noise,
            "images": len(clean),
            "mse_before": before,
            "mse_after": after,
            "psnr_before": peak_ratio(before),
            "psnr_after": peak_ratio(after),
        }
        return Findings([row], picture=self._shown(clean, noisy, image))

    def given(self, context: Context, image: Tensor) -> Findings:
        """The user's images, uint8 [N, C, S, S] of the model's size; a model with a condition is told that
        neither label nor task is known.
        """
        model, device = context.promised(Restores), context.model.device

        def answer(block: Tensor) -> Tensor:
            unknown = torch.full((len(block),), -1, device=device)
            batch = Batch(to_float(image[block]).to(device), unknown, torch.zeros_like(unknown), unknown)
            return model.reconstruct(batch).cpu()

        restored = torch.cat(context.over_blocks(len(image), answer))
        change = pixel_error(restored, to_float(image))
        rows = lines_of(image=range(len(image)), change=change)
        table = [{"images": len(image), "mean_change": float(change.mean())}]
        return Findings(table, rows, self._shown(to_float(image), restored), to_uint8(restored))

    def _shown(self, *versions: Tensor) -> Tensor:
        return pairs_of_rows(tuple(each[: 4 * self.columns] for each in versions), self.columns)
