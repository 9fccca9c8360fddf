"""A run's scores as tags and as a note, for who looks through many runs."""

from __future__ import annotations

import math

from lit_gen.evaluation.board import FLOOR, Board, matrix_lines
from lit_gen.evaluation.tables import as_markdown, short
from lit_gen.tracking.names import COMPARED

_SHOWN = ("fid", "recall")
_LONGEST = 4000  # characters; a tag of MLflow holds 5000


def in_tags(board: Board) -> dict[str, str]:
    """`extractor` with the hash of its weights, `floor.<metric>.<extractor>` by task, and `scores`: the
    matrices of FID and recall with floors, in Markdown; as much of them as a tag holds.
    """
    rows = [row for after in board.rows.values() for row in after if row.extractor]
    extractors = dict.fromkeys(f"{row.extractor} {row.extractor_hash}".rstrip() for row in rows)
    tags = {"extractor": ", ".join(extractors)} if rows else {}
    for metric, extractor in board.kinds():
        if metric.startswith(FLOOR) and metric.removeprefix(FLOOR) in COMPARED:
            floors = board.matrix(metric, extractor)
            last = [row for row in floors.tolist() if not all(map(math.isnan, row))][-1:]
            tags |= {
                f"floor.{metric.removeprefix(FLOOR)}.{extractor}": ", ".join(map(short, r)) for r in last
            }
    texts = (_matrices(board, rows) for rows in (board.num_tasks, 1, 0))
    return tags | {"scores": next((text for text in texts if len(text) <= _LONGEST), "")}


def _matrices(board: Board, count: int) -> str:
    """With so many of the last rows of each matrix."""
    blocks = []
    for metric, extractor in board.kinds():
        if metric in _SHOWN and (measured := board.measured(metric, extractor)):
            matrix, floor = board.matrix(metric, extractor), board.matrix(FLOOR + metric, extractor)
            better = board.better.get(metric)
            blocks.append(f"**{metric}** ({extractor})" + (f", {better} is better" if better else ""))
            if count:
                blocks.append(as_markdown(matrix_lines(matrix, floor, measured[-count:])))
            blocks.append(board.in_words(metric, extractor))
    return "\n\n".join(blocks)
