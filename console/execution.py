"""Run one query: the gate, the limits, and the answer in the format that the client asked for.

Each query has its own connection (0.2 ms; 3 ms with settings and gate), so nothing of one query reaches the next. After
an error the embedded engine would put the rest of the failed answer in front of the next one on that connection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from . import formats, native
from .engine import EngineConnection
from .errors import EngineError
from .sql_gate import SqlGate

_POSITION = re.compile(r"failed at position (\d+)")


@dataclass(frozen=True)
class QueryLimits:
    """Limits of one query; the defaults leave room for the owner's own inserts on two cores.

    The time limit includes the time that a client takes to read the answer. `nice` is the scheduling priority of the
    query's threads: inserts go first.
    """

    max_execution_seconds: float = 300
    max_memory_bytes: int = 1 << 30
    max_result_rows: int = 50_000_000
    max_result_bytes: int = 16 << 30
    max_threads: int = 1
    nice: int = 10

    def settings(self) -> dict[str, str]:
        """Return these limits as settings of the engine."""
        return {
            "max_execution_time": str(self.max_execution_seconds),
            "max_memory_usage": str(self.max_memory_bytes),
            "max_result_rows": str(self.max_result_rows),
            "max_result_bytes": str(self.max_result_bytes),
            "result_overflow_mode": "throw",
            "timeout_overflow_mode": "throw",
            "max_threads": str(self.max_threads),
            "os_threads_nice_value_query": str(self.nice),
            # The embedded engine accepts a bare expression as a query; the gate admits statements only.
            "implicit_select": "0",
            "output_format_parallel_formatting": "0",
            "allow_introspection_functions": "0",
        }


@dataclass(frozen=True)
class Query:
    """A request of a client.

    Attributes:
        sql: the text, one statement.
        default_format: the output format for a text that names none.
        parameters: values of `{name:Type}` substitutions, in ClickHouse's escaped form.
        database: the database for unqualified names; None is the first one of the policy.
        settings: settings in addition to the limits.
        compress: whether the answer is sent in compressed frames (`compress=1`).
    """

    sql: str
    default_format: str = formats.DEFAULT
    parameters: Mapping[str, str] = field(default_factory=dict)
    database: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    compress: bool = False


class Execution:
    """One query on its way through gate and engine.

    Attributes:
        kind: SELECT, SHOW, DESCRIBE, EXPLAIN or EXISTS.
        format: the output format; like `kind` it is set before the first byte of the answer.
        rows: the number of rows of a SELECT, known at its end.
    """

    def __init__(self, path: Path, gate: SqlGate, limits: QueryLimits, query: Query, tag: str) -> None:
        """`tag` marks the query in system.processes, so that it can be cancelled."""
        self._path = path
        self._gate = gate
        self._limits = limits
        self._query = query
        self._tag = tag
        self._parameters = dict(query.parameters)
        self.kind = ""
        self.format = ""
        self.rows: int | None = None

    def run(self, pipe: int) -> None:
        """Admit the query, run it, and write its answer to the file descriptor `pipe`, which is closed at the end.

        Raises QueryRefusedError and EngineError; part of the answer may have been written by then.
        """
        with open(pipe, "wb") as file:
            connection, sql = self._admit()
            with closing(connection):
                if self.kind != "SELECT":
                    # These answers are small. The engine would run EXPLAIN … INTO OUTFILE on the query inside.
                    file.write(connection.query(sql, self.format, self._parameters))
                    return
                self.rows = connection.write_answer(sql, self.format, self._parameters, pipe)
                if self.rows == 0 and self.format == formats.NATIVE:
                    # The engine writes nothing, but clients want names and types.
                    meta = json.loads(connection.query(sql, "JSONCompact", self._parameters))["meta"]
                    file.write(native.empty_block((column["name"], column["type"]) for column in meta))

    def _admit(self) -> tuple[EngineConnection, str]:
        """Return a read-only connection for the query and the statement to run on it."""
        query, gate = self._query, self._gate
        settings = self._limits.settings() | dict(query.settings)
        # readonly comes last: nothing can be set after it.
        settings |= {"log_comment": self._tag, "max_query_size": str(2 * gate.max_query_bytes), "readonly": "1"}
        connection = EngineConnection(self._path, query.database or gate.policy.databases[0], settings)
        try:
            statement = gate.check(query.sql, self._parameters, _EngineParser(connection, self._parameters))
            self.kind = statement.kind
            self.format = formats.resolve(statement.format or query.default_format)
        except BaseException:
            connection.close()
            raise
        return connection, statement.text


class _EngineParser:
    """The engine's own parser, over a connection that is already read-only."""

    def __init__(self, connection: EngineConnection, parameters: Mapping[str, str]) -> None:
        self._connection = connection
        self._parameters = parameters

    def tree(self, text: str) -> list[str]:
        prefix = "EXPLAIN AST "
        try:
            return self._connection.query(prefix + text, "TSVRaw", self._parameters).decode().split("\n")
        except EngineError as error:
            # Report positions in the text as the client sent it, without the prefix.
            def shift(found: re.Match[str]) -> str:
                return f"failed at position {max(1, int(found[1]) - len(prefix))}"

            raise EngineError(error.code, _POSITION.sub(shift, error.message), error.name) from error

    def canonical(self, text: str) -> str:
        # As the value of a parameter the text is data: nothing of it can run.
        value = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
        return self._connection.query("SELECT formatQuerySingleLine({sql:String})", "TSVRaw", {"sql": value}).decode()
