"""The spool: records that Kafka has not acknowledged, durable in SQLite, in the order in which they were received."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from ...base.errors import DependencyError, UsageError
from ...base.files import lock_file
from ...base.sqlite import transaction
from ..kafka_record import KafkaRecord

VERSION: Final = 1
# With WAL and FULL, each commit is on disk when it returns.
_PRAGMAS: Final = ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", "journal_size_limit = 67108864")
_TABLE: Final = """CREATE TABLE records (
    seq INTEGER PRIMARY KEY,      -- in the order of the requests
    topic TEXT NOT NULL,          -- on the brokers
    partition INTEGER NOT NULL,   -- -1: the producer chooses it
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    headers TEXT NOT NULL,        -- JSON: a list of name and hex value
    size INTEGER NOT NULL
) STRICT"""


class SpoolError(DependencyError):
    """The spool cannot be used. The message names the file and the reason."""


class SpoolFile:
    """The file of the spool. One process uses it, and one thread each connection.

    Raises:
        UsageError: another process uses it.
        SpoolError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._lock = lock_file(path.with_name(f"{path.name}.lock"))
        except BlockingIOError:
            raise UsageError(f"another process uses the spool {path} (spool_file)") from None
        try:
            # Before SQLite opens it, because the files that SQLite creates beside it inherit its mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            path.chmod(0o600)
            with transaction(database := self._connect()):
                version = database.execute("PRAGMA user_version").fetchone()[0]
                if version == 0:
                    database.execute(_TABLE)
                    database.execute(f"PRAGMA user_version = {VERSION}")
                elif version != VERSION:
                    raise SpoolError(f"{path}: the spool has version {version}, this program needs {VERSION}")
            database.close()
        except (OSError, sqlite3.Error) as error:
            self._lock.close()
            raise SpoolError(f"{path}: the spool cannot be opened ({error})") from error

    def connect(self) -> SpoolConnection:
        """Return a connection for one thread."""
        return SpoolConnection(self._connect(), self.path)

    def close(self) -> None:
        """Let another process use the spool."""
        self._lock.close()

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, isolation_level=None, timeout=10.0, check_same_thread=False)
        for pragma in _PRAGMAS:
            database.execute(f"PRAGMA {pragma}")
        return database


class SpoolConnection:
    """Reads and writes the spool. Every method may raise SpoolError."""

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        self._database, self._path = database, path

    def state(self) -> tuple[int, int, int]:
        """Return the highest number, how many records there are, and their bytes."""
        try:
            last, count, size = self._database.execute(
                "SELECT ifnull(max(seq), 0), count(*), ifnull(sum(size), 0) FROM records"
            ).fetchone()
        except sqlite3.Error as error:
            raise self._failed(error) from error
        return last, count, size

    def change(self, written: Iterable[tuple[int, KafkaRecord]], removed: Iterable[int]) -> tuple[int, int]:
        """Write and remove records durably in one transaction; return how many were removed, and their bytes."""
        rows = [
            (seq, one.topic, one.partition, one.key, one.value,
             json.dumps([[name, value.hex()] for name, value in one.headers]), one.size)
            for seq, one in written
        ]  # fmt: skip
        try:
            with transaction(self._database):
                self._database.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
                sizes = [
                    size
                    for seq in removed
                    for (size,) in self._database.execute("DELETE FROM records WHERE seq = ? RETURNING size", (seq,))
                ]
        except sqlite3.Error as error:
            raise self._failed(error) from error
        return len(sizes), sum(sizes)

    def after(self, seq: int, limit: int) -> Sequence[tuple[int, KafkaRecord]]:
        """Return the first records after a number."""
        try:
            rows = self._database.execute(
                "SELECT seq, topic, key, value, partition, headers FROM records WHERE seq > ? ORDER BY seq LIMIT ?",
                (seq, limit),
            ).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from error
        return [
            (seq, KafkaRecord(topic, key, value, partition, _headers(headers)))
            for seq, topic, key, value, partition, headers in rows
        ]

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def _failed(self, error: sqlite3.Error) -> SpoolError:
        return SpoolError(f"{self._path}: the spool cannot be used ({error})")


def _headers(text: str) -> list[tuple[str, bytes]]:
    return [(name, bytes.fromhex(value)) for name, value in json.loads(text)]
