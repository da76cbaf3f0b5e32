"""Our own questions to the store: SQL with bound values, rows as dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import typer
from clickhouse_connect.driver.exceptions import ClickHouseError

from ..runtime.process import complain
from ..runtime.reading import reading
from ..runtime.settings import Settings
from .running import told

CANNOT_READ = 2
"""Exit code where the store cannot be reached, or does not answer as it should."""

Row = dict[str, Any]
Ask = Callable[..., list[Row]]
"""``ask(sql, name=value, …)`` returns the rows of one query; values are bound to its ``{name:Type}``."""


@contextmanager
def asking(settings: Settings) -> Iterator[Ask]:
    """Open the store for reading as ``grantledger query`` does; times come back with their zone, UTC.

    Errors are told in one line and end the command with ``CANNOT_READ``.
    """
    with told(CANNOT_READ), reading(settings, gated=True) as client:

        def ask(sql: str, **values: object) -> list[Row]:
            found = client.query(sql, parameters=values)
            return [
                {name: _zoned(value) for name, value in zip(found.column_names, row, strict=True)}
                for row in found.result_rows
            ]

        try:
            yield ask
        except ClickHouseError as error:
            complain(_advice(str(error)))
            raise typer.Exit(CANNOT_READ) from error


def _zoned(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


def _advice(text: str) -> str:
    if "UNKNOWN_TABLE" in text or "Code: 60" in text:
        return "the store is one of an earlier version: start it once (`grantledger up` or `grantledger store`)"
    start = max(text.find("Code:"), 0)
    return text[start:].split("\n", 1)[0].partition(" (for url ")[0]
