"""Our own client of the SQL endpoint: the rows that clickhouse-connect gives, bound values, and failures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from grantledger.console.client import AnswerError, EndpointClient
from support.sql_endpoint import LATE_FAILURE, Owner

KINDS = """
SELECT toUInt64(18446744073709551615) AS large, toInt32(-1) AS below, true AS yes, 1.5 AS part, toFloat64(2) AS two,
    'a''\\n\\t"ü' AS text, CAST(NULL, 'Nullable(String)') AS nothing,
    toDateTime64('2026-03-01 12:00:00.000001', 6, 'UTC') AS micros, toDateTime('2026-03-01 12:00:00', 'UTC') AS seconds,
    [toDateTime64('2026-03-01 12:00:00.5', 3, 'UTC')] AS times, map('a', toUInt64(1)) AS sizes,
    CAST(('bob', 1), 'Tuple(reviewer String, n UInt8)') AS named, (1, 'a') AS plain, toLowCardinality('low') AS low,
    CAST('x', 'Enum8(\\'x\\' = 1)') AS choice, toDate('2026-03-01') AS day, [] AS empty
"""


@pytest.fixture
def light(owner: Owner) -> EndpointClient:
    return EndpointClient(owner.address, owner.address.reader, "audit", 30)


def test_rows_are_those_of_clickhouse_connect(light: EndpointClient, client: Any) -> None:
    [expected] = client.query(KINDS, tz_mode="aware").named_results()
    [found] = light.ask(KINDS)
    assert found == expected
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in expected.items()
    }


def test_values_are_bound(light: EndpointClient) -> None:
    text = "a\tb'c\\d\ne\r\0ü{x:String}"
    values = {"text": text, "many": [text, "", "'"], "number": -5, "yes": True, "large": 2**63, "none": []}
    sql = (
        "SELECT {text:String} AS text, {many:Array(String)} AS many, {number:Int64} AS number, {yes:Bool} AS yes, "
        "{large:UInt64} AS large, {none:Array(String)} AS none"
    )
    assert light.ask(sql, **values) == [values]
    assert light.ask("SELECT number FROM numbers(3) WHERE number > 5") == []


def test_an_answer_in_a_format_comes_unchanged(light: EndpointClient) -> None:
    assert light.raw("SELECT id FROM events ORDER BY id LIMIT 2", "CSVWithNames") == b'"id"\n0\n1\n'


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT absent FROM events", r"^Code: 47\. DB::Exception: .*absent"),
        ("DROP TABLE events", r"^Code: \d+\. DB::Exception: "),
        (f"SELECT {LATE_FAILURE}, number FROM numbers(4000000)", r"^Code: 395\. DB::Exception: .*throwIf"),
    ],
)
def test_a_refusal_or_failure_has_the_message_of_clickhouse(light: EndpointClient, sql: str, message: str) -> None:
    with pytest.raises(AnswerError, match=message):
        light.raw(sql, "JSONEachRow")


def test_a_wrong_password_and_a_closed_port_are_errors(owner: Owner) -> None:
    wrong = replace(owner.address.reader, password="wrong")
    with pytest.raises(AnswerError, match="AUTHENTICATION_FAILED"):
        EndpointClient(owner.address, wrong, "audit", 30).ask("SELECT 1")
    with pytest.raises(OSError, match="refused"):
        EndpointClient(replace(owner.address, port=1), wrong, "audit", 30).ask("SELECT 1")
