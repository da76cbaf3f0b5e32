"""Connections to the embedded ClickHouse engine of this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from clickhouse_connect.driver.binding import format_str, quote_identifier

from .errors import EngineError


class EngineConnection:
    """A connection with its own current database and settings. Use it from one thread at a time, and close it.

    The owner of the data folder must keep the engine open. Opening a connection takes 0.2 ms.
    """

    def __init__(self, path: Path, database: str | None = None, settings: Mapping[str, str] | None = None) -> None:
        import chdb

        # The engine compares paths as text, and clickhouse-connect opens the real path.
        with _engine_errors():
            self._connection: Any = chdb.connect(str(path.resolve()))
        try:
            if database is not None:
                self.use(database)
            if settings:
                assignments = (f"{name} = {format_str(value)}" for name, value in settings.items())
                self.query(f"SET {', '.join(assignments)}", "Null")
        except BaseException:
            self.close()
            raise

    def use(self, database: str) -> None:
        """Make a database the current one. Raises EngineError."""
        self.query(f"USE {quote_identifier(database)}", "Null")

    def query(self, sql: str, output_format: str, parameters: Mapping[str, str] | None = None) -> bytes:
        """Run `sql` and return its complete answer. Raises EngineError."""
        data: bytes = self._run(sql, output_format, parameters or {}).bytes() or b""
        return data

    def lines(self, sql: str) -> list[str]:
        """Run a constant query and return the lines of its answer."""
        return self.query(sql, "TabSeparated").decode().split("\n")[:-1]

    def write_answer(self, sql: str, output_format: str, parameters: Mapping[str, str], pipe: int) -> int:
        """Run a SELECT, stream its answer to the file descriptor `pipe`, and return the number of rows.

        The engine waits while the pipe is full, and raises EngineError when the reading end is closed.
        """
        rows: int = self._run(
            f"{sql}\nINTO OUTFILE '/dev/fd/{pipe}' APPEND FORMAT {output_format}", output_format, parameters
        ).rows_read()
        return rows

    def close(self) -> None:
        """Close the connection; the engine stays open."""
        self._connection.close()

    def _run(self, sql: str, output_format: str, parameters: Mapping[str, str]) -> Any:
        with _engine_errors():
            return self._connection.query(sql, output_format, params=dict(parameters))


def cancel_queries(path: Path, tag: str) -> None:
    """Ask the engine to cancel every query whose tag starts with `tag`, without waiting for them to end."""
    with closing(EngineConnection(path)) as connection:
        sql = "KILL QUERY WHERE startsWith(Settings['log_comment'], {tag:String}) ASYNC"
        connection.query(sql, "Null", {"tag": tag})


@contextmanager
def _engine_errors() -> Iterator[None]:
    """Turn the RuntimeErrors of the embedded engine into EngineError."""
    try:
        yield
    except RuntimeError as error:
        raise EngineError.parse(str(error)) from error
