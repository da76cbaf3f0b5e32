"""Times and members of JSON that anyone may have written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from grantledger.producers.event_json import event_from_json
from grantledger.producers.json_fields import Fields, Location, RecordError, parse_object
from support.cases import Cases

HERE = Location("records.jsonl", 7)


def time(value: Any) -> datetime | None:
    return Fields({"at": value}, HERE).time("at")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-01t12:00:00.5z", datetime(2026, 3, 1, 12, 0, 0, 500_000, UTC)),
        ("2026-03-01 12:00:00Z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T17:45:00+05:45", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T12:00:00.123456999Z", datetime(2026, 3, 1, 12, 0, 0, 123_456, UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2016-12-31t15:59:60.75-08:00", datetime(2017, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999Z", datetime.max.replace(tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", None),
    ],
)
def test_rfc_3339_times(text: str, expected: datetime | None) -> None:
    assert time(text) == expected


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("2026-03-01T12:00:00", "has no time zone"),
        ("2026-03-01T24:00:00Z", "hour 24"),
        ("2026-03-01T12:30:60Z", "second 60"),
        ("2026-03-01T12:61:00Z", "not an RFC 3339 time"),
        ("2026-02-30T12:00:00Z", "not an RFC 3339 time"),
        ("9999-12-31T23:59:60Z", "not an RFC 3339 time"),
        ("20260301T120000Z", "not an RFC 3339 time"),
        ("1795850000", "not an RFC 3339 time"),
        (1795850000, "must be an RFC 3339 time, is a number"),
        (1795850000.5, "must be an RFC 3339 time, is a number"),
        (True, "must be a string, is a boolean"),
        ("0000-01-01T00:00:00Z", "not an RFC 3339 time"),
        ("1969-12-31T23:59:59Z", "year 1969"),
    ],
)
def test_any_other_time_is_refused_by_name(value: Any, problem: str) -> None:
    with pytest.raises(RecordError, match=rf"^records.jsonl:7: at: .*{problem}"):
        time(value)


@pytest.mark.parametrize("record", [b'{"user": "a", "user": "b"}', b'{"x": [{"user": "a", "y": 1, "user": "a"}]}'])
def test_two_members_of_one_name_are_refused_and_named(record: bytes) -> None:
    with pytest.raises(RecordError, match="two members of the same name: 'user'"):
        parse_object(record, HERE)


def test_31_duplicate_members_of_a_record_are_named(cases: Cases) -> None:
    with pytest.raises(RecordError, match="two members of the same name: 'event', 'user'"):
        parse_object(cases.path("31").read_bytes(), HERE)


def test_29_times(cases: Cases) -> None:
    found: dict[str, str | None] = {}
    for line in cases.path("29").read_bytes().splitlines():
        record = parse_object(line, HERE)
        name = record.required_text("grant_id").split("-")[1]
        try:
            found[name] = f"{event_from_json(record).expires_at:%H:%M:%S.%f}"
        except RecordError as error:
            found[name] = error.field
    refused = {name for name, value in found.items() if value == "expires_at"}
    assert refused == {"naive", "epoch", "24h"}
    assert found["lower"] == found["nano"] == "06:15:34.558851"
