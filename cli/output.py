"""The output of commands: lists and records as a table, JSON, CSV or YAML, in one time zone.

Senders choose the text in the ledger, so everything for people is escaped with `printable`: it must not control the
terminal. Programs get the text unchanged, in CSV too: a spreadsheet must import the columns as text.
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
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..base.errors import UsageError
from ..base.text import printable, printable_lines

WIDE = 180
"""Width of a table, in columns, where the output is not a terminal."""
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))

Row = Mapping[str, Any]


MAP_THEM = "the watch policy can map them: `[[environment]]`, docs/watch.md#policy"
"""What to do about resources without an environment."""


class Format(StrEnum):
    """How a command prints its result. ``wide`` is a table that shortens nothing."""

    table = "table"
    wide = "wide"
    json = "json"
    csv = "csv"
    yaml = "yaml"


FormatOption = Annotated[
    Format, typer.Option("-o", "--output", help="Output format; wide is a table that shortens nothing.")
]


def timezone(name: str) -> tzinfo:
    """Return the time zone with an IANA name, or the zone of this machine for ``local``."""
    if name.upper() == "UTC":
        return UTC
    if name == "local":
        return datetime.now().astimezone().tzinfo or UTC
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
        cell: makes the text of a cell from its row. The table escapes it.
        style: makes the style of a cell from its row.
        whole: keep the cell on one line where the terminal is wide enough.
        shrinks: where the cell is cut on a narrow terminal (:mod:`.shrinking`); empty: it is never cut.
    """

    title: str
    cell: Callable[[Row], str]
    style: Callable[[Row], str] = field(default=lambda _row: "")
    whole: bool = False
    right: bool = False
    shrinks: Literal["", "middle", "end"] = ""

    def shown(self, row: Row) -> str:
        """Return the text of a cell, escaped."""
        return printable(self.cell(row))


def text_column(title: str, name: str, *, shrinks: Literal["", "middle", "end"] = "") -> Column:
    """Return a column with the text of one field."""
    return Column(title, lambda row: "" if row[name] is None else str(row[name]), shrinks=shrinks)


@dataclass(frozen=True, slots=True)
class Output:
    """The format, time zone and verbosity that a command was given."""

    format: Format = Format.table
    zone: tzinfo = UTC
    quiet: bool = False

    @property
    def for_people(self) -> bool:
        """Whether the output is a table."""
        return self.format in (Format.table, Format.wide)

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
        show: Callable[[Console], None] | Sequence[Column],
        fields: Sequence[str] = (),
        empty: str = "",
    ) -> None:
        """Print a list.

        Args:
            identity: the field that names a row; ``-q`` prints only this field.
            show: the columns of the table, or a function that prints the rows for people.
            fields: the header of a CSV without rows.
            empty: the text for people when there are no rows.
        """
        if self.quiet:
            for row in rows:
                typer.echo(printable(str(row[identity])))
        elif not self.for_people:
            self.data([dict(row) for row in rows], fields)
        elif not rows:
            typer.echo(empty)
        elif callable(show):
            show(wide_console())
        else:
            print_table(wide_console(), rows, show)

    def record(self, record: Row, show: Callable[[Console], None], *, identity: str | None = None) -> None:
        """Print one object. ``-q`` prints only the field ``identity``, or nothing."""
        if self.quiet:
            if identity is not None:
                typer.echo(printable(str(record[identity])))
        elif self.for_people:
            show(wide_console())
        else:
            self.data([dict(record)] if self.format is Format.csv else dict(record))

    def note(self, text: str) -> None:
        """Print a note for people to standard error, so that it does not mix with the data."""
        if not self.quiet:
            echo(text, err=True)

    def data(self, value: Any, fields: Sequence[str] = ()) -> None:
        """Print a value as JSON or YAML, or a list of rows as CSV. ``fields`` is the header of a CSV without rows."""
        if self.format is Format.csv:
            typer.echo(self._csv(value, list(value[0]) if value else list(fields)), nl=False)
        elif self.format is Format.json:
            typer.echo(self._json(value, indent=2))
        else:
            import yaml

            typer.echo(yaml.safe_dump(json.loads(self._json(value)), sort_keys=False), nl=False)

    def _csv(self, rows: list[dict[str, Any]], names: list[str]) -> str:
        def cell(value: Any) -> Any:
            plain = json.loads(self._json(value))
            if isinstance(plain, dict | list):
                return json.dumps(plain)
            # A program gets the text unchanged.
            return printable(plain) if isinstance(plain, str) and sys.stdout.isatty() else plain

        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([cell(row[name]) for name in names] for row in rows)
        return text.getvalue()

    def _json(self, value: Any, indent: int | None = None) -> str:
        """Return JSON; times are in ISO 8601 in the time zone."""

        def text(other: Any) -> str:
            if isinstance(other, datetime) and other.tzinfo is not None:
                return other.astimezone(self.zone).isoformat()
            return other.isoformat() if isinstance(other, date) else str(other)

        return json.dumps(value, indent=indent, default=text)


def echo(text: str, *, err: bool = False) -> None:
    """Print text for people, which may quote the ledger or the file of another."""
    typer.echo(printable_lines(text), err=err)


def print_table(console: Console, rows: Sequence[Row], columns: Sequence[Column]) -> None:
    """Print a table. Long cells are folded, never cut."""
    table = Table(caption_justify="left")
    for column in columns:
        no_wrap = column.whole and console.width >= WIDE
        justify: Any = "right" if column.right else "left"
        table.add_column(column.title, overflow="fold", no_wrap=no_wrap, justify=justify)
    for row in rows:
        table.add_row(*(Text(column.shown(row), style=column.style(row)) for column in columns))
    console.print(table)


def print_fields(console: Console, fields: Mapping[str, str]) -> None:
    """Print one line for each field that has a value."""
    for name, text in fields.items():
        if text:
            console.print(Text(f"  {name:<9}{printable(text)}"), soft_wrap=True)


def shortened(text: str, length: int) -> str:
    """Return a printable text, cut to ``length`` characters."""
    shown = printable(text)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def moment(time: datetime, zone: tzinfo = UTC) -> str:
    """Return a time as ``2026-03-01 12:00:00``."""
    return time.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float) -> str:
    """Return a duration, rounded down: ``40 s``, ``12 min``, ``2 h 5 min``, ``3 d``."""
    whole = int(seconds)
    parts = []
    for size, unit in _UNITS:
        count, whole = divmod(whole, size)
        parts.append(f"{count} {unit}" if count else "")
    days, hours, minutes, short = parts
    if days or hours:
        return " ".join(part for part in ((days, hours) if days else (hours, minutes)) if part)
    return minutes or short or "0 s"


def wide_console() -> Console:
    """Return a console as wide as the terminal; without a terminal, wide enough for long names."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=max(WIDE, console.width))
