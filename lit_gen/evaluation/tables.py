"""A matrix of scores as text for a terminal and as a heat map."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_gen.metrics.task_matrix import final_mean, forgetting, is_lower_better

_PANELS_PER_ROW = 3
_INCHES = 3.4
_MOST_NUMBERS = 12  # tasks; more numbers than this are not legible in a panel


def format_matrix(title: str, matrix: Tensor, floor: Tensor | None = None) -> str:
    """A block of text: one line per row of the matrix, then the floor, mean and forgetting.

    Args:
        title: begins with the metric's name, which says whether less is better.
        matrix: [T, T], NaN where there is no score.
        floor: [T, T] of the same metric between real training and real test images; its last row is shown.
    """
    lower = is_lower_better(title.split(" ")[0])
    tasks = range(len(matrix))
    rows = [(f"after {i}", matrix[i]) for i in tasks if not matrix[i].isnan().all()]
    if floor is not None and not floor.isnan().all():
        scored = [i for i in tasks if not floor[i].isnan().all()]
        rows.append(("floor", floor[scored[-1]]))
    cells = [[_number(value) for value in row.tolist()] for _, row in rows]
    width = max([len(cell) for row in cells for cell in row] + [len(f"task {len(matrix) - 1}")])
    head = " " * 8 + "".join(f"  {f'task {j}':>{width}}" for j in tasks)
    lines = [f"{title}, {'lower' if lower else 'higher'} is better", head]
    for (name, _), row in zip(rows, cells, strict=True):
        lines.append(f"{name:<8}" + "".join(f"  {cell:>{width}}" for cell in row))
    lines.append(_in_words(matrix, lower))
    return "\n".join(line.rstrip() for line in lines)


def format_number(title: str, value: float, floor: float) -> str:
    """One line for a score that was not taken task by task; NaN is no floor."""
    which = "lower" if is_lower_better(title.split(" ")[0]) else "higher"
    beside = "" if math.isnan(floor) else f"floor {_number(floor)}, "
    return f"{title:<28} {_number(value):>8}   {beside}{which} is better"


def draw_matrices(matrices: Mapping[str, Tensor], path: Path) -> Tensor:
    """One heat map per title; good is dark, whichever way the metric counts. Written to `path` in one move.

    Returns:
        The picture, uint8 [H, W, 3].
    """
    # Not pyplot: it picks a window system when it is imported.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(len(matrices), _PANELS_PER_ROW)
    rows = math.ceil(len(matrices) / columns)
    figure = Figure(figsize=(_INCHES * columns, _INCHES * rows), layout="constrained", dpi=110)
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel in panels[len(matrices) :]:
        panel.axis("off")
    for panel, (title, matrix) in zip(panels, matrices.items(), strict=False):
        lower = is_lower_better(title.split(" ")[0])
        values = np.ma.masked_invalid(matrix.numpy())
        # Shares have their own scale; a distance is seen against the largest one.
        top = 1.0 if not lower else float(values.max()) if values.count() and values.max() > 0 else 1.0
        panel.imshow(values, cmap="viridis" if lower else "viridis_r", vmin=0, vmax=top)
        panel.set_title(f"{title}\n{_in_words(matrix, lower)}", fontsize=8)
        panel.set_xlabel("on task", fontsize=8)
        panel.set_ylabel("after task", fontsize=8)
        panel.set_xticks(range(len(matrix)))
        panel.set_yticks(range(len(matrix)))
        panel.tick_params(labelsize=7)
        if len(matrix) <= _MOST_NUMBERS:
            for (i, j), value in np.ma.ndenumerate(values):
                color = "white" if (value < top / 2) == lower else "black"
                text = _number(float(value))
                panel.text(j, i, text, ha="center", va="center", fontsize=7, color=color)
    canvas.draw()
    fresh = path.with_name(path.stem + ".tmp.png")
    figure.savefig(fresh)
    os.replace(fresh, path)
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _in_words(matrix: Tensor, lower: bool) -> str:
    lost = forgetting(matrix, lower)
    words = f"mean {_number(final_mean(matrix))}"
    return words if math.isnan(lost) else f"{words}, forgetting {_number(lost)}"


def _number(value: float) -> str:
    """Three digits that matter, no exponent for what scores are; a dash for NaN."""
    if math.isnan(value):
        return "-"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"
