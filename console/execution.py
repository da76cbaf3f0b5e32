"""Run one query: the gate, the limits, and the answer in the format that the client asked for.

Each query has its own connection (0.2 ms; 3 ms with settings and gate), so nothing of one query reaches the next. After
an error the embedded engine would put the rest of the failed answer in front of the next one on that connection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from . import formats, native
from .engine import EngineConnection
from .errors import EngineError
from .sql_gate import MAX_QUERY_BYTES, SqlGate

# Limits of one query, as settings of the engine. They leave room for the owner's own inserts on two cores. The time
# includes the time that a client takes to read the answer.
QUERY_LIMITS: Final[Mapping[str, str]] = {
    "max_execution_time": "300",
    "max_memory_usage": str(1 << 30),
    "max_result_rows": "50000000",
    "max_result_bytes": str(16 << 30),
    "result_overflow_mode": "throw",
    "timeout_overflow_mode": "throw",
    "max_threads": "1",
    # Inserts go first.
    "os_threads_nice_value_query": "10",
    # The embedded engine accepts a bare expression as a query; the gate admits statements only.
    "implicit_select": "0",
    "output_format_parallel_formatting": "0",
    "allow_introspection_functions": "0",
    "max_query_size": str(2 * MAX_QUERY_BYTES),
}


@dataclass(frozen=True)
class Query:
    """A request of a client.

    Attributes:
        sql: the text, one statement.
        default_format: the output format for a text that names none.
        parameters: values of `{name:Type}` substitutions, in ClickHouse's escaped form.
        settings: settings in addition to the limits.
        encoding: how the body of the answer is encoded (`encoders`); None for not at all.
    """

    sql: str
    default_format: str = formats.DEFAULT
    parameters: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None


@dataclass
class Execution:
    """One query on its way through gate and engine.

    Attributes:
        limits: settings for every query.
        tag: marks the query in system.processes, so that it can be cancelled.
        kind: SELECT, SHOW, DESCRIBE, EXPLAIN or EXISTS.
        format: the output format; like `kind` it is set before the first byte of the answer.
        rows: the number of rows of a SELECT, known at its end.
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
        """Admit the query, run it, and write its answer to the file descriptor `pipe`, which is closed at the end.

        Raises QueryRefusedError and EngineError; part of the answer may have been written by then.
        """
        parameters = self.query.parameters
        # readonly comes last: nothing can be set after it.
        settings = {**self.limits, **self.query.settings, "log_comment": self.tag, "readonly": "1"}
        with (
            open(pipe, "wb") as file,
            closing(EngineConnection(self.path, self.gate.policy.database, settings)) as connection,
        ):
            statement = self.gate.check(self.query.sql, parameters, _EngineParser(connection, parameters))
            self.kind = statement.kind
            self.format = formats.resolve(statement.format or self.query.default_format)
            if self.kind != "SELECT":
                # These answers are small. The engine would run EXPLAIN … INTO OUTFILE on the query inside.
                file.write(connection.query(statement.text, self.format, parameters))
                return
            self.rows = connection.write_answer(statement.text, self.format, parameters, pipe)
            if self.rows == 0 and self.format == formats.NATIVE:
                # The engine writes nothing, but clients want names and types.
                meta = json.loads(connection.query(statement.text, "JSONCompact", parameters))["meta"]
                file.write(native.empty_block((column["name"], column["type"]) for column in meta))


class _EngineParser:
    """The engine's own parser, over a connection that is already read-only."""

    def __init__(self, connection: EngineConnection, parameters: Mapping[str, str]) -> None:
        self._connection = connection
        self._parameters = parameters

    def canonical(self, text: str) -> str:
        # As the value of a parameter the text is data: nothing of it can run.
        value = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
        sql = "SELECT formatQuerySingleLine({sql:String})"
        try:
            return self._connection.query(sql, "TSVRaw", {"sql": value}).decode()
        except EngineError as error:
            # The engine adds the call of the function, which quotes the whole text.
            message = error.message.partition(": In scope SELECT formatQuery")[0]
            raise EngineError(error.code, message, error.name) from error

    def tree(self, text: str) -> list[str]:
        return self._connection.query(f"EXPLAIN AST {text}", "TSVRaw", self._parameters).decode().split("\n")
