"""Tables of results: as text for a terminal, as Markdown, as CSV."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from torch import Tensor

Lines = Sequence[Mapping[str, Any]]


def as_text(lines: Lines, head: str = "") -> str:
    """Aligned columns, names above them; columns of words begin and columns of numbers end in line.

    Args:
        head: a line above the table.
    """
    cells = _frame(lines).map(_shown)
    names = [str(name) for name in cells.columns]
    rows = [names, *cells.values.tolist()]
    is_text = [not cells[name].map(_is_number).all() for name in cells.columns]
    widths = [max(len(row[place]) for row in rows) for place in range(len(names))]
    padded = [
        "  ".join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, is_text, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*([head] if head else []), *padded])


def as_markdown(lines: Lines) -> str:
    """The cells as they are."""
    frame = _frame(lines)
    rows = [list(frame.columns), *frame.values.tolist()]
    text = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([text[0], f"|{'---|' * len(frame.columns)}", *text[1:]])


def as_csv(lines: Lines | pd.DataFrame, missing: str = "") -> str:
    """Every digit; the columns of all lines.

    Args:
        missing: what stands for NaN and for a cell that is not there.
    """
    return _frame(lines).to_csv(index=False, lineterminator="\n", na_rep=missing)


def lines_of(**columns: Tensor | Iterable[float | int | str]) -> list[dict[str, float | int | str]]:
    """A line for each place in these columns."""
    plain = (each.tolist() if isinstance(each, Tensor) else each for each in columns.values())
    return [dict(zip(columns, line, strict=True)) for line in zip(*plain, strict=True)]


def short(value: float) -> str:
    """Three digits that matter, no exponent for what scores are; counts are whole; a dash for NaN."""
    if not math.isfinite(value):
        return "-"
    if value == round(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, 3 if abs(value) >= 0.1 else 5)}f}"


def _frame(lines: Lines | pd.DataFrame) -> pd.DataFrame:
    # As objects: a column with a gap in it would make floats of whole numbers.
    return lines if isinstance(lines, pd.DataFrame) else pd.DataFrame(list(lines), dtype=object)


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_number(text: str) -> bool:
    return text in ("-", "nan") or text.lstrip("-+").replace(",", "")[:1].isdigit()
