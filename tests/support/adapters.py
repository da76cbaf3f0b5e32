"""Reads single records with the adapters."""

from __future__ import annotations

import json
from typing import Any

from grantledger.producers.adapters import Location, Mapped, RecordError, Skipped, make_adapter
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import Event

HERE = Location("records.jsonl", 7)
Result = Mapped | Skipped
ENCODER = EventEncoder()


def read(tool: str, record: Any, **options: Any) -> Result:
    """Return the result of one record, given as JSON value."""
    return make_adapter(tool, **options).read(json.dumps(record).encode(), HERE)


def as_jsonlog(line: str, number: int) -> bytes:
    """Return a message of PostgreSQL, as psql shows it, as the server logs it. All but the message is made up."""
    severity, _, message = line.partition(":  ")
    record = {"timestamp": "2026-03-01 12:00:00.123 UTC", "user": "alice", "dbname": "regression", "pid": 7}
    record |= {"session_id": "69a42a40.7", "line_num": number, "error_severity": severity, "message": message}
    return json.dumps(record).encode()


def several(result: Result) -> Mapped:
    """Return the events of a mapped record."""
    assert not isinstance(result, Skipped), result
    return result


def one(result: Result) -> Event:
    """Return the only event of a mapped record."""
    (event,) = several(result)
    return event


def reason(result: Result) -> str:
    """Return the reason of a skipped record."""
    assert isinstance(result, Skipped), result
    return result.reason


def assert_maps_or_fails(tool: str, record: Any) -> None:
    """Check that any JSON value becomes valid events, is skipped, or raises RecordError with its location."""
    try:
        result = read(tool, record)
    except RecordError as error:
        assert error.location == HERE
        return
    for event in () if isinstance(result, Skipped) else result:
        ENCODER.encode(event)
        assert event.key.encode()
