"""``grantledger query``: SQL, read-only."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from clickhouse_connect.driver.exceptions import ClickHouseError

from ..runtime.process import complain
from ..runtime.reading import reading
from .running import settings_of, told


def command(
    context: typer.Context,
    sql: Annotated[str, typer.Argument(help="One statement that reads; - reads it from standard input.")],
    output_format: Annotated[
        str,
        typer.Option(
            "--format", help="Any of ClickHouse's formats: PrettyCompact, JSONEachRow, CSVWithNames, Parquet …"
        ),
    ] = "PrettyCompact",
) -> None:
    """Ask the store in SQL, while the pipeline runs and when it does not.

    Start with the views: events, rejected_events, grant_timeline, active_grants, checkpoints; DESCRIBE explains their
    columns. Only statements that read are taken.

    Exit codes: 0 answered, 1 ClickHouse refused or failed, 2 the store cannot be reached.
    """
    settings = settings_of(context)
    text = sys.stdin.read() if sql == "-" else sql
    with told(2), reading(settings, gated=True) as client:
        try:
            answer = client.raw_query(text, fmt=output_format)
        except ClickHouseError as error:
            complain(_plain(error))
            raise typer.Exit(1) from error
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()


def _plain(error: ClickHouseError) -> str:
    """Return ClickHouse's own words without the client's wrapping."""
    text = str(error).strip()
    start = text.find("Code:")
    return text[start if start > 0 else 0 :].split("\n", 1)[0].partition(" (for url ")[0]
