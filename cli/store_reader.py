"""How commands read the store: SQL with bound values, rows as dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from ..base.errors import EXIT_USAGE
from ..runtime.reading import reading
from ..runtime.settings import Settings
from .errors import exit_code, fail

Row = dict[str, Any]
Ask = Callable[..., list[Row]]
"""``ask(sql, name=value, …)`` returns the rows of one query; values are bound to its ``{name:Type}``."""


@contextmanager
def read_store(settings: Settings) -> Iterator[Ask]:
    """Open the store for reading, with the rights of ``grantledger query``; times are in UTC, with their zone.

    Ends the command with exit code 2 when the store cannot be read.
    """
    with exit_code(EXIT_USAGE), reading(settings, gated=True) as client:

        def ask(sql: str, **values: object) -> list[Row]:
            found = client.query(sql, parameters=values)
            return [
                {name: _with_zone(value) for name, value in zip(found.column_names, row, strict=True)}
                for row in found.result_rows
            ]

        try:
            yield ask
        except ClickHouseError as error:
            fail(_advice(str(error)))


def _with_zone(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


def _advice(text: str) -> str:
    if "UNKNOWN_TABLE" in text or "Code: 60" in text:
        return "an earlier version made this store; start it once to migrate it: `grantledger up`, or `run store`"
    start = max(text.find("Code:"), 0)
    return text[start:].split("\n", 1)[0].partition(" (for url ")[0]
