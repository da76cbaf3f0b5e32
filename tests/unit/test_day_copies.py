"""Copies of a simulated day for large stores: the patched bytes are those that our own encoder makes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from grantledger.base.times import micros_of
from grantledger.benchmarks.day_copies import DAY, DayCopies, Log, Sent, copied, suffix_of
from grantledger.benchmarks.simulated_store import simulated_day
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import EventEncoder, decode

BEGINS = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def sent() -> list[Sent]:
    found = simulated_day(40, 3, BEGINS)
    return [Sent(one.after + (DAY if at % 7 == 0 else 0 * DAY), one.event) for at, one in enumerate(found)]


def encoded(sent: list[Sent], number: int) -> list[tuple[int, bytes, bytes]]:
    """Return time, key and value of each record of a day, by the definition."""
    encoder, records = EventEncoder(), []
    for copy, first in ((number - 1, DAY), (number, 0 * DAY)):
        for after, event in sent:
            if copy >= 0 and first <= after < first + DAY:
                made = copied(event, copy * DAY, suffix_of(copy))
                time_ms = micros_of(BEGINS + copy * DAY + after) // 1000
                records.append((time_ms, made.key.encode(), encoder.encode(made)))
    return sorted(records)


def logs_of(copies: DayCopies, number: int) -> dict[Log, list[tuple[int, bytes, bytes]]]:
    rows = {log: copies.rows(log, number) for log in copies.logs}
    return {log: [one for part in parts for one in zip(*part, strict=True)] for log, parts in rows.items()}


@pytest.mark.parametrize("number", [0, 1, 250])
def test_the_records_of_a_day_are_what_the_encoder_makes_of_the_copied_events(sent: list[Sent], number: int) -> None:
    logs = logs_of(DayCopies(sent, BEGINS), number)
    assert sorted(one for records in logs.values() for one in records) == encoded(sent, number)


def test_each_log_is_in_order_and_each_id_stays_in_one_log(sent: list[Sent]) -> None:
    logs = logs_of(DayCopies(sent, BEGINS), 1)
    keys = [{key for _, key, _ in records} for records in logs.values()]
    assert len(logs) == 5
    assert all(records == sorted(records, key=lambda one: one[0]) for records in logs.values())
    activity = [one for log, one in zip(logs, keys, strict=True) if log[0] == "access.activity"]
    assert sum(map(len, activity)) == len(set().union(*activity))


def test_a_copy_decodes_to_its_own_ids_and_times(sent: list[Sent]) -> None:
    copies, catalog = DayCopies(sent, BEGINS), SchemaCatalog((event_schema(),))
    for records in logs_of(copies, 4).values():
        for time_ms, _, value in records:
            event = decode(value, catalog, time_ms)
            assert event["source"]["native_id"].endswith((".0004", ".0003"))
            assert (event["occurred_at"] - BEGINS) // DAY in (2, 3, 4)


def test_an_event_whose_text_looks_like_a_place_to_be_replaced_is_refused(sent: list[Sent]) -> None:
    after, event = sent[0]
    with pytest.raises(ValueError, match="4 times in a value, not 3 times"):
        DayCopies([Sent(after, replace(event, reason="see .~~~~ there"))], BEGINS)
