"""Values of the ledger on a terminal: nothing in them may steer it, times are UTC, distances are in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

WIDE = 180
"""Columns of a table where no terminal says how many there are."""
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def printable(text: str) -> str:
    r"""Return a text with every character that does not simply print written out: ESC as ``\x1b``.

    Senders choose what stands in the ledger. Control characters, line ends, marks of direction and invisible
    characters could move the cursor, hide a part or make it read as something else.
    """
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shortened(text: str, length: int) -> str:
    """Return :func:`printable` of a text, cut to so many characters."""
    shown = printable(text)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def moment(time: datetime) -> str:
    """Return a time as ``2026-03-01 12:00:00``, UTC."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float) -> str:
    """Return a length of time in words, rounded down: ``40 s``, ``12 min``, ``2 h 5 min``, ``3 d``."""
    whole = int(seconds)
    parts = []
    for size, unit in _UNITS:
        count, whole = divmod(whole, size)
        parts.append(f"{count} {unit}" if count else "")
    days, hours, minutes, short = parts
    if days or hours:
        return " ".join(part for part in ((days, hours) if days else (hours, minutes)) if part)
    return minutes or short or "0 s"


def wide_console(*, stderr: bool = False) -> Console:
    """Return a console for tables: as wide as the terminal; where there is none, wide enough for long names."""
    console = Console(highlight=False, stderr=stderr)
    return console if console.is_terminal else Console(highlight=False, stderr=stderr, width=max(WIDE, console.width))


def as_json(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """Return rows as JSON in ASCII, times in ISO 8601."""
    return json.dumps(value, indent=2, default=_plain)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
