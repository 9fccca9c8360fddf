"""Pictures: strips of images, and plots. All are uint8 [H, W, C]."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import pad

from lit_gen.core.files import replaced
from lit_gen.core.images import grid, to_uint8
from lit_gen.evaluation.tables import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEAST_WIDTH = 600  # pixels of a grid, whose images are enlarged by a whole number for it
_FONT = 14  # pixels
_DPI = 110
_MOST_NUMBERS = 12  # rows; more numbers than this are not legible in a heat map
_MOST_LABELS = 64  # bars; beyond these they have no names


def picture(image: Tensor | np.ndarray) -> Image.Image:
    """uint8 [H, W, C]; one channel is grey."""
    return Image.fromarray(np.asarray(image[:, :, 0] if image.shape[2] == 1 else image))


def write_picture(file: Path, image: Tensor) -> Path:
    """uint8 [H, W, C] as a PNG, in one move."""
    with replaced(file) as aside:
        picture(image).save(aside)
    return file


def cells(image: Tensor, columns: int | None = None) -> Tensor:
    """Images [B, C, S, S] in rows of so many, small ones enlarged; None: as square as it gets."""
    columns = columns or math.ceil(math.sqrt(len(image)))
    times = -(-_LEAST_WIDTH // (columns * image.shape[-1]))
    image = to_uint8(image).cpu().repeat_interleave(times, dim=-1).repeat_interleave(times, dim=-2)
    return grid(image, columns)


def strips(rows: Sequence[Tensor]) -> Tensor:
    """Rows of equally many images, [B, C, S, S] each, one below the other."""
    return cells(torch.cat([to_uint8(row).cpu() for row in rows]), len(rows[0]))


def named_rows(image: Tensor, names: Sequence[str]) -> Tensor:
    """A picture of equally high rows, [H, W, C], with their names left of it."""
    font = ImageFont.load_default(_FONT)
    names = [textwrap.fill(name, 16) for name in names]
    width = 2 * _FONT + max(int(font.getlength(line)) for name in names for line in name.splitlines())
    margin = Image.new("L", (width, len(image)), 255)
    draw = ImageDraw.Draw(margin)
    for number, name in enumerate(names):
        middle = (number + 0.5) * len(image) / len(names)
        draw.multiline_text((width - _FONT, middle), name, fill=0, font=font, anchor="rm", align="right")
    return torch.cat(
        [torch.from_numpy(np.array(margin))[:, :, None].expand(-1, -1, image.shape[2]), image], 1
    )


def below(top: Tensor, bottom: Tensor) -> Tensor:
    """Two pictures, one below the other, in the middle of white."""
    parts = [part.expand(-1, -1, 3) for part in (top, bottom)]
    width = max(part.shape[1] for part in parts)
    parts = [
        pad(part, (0, 0, (width - part.shape[1]) // 2, -(-(width - part.shape[1]) // 2)), value=255)
        for part in parts
    ]
    return torch.cat(parts)


def heat_maps(
    matrices: Mapping[str, tuple[Tensor, bool]],
    axis_names: tuple[str, str] = ("on task", "after task"),
    names: tuple[Sequence[str], Sequence[str]] | None = None,
) -> Tensor:
    """One panel per title for a matrix [R, C] and whether low numbers are good in it; good is dark.

    Args:
        axis_names, names: of the columns and of the rows; None: they have numbers.
    """
    rows, columns = next(iter(matrices.values()))[0].shape
    columns, rows = names or (range(columns), range(rows))
    figure, places = _panels(
        len(matrices), max(3.4, 1.6 + 0.42 * len(columns)), max(3.4, 1.4 + 0.32 * len(rows))
    )
    for axes, (title, (matrix, lower)) in zip(places, matrices.items(), strict=True):
        values = np.ma.masked_invalid(matrix.numpy())
        # Shares have their own scale; a distance is seen against the largest one.
        top = 1.0 if not lower else float(values.max()) if values.count() and values.max() > 0 else 1.0
        shown = axes.imshow(values, cmap="viridis" if lower else "viridis_r", vmin=0, vmax=top, aspect="auto")
        figure.colorbar(shown, ax=axes, fraction=0.05).ax.tick_params(labelsize=6)
        axes.set_title(title, fontsize=8)
        axes.set_xticks(range(len(columns)), columns, rotation=90 if names else 0)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xlabel(axis_names[0], fontsize=8)
        axes.set_ylabel(axis_names[1], fontsize=8)
        axes.tick_params(labelsize=7)
        for (i, j), value in np.ma.ndenumerate(values) if len(rows) <= _MOST_NUMBERS else ():
            color = "white" if (value < top / 2) == lower else "black"
            axes.text(j, i, short(float(value)), ha="center", va="center", fontsize=6, color=color)
    return _drawn(figure)


def scatter(
    place: Tensor,
    kind: Tensor,
    axis_names: tuple[str, str],
    names: Sequence[str] | None = None,
    title: str | None = None,
) -> Tensor:
    """Points [N, 2] coloured by their kind, int64 [N].

    Args:
        names: of the kinds 0, 1, ...; None: their numbers.
        title: of the list of kinds.
    """
    from matplotlib import colormaps

    figure, (axes,) = _panels(1)
    kinds = kind.unique().tolist()
    colours = colormaps["tab10" if len(kinds) <= 10 else "tab20"]
    size = max(4, 10_000 / (len(place) + 500))
    for number, each in enumerate(kinds):
        x, y = place[kind == each].T.numpy()
        colour, name = colours(number % colours.N), names[each] if names else each
        axes.scatter(x, y, s=size, alpha=0.6, linewidths=0, color=colour, label=name)
    axes.set(xlabel=axis_names[0], ylabel=axis_names[1])
    if len(kinds) <= 40:
        columns = 1 + (len(kinds) - 1) // 15
        axes.legend(title=title, fontsize=7, markerscale=3, ncols=columns)
    return _drawn(figure)


def histograms(values: Mapping[str, Tensor], axis_name: str, title: str) -> Tensor:
    """Several sets of numbers, each as its density over common bins; the long upper tail is cut off."""
    figure, (axes,) = _panels(1)
    every = torch.cat(list(values.values())).double()
    low, high = float(every.min()), float(every.quantile(0.995))
    bins = np.linspace(low, high if high > low else low + 1, 41)
    for name, some in values.items():
        axes.hist(some.clamp(max=high).numpy(), bins=bins, density=True, alpha=0.6, label=name)
    axes.set(xlabel=axis_name, ylabel="density")
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=8)
    return _drawn(figure)


def sorted_bars(
    values: Tensor, chosen: Tensor, names: tuple[str, str], axis_names: tuple[str, str], title: str
) -> Tensor:
    """Numbers [N] as bars, the largest first, each named by its place.

    Args:
        chosen: bool [N]; these have another colour.
        names: of the chosen and of the other ones.
    """
    figure, (axes,) = _panels(1, 6.5, 3.5)
    order = values.argsort(descending=True)
    is_chosen, heights, places = chosen[order].numpy(), values[order].numpy(), np.arange(len(order))
    for some, color, name in ((is_chosen, "tab:blue", names[0]), (~is_chosen, "tab:grey", names[1])):
        if some.any():
            axes.bar(places[some], heights[some], color=color, label=f"{name} ({some.sum()})")
    if len(order) <= _MOST_LABELS:
        axes.set_xticks(places, [str(number) for number in order.tolist()], fontsize=6, rotation=90)
    axes.set(xlabel=axis_names[0], ylabel=axis_names[1])
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=8)
    return _drawn(figure)


def bars(panels: Mapping[str, Mapping[str, tuple[float, float]]]) -> Tensor:
    """A panel per title with a bar per name: its length and its error, NaN where there is none."""
    most = max(map(len, panels.values()))
    figure, places = _panels(len(panels), 3.9, max(0.8 + 0.22 * most, 1.6))
    for axes, (title, lengths) in zip(places, panels.items(), strict=True):
        mean, error = np.array(list(lengths.values())).T
        heights = range(len(lengths))
        colours = [f"C{height % 10}" for height in heights]
        axes.barh(heights, mean, xerr=np.nan_to_num(error), color=colours, capsize=2)
        axes.set_yticks(heights, list(lengths), fontsize=7)
        axes.invert_yaxis()
        axes.tick_params(axis="x", labelsize=7)
        axes.set_title(title, fontsize=9)
    return _drawn(figure)


def lines(
    x_name: str,
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    log_y: bool = False,
    mark: float = math.nan,
    in_powers: bool = False,
) -> Tensor:
    """A panel per quantity with a line of points per name.

    Args:
        in_powers: the x axis goes by powers of two.
        mark: a place on the x axis; NaN is none.
    """
    figure, places = _panels(len(panels), 4.6, 3.8)
    for axes, (y_name, points) in zip(places, panels.items(), strict=True):
        for name, some in points.items():
            axes.plot(*zip(*some, strict=True), ".-", label=name)
        if not math.isnan(mark):
            axes.axvline(mark, color="grey", linestyle="--", label=f"{mark:.3g}")
        if log_y:
            axes.set_yscale("log")
        if in_powers:
            ticks = sorted({x for some in points.values() for x, _ in some})
            axes.set_xscale("log", base=2)
            axes.set_xticks(ticks, list(map(str, ticks)))
            axes.minorticks_off()
        axes.set(xlabel=x_name, ylabel=y_name)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return _drawn(figure)


def _panels(count: int, width: float = 5.5, height: float = 4.2) -> tuple[Figure, list[Axes]]:
    """A figure with panels of so many inches, at most three in a row."""
    # Not pyplot: it picks a window system when it is imported.
    from matplotlib.figure import Figure

    columns = min(3, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained", dpi=_DPI)
    places = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in places[count:]:
        axes.axis("off")
    return figure, list(places[:count])


def _drawn(figure: Figure) -> Tensor:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy())
