"""Tables for narrow terminals: cells are cut, with an ellipsis, instead of wrapped."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .output import Column, Format, Output, Row, print_table

ELLIPSIS = "…"
LEAST = 13
"""Width to which a column may shrink."""
_GAP = 2


def width_of_table(rows: Sequence[Row], columns: Sequence[Column]) -> int:
    """Return the width of a table with borders in which no cell is wrapped."""
    return sum(_widths(rows, columns)) + 3 * len(columns) + 1


def print_whole(console: Console, output: Output, rows: Sequence[Row], columns: Sequence[Column]) -> bool:
    """Print a table in which no cell is wrapped; return False if the terminal is too narrow.

    ``-o wide`` and an output that is not a terminal are never too narrow.
    """
    width = width_of_table(rows, columns)
    if output.format is Format.wide or not console.is_terminal:
        console.size = max(console.width, width), console.height
    if console.width < width:
        return False
    print_table(console, rows, columns)
    return True


def print_shrunk(console: Console, rows: Sequence[Row], columns: Sequence[Column]) -> bool:
    """Print a table without borders whose cells are shortened to fit; return False if the terminal is too narrow."""
    widths = _widths(rows, columns)
    room = console.width - _GAP * (len(columns) - 1)
    while sum(widths) > room:
        shrinking = [at for at, column in enumerate(columns) if column.shrinks and widths[at] > LEAST]
        if not shrinking:
            return False
        widths[max(shrinking, key=lambda at: widths[at])] -= 1
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column.title, no_wrap=True, justify="right" if column.right else "left")
    for row in rows:
        cells = [_cut(column, column.shown(row), width) for column, width in zip(columns, widths, strict=True)]
        table.add_row(*(Text(cell, style=column.style(row)) for cell, column in zip(cells, columns, strict=True)))
    console.print(table)
    return True


def _cut(column: Column, text: str, width: int) -> str:
    if column.shrinks == "end" and cell_len(text) > width:
        return set_cell_size(text, width - 1).rstrip() + ELLIPSIS
    return shrunk(text, width)


def shrunk(text: str, width: int) -> str:
    """Return a text that is shortened in the middle to fit a width."""
    if cell_len(text) <= width:
        return text
    half = min(len(text) // 2, width)  # no more fits, and cutting one by one takes the square of the time
    head, tail = text[:half], text[len(text) - max(half, min(len(text) - half, width)) :]
    while cell_len(head) + cell_len(tail) + 1 > width:
        head, tail = (head[:-1], tail) if cell_len(head) > cell_len(tail) else (head, tail[1:])
    return head + ELLIPSIS + tail


def _widths(rows: Sequence[Row], columns: Sequence[Column]) -> list[int]:
    return [max(cell_len(column.title), *(cell_len(column.shown(row)) for row in rows)) for column in columns]
