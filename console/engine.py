"""Connections to the embedded ClickHouse engine that this process holds open."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import EngineError

_SETTING_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")


class EngineConnection:
    """A connection with its own current database and settings. Use it from one thread at a time, and close it.

    The owner of the data folder must hold the engine open. A connection takes 0.2 ms to open.
    """

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
        """Run `sql` and return its complete answer. Raises EngineError."""
        data: bytes = self._run(sql, output_format, parameters or {}).bytes() or b""
        return data

    def write_answer(self, sql: str, output_format: str, parameters: Mapping[str, str], pipe: int) -> int:
        """Run a SELECT and let the engine write the answer to the file descriptor `pipe` as it produces it.

        The engine waits while the pipe is full, and fails when the reading end is closed.

        Returns the number of rows. Raises EngineError.
        """
        rows: int = self._run(
            f"{sql}\nINTO OUTFILE '/dev/fd/{pipe}' APPEND FORMAT {output_format}", output_format, parameters
        ).rows_read()
        return rows

    def _run(self, sql: str, output_format: str, parameters: Mapping[str, str]) -> Any:
        with _engine_errors():
            return self._connection.query(sql, output_format, params=dict(parameters))

    def close(self) -> None:
        """Close the connection; the engine stays open."""
        self._connection.close()


class ControlConnection:
    """The endpoint's own connection, without limits: cancels queries and reads facts about the engine. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._connection = EngineConnection(path)
        self._lock = threading.Lock()

    def cancel(self, tag: str) -> None:
        """Ask the engine to cancel every query whose tag starts with `tag`; do not wait until they have ended."""
        with self._lock:
            self._connection.query(
                "KILL QUERY WHERE startsWith(Settings['log_comment'], {tag:String}) ASYNC", "Null", {"tag": tag}
            )

    def lines(self, sql: str) -> list[str]:
        """Run a constant query and return the lines of its answer."""
        with self._lock:
            return self._connection.query(sql, "TabSeparated").decode().split("\n")[:-1]

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()


@contextmanager
def _engine_errors() -> Iterator[None]:
    """Turn the exceptions of the embedded engine (RuntimeError and its subclasses) into EngineError."""
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
