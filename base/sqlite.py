"""SQLite: one durable transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Commit the block as a whole, on disk when it ends, or not at all.

    Args:
        database: in autocommit mode (``isolation_level=None``), with ``PRAGMA synchronous = FULL``.
    """
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
