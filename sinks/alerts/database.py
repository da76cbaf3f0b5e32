"""The outbox file: SQLite, private to our user, durable at every commit, written by one process."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from ...base.errors import DependencyError
from ...base.files import lock_file
from ...base.sqlite import transaction

VERSION = 7
BUSY_SECONDS = 30.0
"""How long a writer waits for another: channels, the reader and the command line write to one file."""

_TABLES = """
CREATE TABLE position (
    -- The next offset to read, in one row. It moves in the transaction that stores the findings read before it.
    one INTEGER PRIMARY KEY CHECK (one = 1),
    topic_id TEXT NOT NULL,
    next_offset INTEGER NOT NULL,
    origin TEXT NOT NULL,        -- of the last batch
    size INTEGER NOT NULL,       -- entries read of that log
    caught_up INTEGER NOT NULL   -- whether the backlog of the first start has been read
) STRICT;
CREATE TABLE schemas (prefix BLOB PRIMARY KEY, text TEXT NOT NULL, in_force_ms INTEGER NOT NULL) STRICT;
CREATE TABLE policy (
    -- The watch policy on record, in one row: it maps other names of installations.
    one INTEGER PRIMARY KEY CHECK (one = 1),
    content BLOB NOT NULL
) STRICT;
CREATE TABLE events (
    -- Every event ever stored, to detect replays.
    replay_key TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE findings (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    identity TEXT NOT NULL,      -- JSON: rule, key, deadline, tenant, issuer
    rule_key TEXT NOT NULL,      -- JSON: rule, key, deadline
    rule TEXT NOT NULL,
    tool TEXT NOT NULL,          -- the source that issued the grant or session
    opened TEXT NOT NULL,        -- the finding as it opened, JSON
    appended REAL NOT NULL,      -- seconds since 1970, as all times below
    ended_at REAL,
    ending TEXT,                 -- resolved or closed
    acknowledged TEXT            -- the acknowledgement, JSON
) STRICT;
CREATE INDEX findings_by_identity ON findings (identity);
CREATE INDEX open_findings_by_key ON findings (rule_key) WHERE ended_at IS NULL;
CREATE UNIQUE INDEX one_open_finding ON findings (identity) WHERE ended_at IS NULL;
CREATE INDEX open_findings_by_tool ON findings (rule, tool) WHERE ended_at IS NULL;
CREATE TABLE storms (
    -- How many findings opened in an hour, and the finding that stands for them if they are too many.
    rule TEXT NOT NULL,
    tool TEXT NOT NULL,
    hour INTEGER NOT NULL,       -- hours since 1970
    count INTEGER NOT NULL,
    page INTEGER REFERENCES findings (number) ON DELETE CASCADE,
    PRIMARY KEY (rule, tool, hour)
) STRICT, WITHOUT ROWID;
CREATE TABLE messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,     -- the idempotency key
    channel TEXT NOT NULL,
    finding INTEGER NOT NULL REFERENCES findings (number),
    change TEXT NOT NULL,
    state TEXT NOT NULL,
    text TEXT NOT NULL,
    created REAL NOT NULL,
    send_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    refused_since REAL,
    posts_left INTEGER NOT NULL DEFAULT 1,
    first_delivered REAL,
    note TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX messages_waiting ON messages (channel, number) WHERE state IN ('backlog', 'due', 'repeating');
CREATE INDEX messages_of_finding ON messages (finding);
CREATE TABLE deliveries (
    -- Every exchange with a receiver, successful or not.
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    channel TEXT NOT NULL,
    messages TEXT NOT NULL,      -- JSON list of message ids
    result TEXT NOT NULL,
    status INTEGER,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX deliveries_of_channel ON deliveries (channel, number);
CREATE TABLE channels (
    name TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    failures INTEGER NOT NULL DEFAULT 0,
    paused_until REAL NOT NULL DEFAULT 0,
    disabled_at REAL,
    disabled_why TEXT NOT NULL DEFAULT ''
) STRICT;
"""


class OutboxError(DependencyError):
    """The outbox cannot be used. The message names its file and the remedy."""


def lock_outbox(path: Path) -> BinaryIO:
    """Make this process the only one that delivers, until the file is closed: two would deliver everything twice."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        return lock_file(path.with_name(path.name + ".lock"))
    except BlockingIOError:
        raise OutboxError(f"the outbox {path} is in use by another alert process") from None


def prepare(path: Path) -> None:
    """Create the outbox if it does not exist. An OutboxError reports a wrong version or file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Before SQLite opens it, because the files that SQLite creates beside it inherit its mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        path.chmod(0o600)
        with closing(connect_outbox(path)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            with transaction(database):
                found = database.execute("PRAGMA user_version").fetchone()[0]
                if found == 0:
                    for statement in _TABLES.split(";"):
                        if statement.strip():
                            database.execute(statement)
                    database.execute(f"PRAGMA user_version = {VERSION}")
                elif found != VERSION:
                    raise OutboxError(f"the outbox {path} has version {found}, this program needs version {VERSION}")
    except (OSError, sqlite3.Error) as error:
        raise OutboxError(f"the outbox {path} cannot be used: {error}") from error


def connect_outbox(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Return a connection for one thread. A statement outside :func:`transaction` commits immediately."""
    mode = "ro" if read_only else "rw"
    database = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=BUSY_SECONDS, isolation_level=None
    )
    database.row_factory = sqlite3.Row
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA foreign_keys = ON")
    return database
