"""Run one query: admit it, apply the limits, and write the answer in the requested format.

Each query has its own connection (0.2 ms; 3 ms with settings and checks): after an error, the embedded engine would
prepend the rest of the failed answer to the next answer on the same connection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..sinks.state_statements import LOOKUPS
from . import formats, native
from .engine import EngineConnection
from .errors import EngineError
from .sql_gate import MAX_QUERY_BYTES, SqlGate

# The limits of one query, as engine settings. The execution time
# includes the time that the client takes to read the answer.
QUERY_LIMITS: Final[Mapping[str, str]] = {
    "max_execution_time": "300",
    "max_memory_usage": str(1 << 30),
    "max_result_rows": "50000000",
    "max_result_bytes": str(16 << 30),
    "result_overflow_mode": "throw",
    "timeout_overflow_mode": "throw",
    "max_threads": "2",
    # Inserts have priority.
    "os_threads_nice_value_query": "10",
    # Otherwise the embedded engine accepts a bare expression as a query.
    "implicit_select": "0",
    "output_format_parallel_formatting": "0",
    "allow_introspection_functions": "0",
    # Sorting and grouping beyond the memory limit goes to disk.
    "max_temporary_data_on_disk_size_for_query": str(2 << 30),
    "max_query_size": str(2 * MAX_QUERY_BYTES),
    **LOOKUPS,
}


@dataclass(frozen=True)
class Query:
    """A query of a client.

    Attributes:
        default_format: the output format if the statement has no FORMAT clause.
        parameters: values of `{name:Type}` substitutions, in ClickHouse's escaped form.
        settings: in addition to the limits.
        encoding: of the answer's body (`encoders`); None for no encoding.
    """

    sql: str
    default_format: str = formats.DEFAULT
    parameters: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None


@dataclass
class Execution:
    """The execution of one query.

    Attributes:
        limits: settings for every query.
        tag: identifies the query in system.processes, so that it can be cancelled.
        kind, format: as in `Statement`; set before the first byte of the answer.
        rows: the number of rows of a SELECT; set at its end.
    """

    path: Path
    gate: SqlGate
    limits: Mapping[str, str]
    query: Query
    tag: str
    kind: str = ""
    format: str = ""
    rows: int | None = None

    def run(self, pipe: int) -> None:
        """Admit and run the query, write its answer to the file descriptor `pipe`, and close the pipe.

        Raises:
            QueryRefusedError, EngineError: part of the answer may have been written.
        """
        parameters = self.query.parameters
        # readonly is last: nothing can be set after it.
        settings = {**self.limits, **self.query.settings, "log_comment": self.tag, "readonly": "1"}
        with (
            open(pipe, "wb") as file,
            closing(EngineConnection(self.path, self.gate.policy.database, settings)) as connection,
        ):
            statement = self.gate.check(self.query.sql, parameters, _EngineParser(connection, parameters))
            self.kind = statement.kind
            self.format = formats.resolve(statement.format or self.query.default_format)
            if self.kind != "SELECT":
                # The engine would apply INTO OUTFILE to the query inside EXPLAIN. These answers are small.
                file.write(connection.query(statement.text, self.format, parameters))
                return
            self.rows = connection.write_answer(statement.text, self.format, parameters, pipe)
            if self.rows == 0 and self.format == formats.NATIVE:
                # The engine writes nothing, but clients need the names and types of the columns.
                meta = json.loads(connection.query(statement.text, "JSONCompact", parameters))["meta"]
                file.write(native.empty_block((column["name"], column["type"]) for column in meta))


class _EngineParser:
    """The engine's own parser, on a connection that is already read-only."""

    def __init__(self, connection: EngineConnection, parameters: Mapping[str, str]) -> None:
        self._connection = connection
        self._parameters = parameters

    def canonical(self, text: str) -> str:
        # As the value of a parameter, the text is data and cannot run.
        value = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
        sql = "SELECT formatQuerySingleLine({sql:String})"
        try:
            return self._connection.query(sql, "TSVRaw", {"sql": value}).decode()
        except EngineError as error:
            # The engine appends the call of the function, which quotes the whole text.
            message = error.message.partition(": In scope SELECT formatQuery")[0]
            raise EngineError(error.code, message, error.name) from error

    def tree(self, text: str) -> list[str]:
        return self._connection.query(f"EXPLAIN AST {text}", "TSVRaw", self._parameters).decode().split("\n")
