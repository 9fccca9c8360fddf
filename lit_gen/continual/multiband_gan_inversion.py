"""The noise behind an image: GAN inversion, for Multiband GAN.

Source: Deja et al. 2023, "Adapt & Align", arXiv:2312.13699, and the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lit_gen.core.processes import summed
from lit_gen.core.types import NonNegative, Positive, Task
from lit_gen.losses.reconstruction import squared_error


class FoundNoise(nn.Module):
    """The noise of a task's images, by their place in the task.

    Attributes:
        noise: float32 [num_images, noise_size].
        error: float32 [num_images], the `mean_squared_error` that was left.
    """

    def __init__(self, num_images: NonNegative, noise_size: Positive) -> None:
        super().__init__()
        self.register_buffer("noise", torch.zeros(num_images, noise_size))
        self.register_buffer("error", torch.zeros(num_images))

    def memory_bytes(self) -> dict[str, int]:
        return {"codes": sum(kept.nbytes for kept in self.buffers())}

    def forget(self, task: Task) -> None:
        """Before another task's images are looked at."""
        self.noise.zero_()
        self.error.zero_()

    def keep(self, place: Tensor, noise: Tensor, error: Tensor) -> None:
        """Takes over what was found since `forget`, on all processes.

        Args:
            place: int64 [B], no place twice over all calls and processes.
        """
        for kept, found in ((self.noise, noise), (self.error, error)):
            rows = torch.zeros_like(kept)
            rows[place] = found
            kept += summed(rows)


def mean_squared_error(image: Tensor, target: Tensor) -> Tensor:
    """Mean over pixels and channels of squared differences: [B, C, S, S] twice -> [B].

    Unit: (pixel range 2)^2 per pixel. A mean, unlike the house's sums, since it is published so.
    """
    return squared_error(image, target) / image[0].numel()


def find_noise(
    draw: Callable[[Tensor], Tensor], image: Tensor, noise: Tensor, num_steps: int, rate: float
) -> tuple[Tensor, Tensor]:
    """GAN inversion by Adam on `mean_squared_error`, every image on its own, in 32 bits.

    Args:
        draw: noise [B, Z] -> image [B, C, S, S].
        noise: where the search starts.
        rate: Adam's learning rate.

    Returns:
        Noise [B, Z], and the error that is left, [B].
    """
    with torch.enable_grad(), torch.autocast(image.device.type, enabled=False):
        noise = noise.detach().clone().requires_grad_(True)
        optimizer = torch.optim.Adam([noise], lr=rate)
        for _ in range(num_steps):
            # The sum over images, so that an image's search does not depend on the others.
            (noise.grad,) = torch.autograd.grad(mean_squared_error(draw(noise), image).sum(), noise)
            optimizer.step()
    with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
        return noise.detach(), mean_squared_error(draw(noise), image)
