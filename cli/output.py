"""Everything that commands print: lists and records as a table, JSON, CSV or YAML, in one time zone.

Senders choose the text in the ledger, so nothing in it may control a terminal: tables show it through `printable`.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, tzinfo
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..base.errors import UsageError

WIDE = 180
"""Width of a table, in columns, where the output is not a terminal."""
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))

Row = Mapping[str, Any]


class Format(StrEnum):
    """How a command prints its result."""

    table = "table"
    json = "json"
    csv = "csv"
    yaml = "yaml"


def timezone(name: str) -> tzinfo:
    """Return the time zone with an IANA name, or the zone of this machine for ``local``.

    Raises:
        UsageError: there is no such zone.
    """
    if name.upper() == "UTC":
        return UTC
    if name == "local":
        local = datetime.now().astimezone().tzinfo
        return local or UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise UsageError(
            f"--tz: there is no time zone {printable(name)!r}; give an IANA name, for example Europe/Berlin, or local"
        ) from None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        cell: makes the text of a cell from its row. The text must be printable already.
        style: makes the style of a cell from its row.
        whole: keep the cell on one line where the terminal is wide enough.
    """

    title: str
    cell: Callable[[Row], str]
    style: Callable[[Row], str] = field(default=lambda _row: "")
    whole: bool = False
    right: bool = False


def text_column(title: str, name: str, length: int = 0) -> Column:
    """Return a column with the text of one field, cut to ``length`` characters unless that is 0."""

    def cell(row: Row) -> str:
        value = "" if row[name] is None else str(row[name])
        return shortened(value, length) if length else printable(value)

    return Column(title, cell)


@dataclass(frozen=True, slots=True)
class Output:
    """The format, time zone and verbosity that a command was given."""

    format: Format = Format.table
    zone: tzinfo = UTC
    quiet: bool = False

    @property
    def zone_name(self) -> str:
        """The name of the time zone, for headings."""
        return getattr(self.zone, "key", None) or datetime.now(self.zone).tzname() or "UTC"

    def moment(self, time: datetime | None) -> str:
        """Return a time as ``2026-03-01 12:00:00`` in the time zone; nothing for None."""
        return moment(time, self.zone) if time is not None else ""

    def rows(
        self,
        rows: Sequence[Row],
        *,
        identity: str,
        fields: Sequence[str],
        show: Callable[[Console], None] | Sequence[Column],
        empty: str,
    ) -> None:
        """Print a list.

        Args:
            identity: the field that names a row; ``-q`` prints this field only.
            fields: the header of a CSV without rows.
            show: the columns of the table, or a function that prints the rows for people.
            empty: what the table format prints when there are no rows.
        """
        if self.quiet:
            for row in rows:
                typer.echo(printable(str(row[identity])))
        elif self.format is not Format.table:
            self.data([dict(row) for row in rows], fields)
        elif not rows:
            typer.echo(empty)
        elif callable(show):
            show(wide_console())
        else:
            console = wide_console()
            console.print(table_of(rows, show, console.width))

    def record(self, record: Row, show: Callable[[Console], None], *, identity: str | None = None) -> None:
        """Print one object. ``-q`` prints the field ``identity`` only, or nothing."""
        if self.quiet:
            if identity is not None:
                typer.echo(printable(str(record[identity])))
        elif self.format is Format.table:
            show(wide_console())
        elif self.format is Format.csv:
            self.data([dict(record)])
        else:
            self.data(dict(record))

    def note(self, text: str) -> None:
        """Print a remark for people, to standard error, so that it never mixes with the data."""
        if not self.quiet:
            typer.echo(text, err=True)

    def data(self, value: Any, fields: Sequence[str] = ()) -> None:
        """Print a value as JSON or YAML, or a list of rows as CSV. ``fields`` is the header of a CSV without rows."""
        if self.format is Format.csv:
            typer.echo(self._csv(value, list(value[0]) if value else list(fields)), nl=False)
        elif self.format is Format.json:
            typer.echo(json.dumps(self._plain(value), indent=2))
        else:
            try:
                import yaml
            except ModuleNotFoundError:
                raise UsageError("-o yaml needs the package PyYAML: pip install pyyaml") from None
            typer.echo(yaml.safe_dump(self._plain(value), sort_keys=False, allow_unicode=False), nl=False)

    def _csv(self, rows: list[dict[str, Any]], names: list[str]) -> str:
        def shown(cell: Any) -> Any:  # a program gets the text as it is
            return printable(cell) if isinstance(cell, str) and sys.stdout.isatty() else cell

        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        for row in rows:
            cells = (self._plain(row[name]) for name in names)
            writer.writerow([json.dumps(cell) if isinstance(cell, dict | list) else shown(cell) for cell in cells])
        return text.getvalue()

    def _plain(self, value: Any) -> Any:
        """Return a value as JSON has it: times in ISO 8601 in the time zone."""
        if isinstance(value, Mapping):
            return {str(name): self._plain(item) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._plain(item) for item in value]
        if isinstance(value, datetime):
            return value.astimezone(self.zone).isoformat() if value.tzinfo is not None else value.isoformat()
        if value is None or isinstance(value, bool | int | float | str):
            return value
        return value.isoformat() if isinstance(value, date) else str(value)


def table_of(rows: Sequence[Row], columns: Sequence[Column], width: int = WIDE) -> Table:
    """Return a table. Long cells are folded, never cut."""
    table = Table(caption_justify="left")
    for column in columns:
        no_wrap = column.whole and width >= WIDE
        justify: Any = "right" if column.right else "left"
        table.add_column(column.title, overflow="fold", no_wrap=no_wrap, justify=justify)
    for row in rows:
        table.add_row(*(Text(column.cell(row), style=column.style(row)) for column in columns))
    return table


def printable(text: str) -> str:
    r"""Return a text with every character that does not print escaped: ESC as ``\x1b``.

    Control characters, line ends, direction marks and invisible characters could move the cursor, hide a part of the
    output or make it read as something else.
    """
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shortened(text: str, length: int) -> str:
    """Return :func:`printable` of a text, cut to ``length`` characters."""
    shown = printable(text)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def moment(time: datetime, zone: tzinfo = UTC) -> str:
    """Return a time as ``2026-03-01 12:00:00``."""
    return time.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float) -> str:
    """Return a duration in words, rounded down: ``40 s``, ``12 min``, ``2 h 5 min``, ``3 d``."""
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
    """Return a console as wide as the terminal; where there is none, wide enough for long names."""
    console = Console(highlight=False, stderr=stderr)
    return console if console.is_terminal else Console(highlight=False, stderr=stderr, width=max(WIDE, console.width))


def is_interactive() -> bool:
    """Return whether a person sees the progress on standard error."""
    return sys.stderr.isatty()
