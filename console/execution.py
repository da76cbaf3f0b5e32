"""Run one query on a handle of its own: gate, limits, and the result as pieces of bytes.

Each query opens a fresh handle on the engine that the owner holds open (0.2 ms, 3 ms with settings and gate) and
closes it after. So nothing of one query reaches the next: after an error the embedded engine would put what is left
of the failed answer in front of the next one on that handle.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import formats
from .errors import EngineError
from .gate import Gate

_SETTING_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
_POSITION = re.compile(r"failed at position (\d+)")


@dataclass(frozen=True)
class QueryLimits:
    """What one query may take; the defaults leave room for the owner's own inserts on two cores.

    The wall clock of `max_execution_seconds` runs while a client reads a streamed answer, too. `max_buffered_bytes`
    bounds, before formatting, answers in formats that are made in one piece (JSON, Parquet, Pretty…), which stand in
    memory several times. `nice` is the scheduling niceness of the query's threads: inserts go first.
    """

    max_execution_seconds: float = 300
    max_memory_bytes: int = 1 << 30
    max_result_rows: int = 50_000_000
    max_result_bytes: int = 16 << 30
    max_buffered_bytes: int = 64 << 20
    max_threads: int = 1
    nice: int = 10


@dataclass(frozen=True)
class Query:
    """What a client asks: the text, the format for a text that names none, values of `{name:Type}` substitutions (in
    ClickHouse's escaped form), the database for unqualified names, and settings to add to those of the limits."""

    sql: str
    default_format: str = "TabSeparated"
    parameters: Mapping[str, str] = field(default_factory=dict)
    database: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


class Handle:
    """A connection to the engine that this process holds on `path`, with the settings given; not for two threads."""

    def __init__(self, path: Path, database: str | None = None, settings: Mapping[str, str] | None = None) -> None:
        import chdb

        # The engine compares paths as text, and clickhouse-connect opens it by the real path.
        with _engine_errors():
            self._connection: Any = chdb.connect(str(path.resolve()))
        try:
            if database is not None:
                self.query("USE " + _quote_name(database), "TabSeparated")
            if settings:
                self.query("SET " + ", ".join(_assignment(*item) for item in settings.items()), "TabSeparated")
        except BaseException:
            self.close()
            raise

    def query(self, sql: str, output_format: str, parameters: Mapping[str, str] | None = None) -> bytes:
        """Run `sql` and return its whole answer; raises EngineError."""
        with _engine_errors():
            answer = self._connection.query(sql, output_format, params=dict(parameters or {}))
            data: bytes = answer.bytes() or b""
            return data

    def blocks(self, sql: str, output_format: str, parameters: Mapping[str, str]) -> Generator[bytes, None, None]:
        """Run `sql` and yield its answer block by block, each a complete document; raises EngineError."""
        with _engine_errors():
            stream = self._connection.send_query(sql, output_format, params=dict(parameters))
        try:
            while True:
                with _engine_errors():
                    block = stream.fetch()
                if block is None:
                    return
                yield block.bytes()
        finally:
            stream.close()

    def close(self) -> None:
        """Give the connection back; the engine stays open while the owner has another."""
        self._connection.close()


class Execution:
    """One query from its admission to the last byte of its answer.

    `open` admits it, `piece` gives the answer part by part, `close` ends it in every case; all three on one thread.
    """

    def __init__(self, path: Path, gate: Gate, limits: QueryLimits, query: Query, tag: str) -> None:
        """`tag` marks the running query in system.processes, so that it can be cancelled."""
        self._path = path
        self._gate = gate
        self._limits = limits
        self._query = query
        self._tag = tag
        self._parameters = dict(query.parameters)
        self._handle: Handle | None = None
        self._pieces: Generator[bytes, None, None] | None = None
        self.kind = ""
        self.format = ""

    def open(self) -> None:
        """Pass the gate and open the handle; afterwards `kind` and `format` say what runs.

        Raises QueryRefusedError and EngineError.
        """
        query, gate = self._query, self._gate
        default_format = formats.resolve(query.default_format)
        statement = gate.screen(query.sql)
        self.kind = statement.kind
        self.format = formats.resolve(statement.format) if statement.format else default_format
        # The engine streams SELECT only.
        joiner = formats.joiner(self.format) if self.kind == "SELECT" else None
        settings = settings_of(self._limits, buffered=joiner is None) | dict(query.settings)
        # readonly comes last: after it nothing can be set any more.
        settings |= {"log_comment": self._tag, "max_query_size": str(2 * gate.max_query_bytes), "readonly": "1"}
        handle = self._handle = Handle(self._path, query.database or gate.policy.databases[0], settings)
        gate.confirm(statement, self._parameters, _EngineParser(handle, self._parameters))
        self._pieces = self._answer(handle, statement.text, joiner)

    def piece(self) -> bytes | None:
        """The next part of the answer, which may be empty; None after the last. Raises EngineError."""
        if self._pieces is None:
            raise RuntimeError("the query has not been opened")
        return next(self._pieces, None)

    def close(self) -> None:
        """Give the handle back; a query that still runs is cancelled."""
        try:
            if self._pieces is not None:
                self._pieces.close()
        finally:
            if self._handle is not None:
                self._handle.close()

    def _answer(self, handle: Handle, sql: str, joiner: formats.Joiner | None) -> Generator[bytes, None, None]:
        if joiner is None:
            yield handle.query(sql, self.format, self._parameters)
            return
        with closing(handle.blocks(sql, formats.engine_format(self.format), self._parameters)) as blocks:
            empty = True
            for block in blocks:
                empty = False
                yield joiner.block(block)
        yield self._without_rows(handle, sql) if empty else joiner.finish()

    def _without_rows(self, handle: Handle, sql: str) -> bytes:
        # A stream without rows has no block, and so neither names nor types; asked in one piece, it has.
        if self.format != "Native":
            return handle.query(sql, self.format, self._parameters)
        meta = json.loads(handle.query(sql, "JSONCompact", self._parameters))["meta"]
        return formats.native_header([(column["name"], column["type"]) for column in meta])


class _EngineParser:
    """The engine's parser, asked over a handle that is read-only already."""

    def __init__(self, handle: Handle, parameters: Mapping[str, str]) -> None:
        self._handle = handle
        self._parameters = parameters

    def tree(self, text: str) -> list[str]:
        prefix = "EXPLAIN AST "
        try:
            return self._handle.query(prefix + text, "TSVRaw", self._parameters).decode().split("\n")
        except EngineError as error:
            # Positions are those in the text as it was sent, without the words in front of it.
            def place(found: re.Match[str]) -> str:
                return f"failed at position {max(1, int(found[1]) - len(prefix))}"

            raise EngineError(error.code, _POSITION.sub(place, error.message), error.name) from error

    def canonical(self, text: str) -> str:
        # As the value of a parameter the text is data: nothing of it can run.
        value = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
        return self._handle.query("SELECT formatQuerySingleLine({sql:String})", "TSVRaw", {"sql": value}).decode()


class Canceller:
    """Cancels running queries by their tag, over a handle of its own; may be used from any thread."""

    def __init__(self, path: Path) -> None:
        self._handle = Handle(path)
        self._lock = threading.Lock()

    def cancel(self, prefix: str) -> None:
        """Tell every running query whose tag starts with `prefix` to stop; returns before they have stopped."""
        with self._lock:
            self._handle.query(
                "KILL QUERY WHERE startsWith(Settings['log_comment'], {prefix:String}) ASYNC",
                "Null",
                {"prefix": prefix},
            )

    def ask(self, sql: str) -> list[str]:
        """Run a constant query of the endpoint's own and return the lines of its answer."""
        with self._lock:
            return self._handle.query(sql, "TSV").decode().split("\n")[:-1]

    def close(self) -> None:
        """Give the handle back."""
        with self._lock:
            self._handle.close()


def settings_of(limits: QueryLimits, *, buffered: bool) -> dict[str, str]:
    """The engine's settings for these limits; `buffered` for an answer that is made in one piece."""
    return {
        "max_execution_time": str(limits.max_execution_seconds),
        "max_memory_usage": str(limits.max_memory_bytes),
        "max_result_rows": str(limits.max_result_rows),
        "max_result_bytes": str(limits.max_buffered_bytes if buffered else limits.max_result_bytes),
        "result_overflow_mode": "throw",
        "timeout_overflow_mode": "throw",
        "max_threads": str(limits.max_threads),
        "os_threads_nice_value_query": str(limits.nice),
        # The embedded engine takes a bare expression for a query; the gate knows statements only.
        "implicit_select": "0",
        "allow_introspection_functions": "0",
    }


@contextmanager
def _engine_errors() -> Iterator[None]:
    """Turn what the embedded engine raises (RuntimeError and its kin) into EngineError."""
    try:
        yield
    except RuntimeError as error:
        raise EngineError.parse(str(error)) from error


def _assignment(name: str, value: str) -> str:
    if not _SETTING_NAME.fullmatch(name):
        raise ValueError(f"not a setting name: {name!r}")
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{name} = '{escaped}'"


def _quote_name(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
