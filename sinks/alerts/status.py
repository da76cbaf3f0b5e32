"""Alert status for people and programs: channels, open alerts, and recent failures."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...base.errors import UsageError
from .database import OutboxError, connect
from .finding import SCOPE, from_text

MOST_FAILURES = 20


def read_status(path: Path, now: float) -> dict[str, Any]:
    """Return ``channels``, ``open``, ``failures`` and ``position``. Times are datetimes in UTC, ages in seconds.

    Raises:
        UsageError: the outbox does not exist.
        OutboxError: it cannot be read.
    """
    if not path.is_file():
        raise UsageError(f"there is no outbox {path}: has the alert process ever run here? (alert_outbox, --data)")
    try:
        with closing(connect(path, read_only=True)) as database:
            return {
                "channels": [_channel(database, row, now) for row in database.execute(_CHANNELS)],
                "open": [_finding(database, row) for row in database.execute(_OPEN)],
                "failures": [_failure(row) for row in database.execute(_FAILURES, (MOST_FAILURES,))],
                "position": _position(database),
            }
    except sqlite3.Error as error:
        raise OutboxError(f"the outbox {path} cannot be read: {error}") from error


_CHANNELS = """
SELECT c.name, c.kind, c.disabled_at, c.disabled_why, c.paused_until,
    (SELECT count(*) FROM messages WHERE channel = c.name AND state IN ('backlog', 'due')) AS pending,
    (SELECT min(created) FROM messages WHERE channel = c.name AND state IN ('backlog', 'due')) AS since,
    (SELECT count(*) FROM messages WHERE channel = c.name AND state = 'given_up') AS given_up,
    (SELECT max(at) FROM deliveries WHERE channel = c.name AND result = 'delivered') AS delivered
FROM channels c ORDER BY c.name"""
_OPEN = "SELECT number, opened, acknowledged FROM findings WHERE ended_at IS NULL ORDER BY number"
_FAILURES = (
    "SELECT at, channel, result, status, detail, messages FROM deliveries WHERE result != 'delivered' "
    "ORDER BY number DESC LIMIT ?"
)


def _channel(database: sqlite3.Connection, row: sqlite3.Row, now: float) -> dict[str, Any]:
    last = database.execute(
        "SELECT at, detail FROM deliveries WHERE channel = ? AND result != 'delivered' ORDER BY number DESC LIMIT 1",
        (row["name"],),
    ).fetchone()
    return {
        "name": row["name"],
        "kind": row["kind"],
        "state": "disabled" if row["disabled_at"] is not None else "paused" if row["paused_until"] > now else "ready",
        "disabled_at": _time(row["disabled_at"]),
        "disabled_why": row["disabled_why"],
        "pending": row["pending"],
        "oldest_pending_seconds": max(0.0, now - row["since"]) if row["since"] is not None else None,
        "given_up": row["given_up"],
        "last_delivery": _time(row["delivered"]),
        "last_failure": _time(last["at"]) if last is not None else None,
        "last_failure_detail": last["detail"] if last is not None else "",
    }


def _finding(database: sqlite3.Connection, row: sqlite3.Row) -> dict[str, Any]:
    opened = from_text(row["opened"])
    messages = database.execute(
        "SELECT channel, state, note FROM messages WHERE finding = ? ORDER BY number", (row["number"],)
    )
    acknowledged = from_text(row["acknowledged"]) if row["acknowledged"] else None
    return {
        "number": row["number"],
        "rule": opened.rule,
        "key": opened.key,
        "deadline": opened.deadline,
        **{name: opened.facts.get(name, "") for name in SCOPE},
        "severity": opened.severity,
        "opened_at": _time(opened.at / 1_000_000),
        "subject": opened.facts.get("subject", ""),
        "resource": opened.facts.get("resource", ""),
        "acknowledged_at": _time(acknowledged.at / 1_000_000) if acknowledged else None,
        "acknowledged_by": acknowledged.facts.get("actor", "") if acknowledged else "",
        "summary": opened.summary,
        "channels": {one["channel"]: {"state": one["state"], "note": one["note"]} for one in messages},
    }


def _failure(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "at": _time(row["at"]),
        "channel": row["channel"],
        "result": row["result"],
        "status": row["status"],
        "detail": row["detail"],
        "messages": json.loads(row["messages"]),
    }


def _position(database: sqlite3.Connection) -> dict[str, Any] | None:
    row = database.execute("SELECT next_offset, origin, size, caught_up FROM position").fetchone()
    return dict(row) | {"caught_up": bool(row["caught_up"])} if row is not None else None


def _time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
