"""Results as text for a terminal and as files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from lit_gen.cli.run_folder import write_atomically
from lit_gen.core.types import InputError

Rows = Sequence[Mapping[str, Any]]


def as_text(rows: Rows) -> str:
    """Aligned columns, names above them; a row without a value has a dash."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, *([_shown(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names))]
    is_text = [any(isinstance(row.get(name), str) for row in rows) for name in names]
    padded = [
        "  ".join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(line, widths, is_text, strict=True)
        )
        for line in lines
    ]
    return "\n".join(line.rstrip() for line in padded)


def as_csv(rows: Rows) -> str:
    """Every digit; the columns of all rows."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_json(values: Any) -> str:
    """Numbers that are none become null, since JSON has none of them."""
    return json.dumps(_plain(values), indent=1) + "\n"


def made_folder(key: str, folder: Path) -> Path:
    """The folder, made if it was not there.

    Raises:
        InputError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{key}={folder}: cannot be written ({error.strerror or error})") from error
    return folder


def write_text(file: Path, text: str) -> Path:
    """Written in one move."""
    write_atomically(file, text)
    return file


def write_picture(file: Path, image: Tensor) -> Path:
    """uint8 [H, W, 1 or 3], as a PNG, in one move."""
    pixels = image.numpy()
    fresh = file.with_name(f"{file.stem}.tmp.png")
    picture(pixels).save(fresh)
    fresh.replace(file)
    return file


def picture(pixels: np.ndarray) -> Image.Image:
    """uint8 [H, W, C]; one channel is grey."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {str(key): _plain(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    if isinstance(values, float) and not math.isfinite(values):
        return None
    return values if isinstance(values, str | int | float | bool | None) else str(values)
