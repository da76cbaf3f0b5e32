"""Rows of ClickHouse's JSON as Python values: each type, and the refusal of others."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from grantledger.console.json_rows import reader, rows

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("type_name", "sent", "value"),
    [
        ("String", "grüße\n", "grüße\n"),
        ("UInt64", 18446744073709551615, 18446744073709551615),
        ("Int8", -1, -1),
        ("Bool", True, True),
        ("Float64", 1, 1.0),
        ("Float64", "inf", float("inf")),
        ("Nullable(String)", None, None),
        ("LowCardinality(Nullable(String))", "a", "a"),
        ("Enum8('a,(' = 1, 'b' = 2)", "a,(", "a,("),
        ("DateTime", "2026-03-01 12:00:00", NOON),
        ("DateTime64(6, 'UTC')", "2026-03-01 12:00:00.000001", NOON.replace(microsecond=1)),
        ("DateTime64(3, 'Europe/Berlin')", "2026-03-01 13:00:00.000", NOON.astimezone(ZoneInfo("Europe/Berlin"))),
        ("Nullable(DateTime64(6, 'UTC'))", None, None),
        ("Date", "2026-03-01", date(2026, 3, 1)),
        ("UUID", "6f1c0b52-5a0e-5d7c-9c55-0b8f0e6d3a41", UUID("6f1c0b52-5a0e-5d7c-9c55-0b8f0e6d3a41")),
        ("Array(Array(UInt8))", [[1], []], [[1], []]),
        ("Array(Nullable(DateTime))", ["2026-03-01 12:00:00", None], [NOON, None]),
        ("Map(String, UInt64)", {"a": 1}, {"a": 1}),
        ("Tuple(UInt8, String)", [1, "a"], (1, "a")),
        ("Tuple(Nullable(UInt8), Array(String))", [None, ["a"]], (None, ["a"])),
        ("Tuple(reviewer String, at Nullable(DateTime))", {"reviewer": "a", "at": None}, {"reviewer": "a", "at": None}),
        ("Array(Tuple(`a b` String, n Map(String, UInt8)))", [{"a b": "x", "n": {}}], [{"a b": "x", "n": {}}]),
    ],
)
def test_a_value_is_read_by_its_type(type_name: str, sent: Any, value: Any) -> None:
    found = reader(type_name)(sent)
    assert found == value
    assert type(found) is type(value)
    assert getattr(found, "tzinfo", None) == getattr(value, "tzinfo", None)


def test_an_answer_becomes_rows_by_column() -> None:
    answer = {"meta": [{"name": "a", "type": "String"}, {"name": "b", "type": "UInt8"}], "data": [["x", 1], ["y", 2]]}
    assert rows(json.dumps(answer).encode()) == [{"a": "x", "b": 1}, {"a": "y", "b": 2}]


@pytest.mark.parametrize(
    "type_name", ["Decimal(9, 2)", "FixedString(32)", "Array(IPv6)", "JSON", "Variant(String, UInt8)"]
)
def test_a_type_that_is_not_known_is_refused(type_name: str) -> None:
    with pytest.raises(ValueError, match="cannot be read here"):
        reader(type_name)
