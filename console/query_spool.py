"""The spool of the query log: statements of people, durable on disk until Kafka has acknowledged them.

A statement is on the spool before the first byte of its answer is sent. One process at a time uses the spool: the owner
of the store. A statement that was running when its process was killed is completed with the outcome `unknown`.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog

from ..base.errors import DependencyError
from ..base.sqlite import transaction
from ..base.times import EPOCH, micros_of
from .metrics import SPOOL_BYTES, SPOOL_STATEMENTS
from .person_statement import KILLED, Completion, PersonStatement, SpooledStatement

log = structlog.get_logger("grantledger.query_log")

VERSION: Final = 1
FILE: Final = "spool.sqlite3"
# With WAL and FULL, each commit is on disk when it returns.
_PRAGMAS: Final = (
    "journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", "temp_store = MEMORY",
    "journal_size_limit = 4194304",
)  # fmt: skip
_TABLES: Final = (
    "CREATE TABLE spool (id TEXT NOT NULL) STRICT",
    """CREATE TABLE statements (
        number INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again, so that a gap is a lost statement
        process TEXT NOT NULL,                    -- that received the statement
        salt BLOB NOT NULL,
        size INTEGER NOT NULL,
        received_us INTEGER NOT NULL,             -- since 1970
        user TEXT NOT NULL,
        text TEXT NOT NULL,
        parameters TEXT NOT NULL,                 -- JSON list
        truncated INTEGER NOT NULL,
        client_ip TEXT NOT NULL,
        completed INTEGER UNIQUE,                 -- order of completion; null while the statement runs
        outcome TEXT,
        rows INTEGER,
        duration_ms INTEGER,
        error TEXT
    ) STRICT""",
)
_COMPLETE: Final = (
    "UPDATE statements SET completed = (SELECT ifnull(max(completed), 0) + 1 FROM statements), "
    "outcome = ?, rows = ?, duration_ms = ?, error = ? WHERE number = ?"
)


class QuerySpoolError(DependencyError):
    """The spool cannot record a statement now. The message is for the person who sent it."""


class SpoolFullError(QuerySpoolError):
    """The spool has no room."""


class QuerySpool:
    """The spool in one folder. Threads may share it. It is opened by its first use, and again after an error.

    Args:
        folder: created if it is missing.
        most_statements, most_bytes: limits; `most_bytes` counts the content, not the file.
    """

    def __init__(self, folder: Path, most_statements: int, most_bytes: int) -> None:
        self._path, self._most_statements, self._most_bytes = folder / FILE, most_statements, most_bytes
        self._process = secrets.token_hex(8)
        self._changed = threading.Condition()
        self._woken = False
        self._database: sqlite3.Connection | None = None
        self._id = ""
        self._statements = self._bytes = self._completed = 0
        self._completions: dict[int, Completion] = {}
        """Completions that are not on disk yet."""

    def begin(self, statement: PersonStatement) -> int:
        """Record a statement durably, and return its number.

        Raises:
            SpoolFullError: a limit is reached.
            QuerySpoolError: the spool cannot be written.
        """
        size = statement.size
        with self._changed, self._open() as database:
            if self._statements >= self._most_statements or self._bytes + size > self._most_bytes:
                raise SpoolFullError(
                    f"the query log is full: {self._statements} statements wait for Kafka. Statements are accepted "
                    "again when Kafka has received them"
                )
            received, user, text, parameters, truncated, client_ip = astuple(statement)
            values = (
                self._process, secrets.token_bytes(16), size, micros_of(received), user, text,
                json.dumps(parameters), int(truncated), client_ip,
            )  # fmt: skip
            number = database.execute(
                "INSERT INTO statements (process, salt, size, received_us, user, text, parameters, truncated, "
                "client_ip) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            ).lastrowid
            self._count(self._statements + 1, self._bytes + size)
            return int(number or 0)

    def complete(self, number: int, completion: Completion) -> None:
        """Complete a statement. If that cannot be written now, it is written later."""
        with self._changed:
            self._completions[number] = completion
            with suppress(QuerySpoolError), self._open() as database:
                self._write_completions(database)

    def oldest(self, limit: int) -> list[SpooledStatement]:
        """Return the statements that were completed first, in this order. Raises QuerySpoolError."""
        with self._changed, self._open() as database:
            self._write_completions(database)
            rows = database.execute(
                "SELECT number, salt, received_us, user, text, parameters, truncated, client_ip, outcome, rows, "
                "duration_ms, error FROM statements WHERE completed IS NOT NULL ORDER BY completed LIMIT ?",
                (limit,),
            ).fetchall()
            return [self._read(*row) for row in rows]

    def remove(self, acknowledged: Sequence[SpooledStatement]) -> None:
        """Remove statements that Kafka has acknowledged. Raises QuerySpoolError."""
        with self._changed, self._open() as database:
            with transaction(database):
                database.executemany("DELETE FROM statements WHERE number = ?", [(one.number,) for one in acknowledged])
            self._recount(database)

    def wait(self, seconds: float) -> None:
        """Wait until a statement is complete, or `wake` is called, or the time has passed."""
        with self._changed:
            self._changed.wait_for(lambda: self._completed or self._woken, seconds)
            self._woken = False

    def wake(self) -> None:
        """End the current or the next `wait` of another thread."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self) -> None:
        """Close the file. What is on the spool stays there."""
        with self._changed:
            if self._completions:
                with suppress(QuerySpoolError), self._open() as database:
                    self._write_completions(database)
            self._disconnect()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Provide the connection; after an error, the next call opens the file again. Raises QuerySpoolError."""
        try:
            self._database = self._database or self._connect()
            yield self._database
        except (OSError, sqlite3.Error) as error:
            self._disconnect()
            log.error("query_spool_failed", file=str(self._path), reason=str(error))
            raise QuerySpoolError("the query log cannot be written; the log of the store has the reason") from error

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        # Before SQLite opens it, because the files that SQLite creates beside it inherit its mode.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        self._path.chmod(0o600)
        database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            for pragma in _PRAGMAS:
                database.execute(f"PRAGMA {pragma}")
            with transaction(database):
                self._prepare(database)
            self._id = database.execute("SELECT id FROM spool").fetchone()[0]
            self._recount(database)
        except BaseException:
            database.close()
            raise
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            for table in _TABLES:
                database.execute(table)
            database.execute("INSERT INTO spool VALUES (?)", (str(uuid.uuid4()),))
            database.execute(f"PRAGMA user_version = {VERSION}")
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"it has version {version}, this program needs version {VERSION}")
        killed = database.execute(
            "SELECT number FROM statements WHERE completed IS NULL AND process != ? ORDER BY number", (self._process,)
        ).fetchall()
        database.executemany(_COMPLETE, [(*astuple(KILLED), number) for (number,) in killed])

    def _write_completions(self, database: sqlite3.Connection) -> None:
        if not self._completions:
            return
        with transaction(database):
            values = [(*astuple(completion), number) for number, completion in self._completions.items()]
            database.executemany(_COMPLETE, values)
        self._completed += len(self._completions)
        self._completions.clear()
        self._changed.notify_all()

    def _read(self, number: int, salt: bytes, received_us: int, *columns: object) -> SpooledStatement:
        user, text, parameters, truncated, client_ip, *completion = columns
        statement = PersonStatement(
            EPOCH + timedelta(microseconds=received_us),
            str(user),
            str(text),
            tuple(json.loads(str(parameters))),
            bool(truncated),
            str(client_ip),
        )
        return SpooledStatement(self._id, number, salt, statement, Completion(*completion))  # type: ignore[arg-type]

    def _recount(self, database: sqlite3.Connection) -> None:
        statements, size, self._completed = database.execute(
            "SELECT count(*), ifnull(sum(size), 0), count(completed) FROM statements"
        ).fetchone()
        self._count(statements, size)

    def _count(self, statements: int, size: int) -> None:
        self._statements, self._bytes = statements, size
        SPOOL_STATEMENTS.set(statements)
        SPOOL_BYTES.set(size)

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
