"""Alert status for people and programs: channels, open alerts, and recent failures."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...base.errors import UsageError
from .database import OutboxError, connect_outbox
from .finding import SCOPE, from_text

MOST_FAILURES = 20


def outbox_status(path: Path, now: float) -> dict[str, Any]:
    """Return ``channels``, ``open``, ``failures`` and ``position``. Times are datetimes in UTC, ages in seconds.

    Raises:
        UsageError: the outbox does not exist.
        OutboxError: it cannot be read.
    """
    if not path.is_file():
        raise UsageError(f"there is no outbox {path}: has the alert process ever run here? (alert_outbox, --data)")
    try:
        with closing(connect_outbox(path, read_only=True)) as database:
            return {
                "channels": [_plain(row) for row in database.execute(_CHANNELS, {"now": now})],
                "open": [_finding(database, row) for row in database.execute(_OPEN)],
                "failures": [
                    _plain(row) | {"messages": json.loads(row["messages"])}
                    for row in database.execute(_FAILURES, (MOST_FAILURES,))
                ],
                "position": _position(database),
            }
    except sqlite3.Error as error:
        raise OutboxError(f"the outbox {path} cannot be read: {error}") from error


_CHANNELS = """
SELECT c.name, c.kind,
    CASE WHEN c.disabled_at IS NOT NULL THEN 'disabled' WHEN c.paused_until > :now THEN 'paused' ELSE 'ready' END
        AS state,
    c.disabled_at, c.disabled_why,
    count(m.number) FILTER (WHERE m.state IN ('backlog', 'due')) AS pending,
    max(0.0, :now - min(m.created) FILTER (WHERE m.state IN ('backlog', 'due'))) AS oldest_pending_seconds,
    count(m.number) FILTER (WHERE m.state = 'given_up') AS given_up,
    (SELECT max(at) FROM deliveries WHERE channel = c.name AND result = 'delivered') AS last_delivery,
    f.at AS last_failure, coalesce(f.detail, '') AS last_failure_detail
FROM channels c
LEFT JOIN messages m ON m.channel = c.name
LEFT JOIN deliveries f ON f.number =
    (SELECT max(number) FROM deliveries WHERE channel = c.name AND result != 'delivered')
GROUP BY c.name ORDER BY c.name"""
_OPEN = "SELECT number, opened, acknowledged FROM findings WHERE ended_at IS NULL ORDER BY number"
_FAILURES = (
    "SELECT at, channel, result, status, detail, messages FROM deliveries WHERE result != 'delivered' "
    "ORDER BY number DESC LIMIT ?"
)
_TIMES = {"at", "disabled_at", "last_delivery", "last_failure"}


def _plain(row: sqlite3.Row) -> dict[str, Any]:
    return {name: _time(value) if name in _TIMES else value for name, value in dict(row).items()}


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


def _position(database: sqlite3.Connection) -> dict[str, Any] | None:
    row = database.execute("SELECT next_offset, origin, size, caught_up FROM position").fetchone()
    return dict(row) | {"caught_up": bool(row["caught_up"])} if row is not None else None


def _time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
