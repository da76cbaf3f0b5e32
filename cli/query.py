"""``grantledger query``."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from ..base.errors import EXIT_USAGE
from ..base.text import printable
from ..console.address import CredentialName
from ..console.client import AnswerError
from ..console.format_clause import split_format
from ..runtime.settings import Settings
from ..runtime.store_access import clickhouse_message, read_store
from .errors import exit_code, fail
from .lag_note import noting_lag
from .output import Format, FormatOption, Output

REFUSED = 1
_FORMATS = {Format.table: "PrettyCompact", Format.wide: "PrettyCompact", Format.csv: "CSVWithNames"}
"""ClickHouse draws tables around line ends in a cell, so that a cell cannot make a row of its own."""


def command(
    settings: Settings,
    sql: Annotated[str, typer.Argument(help="One statement that reads; - reads it from standard input.")],
    output_format: FormatOption = Format.table,
    native_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="Any of ClickHouse's formats in place of -o: JSONEachRow, TSV, Parquet …; the same as FORMAT in SQL.",
        ),
    ] = "",
    auditor: Annotated[
        bool, typer.Option("--auditor", help="Ask as an auditor, who can also read the view query_log.")
    ] = False,
) -> None:
    """Query the store in SQL, whether the pipeline runs or not.

    Start with the views events, rejected_events, grant_timeline, active_grants and checkpoints; DESCRIBE TABLE explains
    their columns. Only statements that read are accepted. ClickHouse prints times in UTC: use toTimeZone in the
    statement for another zone. The ledger records each statement; auditors read them in the view query_log.

    Exit codes: 0 answered; 1 ClickHouse refused or failed; 2 the store cannot be reached.
    """
    text = sys.stdin.read() if sql == "-" else sql
    if not text.strip():
        fail("there is no statement: give one, or - to read it from standard input")
    text, clause = split_format(text)
    native_format = native_format or clause or ""
    native = native_format or _FORMATS.get(output_format)
    role: CredentialName = "auditor" if auditor else "analyst"
    with noting_lag(settings), exit_code(EXIT_USAGE), read_store(settings, role=role) as reader:
        try:
            answer = reader.raw(text, native or "JSONEachRow")
        except AnswerError as error:
            fail(clickhouse_message(error), REFUSED)
    if native and (sys.stdout.isatty() or not (native_format or output_format is Format.csv)):
        print_for_people(answer, "\t" if native_format else " ")
    elif native:  # a program gets the bytes unchanged
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()
    else:
        Output(output_format).data([json.loads(line) for line in answer.splitlines()])


def print_for_people(answer: bytes, separator: str) -> None:
    """Print an answer of ClickHouse, which contains the text of senders as it is: line ends and separators stay."""
    text = answer.decode("utf-8", "replace").strip("\n")
    if not text:
        typer.echo("no rows", err=True)
        return
    for line in text.split("\n"):
        typer.echo(separator.join(map(printable, line.split(separator))))
