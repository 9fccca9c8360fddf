"""Pictures of findings: strips of images, and plots. All are uint8 [H, W, C]."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lit_gen.core.images import grid, to_uint8

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEAST_SIDE = 24  # pixels; smaller images are shown enlarged by a whole number
_DPI = 110


def strips(rows: Sequence[Tensor]) -> Tensor:
    """Rows of equally many images, [B, C, S, S] each, one below the other."""
    image = torch.cat([to_uint8(row).cpu() for row in rows])
    times = max(1, -(-_LEAST_SIDE // image.shape[-1]))
    image = image.repeat_interleave(times, dim=-1).repeat_interleave(times, dim=-2)
    return grid(image, len(rows[0]))


def plot(draw: Callable[[Axes], None], width: float = 5.5, height: float = 4.2) -> Tensor:
    """What `draw` puts into one panel of so many inches."""
    return panels([draw], width, height)


def panels(draws: Sequence[Callable[[Axes], None]], width: float, height: float, columns: int = 3) -> Tensor:
    """Several panels of so many inches each, in rows."""
    # Not pyplot: it picks a window system when it is imported.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(columns, len(draws))
    rows = -(-len(draws) // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained", dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    places = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in places[len(draws) :]:
        axes.axis("off")
    for draw, axes in zip(draws, places, strict=False):
        draw(axes)
    canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def scatter(place: Tensor, kind: Tensor, axis_names: tuple[str, str]) -> Tensor:
    """Points [N, 2] coloured by their class, int64 [N]."""

    def draw(axes: Axes) -> None:
        from matplotlib import colormaps

        kinds = kind.unique().tolist()
        colours = colormaps["tab10" if len(kinds) <= 10 else "tab20"]
        for number, each in enumerate(kinds):
            x, y = place[kind == each].T.numpy()
            axes.scatter(
                x,
                y,
                s=max(4, 10_000 / (len(place) + 500)),
                alpha=0.6,
                linewidths=0,
                color=colours(number % colours.N),
                label=each,
            )
        axes.set_xlabel(axis_names[0])
        axes.set_ylabel(axis_names[1])
        if len(kinds) <= 40:
            axes.legend(fontsize=7, markerscale=3, ncols=1 + (len(kinds) - 1) // 15)

    return plot(draw)


def histograms(values: Mapping[str, Tensor], axis_name: str, title: str) -> Tensor:
    """Several sets of numbers, each as its density over common bins; the long upper tail is cut off."""

    def draw(axes: Axes) -> None:
        every = torch.cat(list(values.values())).double()
        low, high = float(every.min()), float(every.quantile(0.995))
        bins = np.linspace(low, high if high > low else low + 1, 41)
        for name, some in values.items():
            axes.hist(some.clamp(max=high).numpy(), bins=bins, density=True, alpha=0.6, label=name)
        axes.set_xlabel(axis_name)
        axes.set_ylabel("density")
        axes.set_title(title, fontsize=9)
        axes.legend(fontsize=8)

    return plot(draw)
