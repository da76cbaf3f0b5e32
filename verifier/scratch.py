"""What a verification remembers per anchor, in a temporary file: a ledger has an anchor every few seconds for years."""

from __future__ import annotations

import sqlite3
from collections import deque
from hashlib import sha256
from typing import Any

from ..ledger.anchor import Anchor

MOST = 1 << 63
"""Sizes and indices from here on cannot be stored. No log has so many entries; a forged anchor can claim it."""
ROWS = 1000
"""Rows read or written at a time."""
_WANT = "INSERT OR IGNORE INTO roots VALUES (?, ?, NULL)"
_SET = "UPDATE roots SET root = ? WHERE log = ? AND size = ?"
_ADD = "INSERT OR REPLACE INTO anchors VALUES (?, ?, ?)"


class Scratch:
    """The roots of logs at the sizes that are compared later, and the hashes of the anchors stored in the ledger.

    Its memory is constant. It is used on one thread. Open it with ``contextlib.closing``.

    Attributes:
        last_covered: the sizes that the last anchor stored in the ledger covers, by log.
    """

    def __init__(self) -> None:
        # A temporary database, which SQLite deletes when it is closed. One transaction that never ends: nothing is
        # ever synced, and nothing is rolled back.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE roots (log INTEGER, size INTEGER, root BLOB, PRIMARY KEY (log, size)) WITHOUT ROWID;"
            "CREATE TABLE anchors (log INTEGER, i INTEGER, hash BLOB, PRIMARY KEY (log, i)) WITHOUT ROWID; BEGIN"
        )
        self.last_covered: dict[str, int] = {}
        self._logs: dict[str, int] = {}
        self._last_wanted: dict[str, int] = {}
        self._waiting: dict[str, list[tuple[object, ...]]] = {_WANT: [], _SET: [], _ADD: []}
        """Rows to be written, by statement."""

    def close(self) -> None:
        """Delete the file."""
        self._database.close()

    def want(self, origin: str, size: int) -> None:
        """Keep the root of a log at this size once it is known."""
        if size < MOST and self._last_wanted.get(origin) != size:
            self._last_wanted[origin] = size
            self._write(_WANT, self._log(origin), size)

    def roots_of(self, origin: str) -> ScratchRoots:
        """Return the place for the roots of a log, after all wanted sizes are given."""
        return ScratchRoots(self, self._log(origin))

    def add_anchor(self, anchor: Anchor) -> None:
        """Remember an anchor that is stored in the ledger."""
        if anchor.index < MOST:
            self._write(_ADD, self._log(anchor.origin), anchor.index, _hash(anchor))

    def compare(self, anchor: Anchor) -> bool | None:
        """Return whether the anchor stored in the ledger in the same place is the same one; None if none is."""
        if anchor.origin not in self._logs or anchor.index >= MOST:
            return None
        self._flush(_ADD)
        where = (self._logs[anchor.origin], anchor.index)
        row = self._database.execute("SELECT hash FROM anchors WHERE log = ? AND i = ?", where).fetchone()
        return row[0] == _hash(anchor) if row is not None else None

    def set_root(self, log: int, size: int, root: bytes) -> None:
        """Set the root at a wanted size."""
        self._write(_SET, root, log, size)

    def query_roots(self, sql: str, *parameters: int) -> list[tuple[Any, ...]]:
        """Return the rows of a query of the table ``roots``."""
        self._flush(_WANT)
        self._flush(_SET)
        return self._database.execute(sql, parameters).fetchall()

    def _write(self, sql: str, *row: object) -> None:
        self._waiting[sql].append(row)
        if len(self._waiting[sql]) >= ROWS:
            self._flush(sql)

    def _flush(self, sql: str) -> None:
        if self._waiting[sql]:
            self._database.executemany(sql, self._waiting[sql])
            self._waiting[sql].clear()

    def _log(self, origin: str) -> int:
        return self._logs.setdefault(origin, len(self._logs))


class ScratchRoots:
    """The roots of one log by size. They are set in ascending order, and those at wanted sizes are kept."""

    def __init__(self, scratch: Scratch, log: int) -> None:
        self._scratch, self._log = scratch, log
        self._wanted: deque[int] = deque()
        """The next wanted sizes."""
        self._after: int | None = -1
        """The last wanted size that was read; None at their end."""
        self._asked: tuple[int, bytes | None] = (-1, None)
        """The last size that was asked for, and its root: an idle log has the same size in all anchors."""

    def __setitem__(self, size: int, root: bytes) -> None:
        while (wanted := self._next_wanted()) is not None and wanted < size:
            self._wanted.popleft()
        if wanted == size:
            self._scratch.set_root(self._log, size, root)

    def get(self, size: int) -> bytes | None:
        """Return the root at a size; None if no root was set there, or it was not wanted."""
        if size != self._asked[0]:
            sql = "SELECT root FROM roots WHERE log = ? AND size = ?"
            rows = self._scratch.query_roots(sql, self._log, size) if size < MOST else []
            self._asked = size, rows[0][0] if rows else None
        return self._asked[1]

    def _next_wanted(self) -> int | None:
        if not self._wanted and self._after is not None:
            sql = "SELECT size FROM roots WHERE log = ? AND size > ? ORDER BY size LIMIT ?"
            self._wanted.extend(row[0] for row in self._scratch.query_roots(sql, self._log, self._after, ROWS))
            self._after = self._wanted[-1] if self._wanted else None
        return self._wanted[0] if self._wanted else None


def _hash(anchor: Anchor) -> bytes:
    return sha256(repr(anchor).encode()).digest()
