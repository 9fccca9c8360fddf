"""A pool of generated images, from which a critic is also shown older ones.

Source: Shrivastava et al. 2017, arXiv:1612.07828, section 2.3; used by Zhu et al. 2017, arXiv:1703.10593.
"""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor, nn

from lit_gen.core.types import NonNegative, Positive


class ImagePool(nn.Module):
    """Hands images [B, C, S, S] on, one after the other: while there is room a copy is kept; after that,
    with probability 1/2, a stored image is handed out instead and the new one takes its place.

    Each of several processes has a pool of its own until `share` is called.

    Args:
        size: images kept; 0 hands everything on as it is. Published is 50.
        channels: of the images.
        side: of the images, in pixels.
    """

    def __init__(self, size: NonNegative, channels: Positive, side: Positive) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(size, channels, side, side))
        self.register_buffer("num_filled", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """The result has no gradient."""
        if self.size == 0:
            return image.detach()
        filled = int(self.num_filled)
        room = min(self.size - filled, len(image))
        self.images[filled : filled + room] = image[:room].to(self.images.dtype)
        self.num_filled += room
        shown = image.detach().clone()
        # On the CPU on every device: whether a place is swapped is decided here, image after image.
        is_old = (torch.rand(len(image) - room) < 0.5).tolist()
        places = torch.randint(self.size, (len(image) - room,)).tolist()
        for number, (old, place) in enumerate(zip(is_old, places, strict=True), room):
            if old:
                shown[number] = self.images[place].to(shown.dtype)
                self.images[place] = image[number].to(self.images.dtype)
        return shown
