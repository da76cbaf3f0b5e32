"""Findings out of sealed entries, and the labels made of them: valid, bounded, and apart where they differ."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.ledger import batch as batches
from grantledger.producers import Event
from grantledger.schemas.catalog import SchemaCatalog
from grantledger.schemas.event import Finding
from grantledger.sinks.alerts.alertmanager import annotations_of, labels_of
from grantledger.sinks.alerts.finding import (
    EVIDENCE_LENGTH,
    LABEL_LENGTH,
    FindingEvent,
    from_text,
    label,
    message_id,
    rfc3339,
)
from grantledger.sinks.alerts.outbox import Position
from grantledger.sinks.alerts.reading import Read, SealedReader, starting_at
from grantledger.sinks.alerts.webhook import Webhook
from support.alerting import DEPLOYMENT, NOON, ORIGIN, FindingsLog, event, finding

NOWHERE = Position("00", 0)


def read(*values: Event | bytes | None, reader: SealedReader | None = None) -> Read:
    found = Read(NOWHERE)
    (reader or SealedReader(DEPLOYMENT, SchemaCatalog())).add(
        found, batches.encode(FindingsLog().batch(*values)), offset=0
    )
    return found


def test_a_finding_is_read_with_everything_that_an_alert_needs() -> None:
    found = read(event("opened", "g-1"))
    (one,) = found.findings
    assert (one.change, one.rule, one.key, one.severity) == ("opened", "overdue", "g-1", "critical")
    assert one.deadline == "2026-03-01T12:00:00.000000Z" and rfc3339(one.at) == one.deadline
    assert one.facts == {
        "deployment": DEPLOYMENT, "tenant": "default", "entry": f"{ORIGIN}#1", "subject": "alice@example.com",
        "resource": "orders", "resource_kind": "database", "environment": "production", "entitlement": "readwrite",
        "grant_id": "g-1", "evidence": {"removal": "not reported"},
    }  # fmt: skip
    assert labels_of(one) == {
        "alertname": "GrantledgerOverdue", "rule": "overdue", "severity": "critical", "key": "g-1",
        "deadline": one.deadline, "deployment": DEPLOYMENT, "tenant": "default", "subject": "alice@example.com",
        "resource": "orders", "resource_kind": "database", "environment": "production", "entitlement": "readwrite",
    }  # fmt: skip
    assert annotations_of(one)["summary"] == (
        "Access is past its deadline and no removal is on record: alice@example.com, readwrite orders "
        "(production), deadline 2026-03-01T12:00:00Z, key g-1"
    )
    assert from_text(one.as_text()) == one
    assert found.position == Position("00", 1, ORIGIN, 2) and len(found.schemas) == 1


def test_a_finding_older_than_its_schema_on_record_is_read_all_the_same() -> None:
    found = Read(NOWHERE)
    batch = FindingsLog(registered=False).batch(event("opened", "g-1"), b"\xc3\x01" + bytes(8) + b"unknown")
    SealedReader(DEPLOYMENT, SchemaCatalog()).add(found, batches.encode(batch), 0)
    assert ([one.key for one in found.findings], found.schemas, found.unreadable) == (["g-1"], [], 1)


def test_other_events_say_nothing_and_what_is_unreadable_is_counted() -> None:
    found = read(event("opened", "g-1"), b"no event", None, b"", event("resolved", "g-1"))
    assert [one.change for one in found.findings] == ["opened", "resolved"]
    assert found.unreadable == 2
    other = Read(NOWHERE)
    SealedReader("another.example", SchemaCatalog()).add(other, batches.encode(FindingsLog().batch()), 5)
    SealedReader(DEPLOYMENT, SchemaCatalog()).add(other, b"no batch", 6)
    assert (other.unreadable, other.position.next_offset, other.findings) == (2, 7, [])


def test_a_time_that_its_sender_set_counts_for_nothing() -> None:
    found = Read(NOWHERE)
    batch = FindingsLog().batch(event("opened", "g-1"), flags=0)
    late = replace(batch, sealed_at=NOON + timedelta(hours=1))
    SealedReader(DEPLOYMENT, SchemaCatalog()).add(found, batches.encode(late), 0)
    assert rfc3339(found.findings[0].appended) == "2026-03-01T13:00:00.000000Z"


def test_entries_that_kafka_lost_are_counted_and_reading_goes_on() -> None:
    log, reader, found = FindingsLog(), SealedReader(DEPLOYMENT, SchemaCatalog()), Read(NOWHERE)
    every = [log.batch(event("opened", f"g-{number}")) for number in range(4)]
    for offset in (0, 3, 3, 1):
        reader.add(found, batches.encode(every[offset]), offset)
    assert found.missed == 2
    assert [one.key for one in found.findings] == ["g-0", "g-3", "g-3", "g-1"]
    assert found.position.size == 5


def test_where_reading_goes_on() -> None:
    known = Position("aa", 10, ORIGIN, 7)
    assert starting_at(None, "aa", 3, 20) == Position("aa", 3)
    assert starting_at(known, "aa", 3, 20) == known
    assert starting_at(known, "aa", 15, 20) == replace(known, next_offset=15), "what is missing shows by its index"
    assert starting_at(known, "bb", 0, 20) == Position("bb", 0), "made anew"
    assert starting_at(known, "aa", 0, 9) == Position("aa", 0), "put back from an older copy"


def test_the_idempotency_key_is_made_of_the_finding_and_the_channel() -> None:
    one = finding("opened")
    assert message_id(one, "hook") == "2455ce98-9216-50d4-aaa9-79d684032149", "fixed for ever"
    others = [
        replace(one, rule="x"), replace(one, key="x"), replace(one, deadline=""), replace(one, event_id="x"),
        replace(one, change="resolved"),
    ]  # fmt: skip
    ids = [message_id(one, "hook"), message_id(one, "oncall"), *(message_id(other, "hook") for other in others)]
    assert len(set(ids)) == len(ids)
    assert message_id(replace(one, severity="info", facts={}), "hook") == ids[0]


@given(text=st.text())
def test_a_label_is_short_and_prints(text: str) -> None:
    shown = label(text)
    assert len(shown) <= LABEL_LENGTH and shown.isprintable()
    assert shown == text or shown != text.strip()


@given(start=st.text(min_size=LABEL_LENGTH, max_size=300), one=st.text(), other=st.text())
def test_long_labels_that_differ_stay_apart(start: str, one: str, other: str) -> None:
    assert (label(start + one) == label(start + other)) == (one == other)


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[31mb", "a\u202eb", "a\x00b"])
def test_what_does_not_print_is_replaced_and_told_apart(text: str) -> None:
    assert label(text).isprintable() and label(text) != label("a\N{REPLACEMENT CHARACTER}b")


@given(rule=st.text(min_size=1), key=st.text(), subject=st.text(), evidence=st.text(max_size=3 * EVIDENCE_LENGTH))
def test_an_alert_is_bounded_whatever_a_sender_wrote(rule: str, key: str, subject: str, evidence: str) -> None:
    one = FindingEvent(
        "e", "opened", rule, key, "", "critical", 0, 0, {"subject": subject, "evidence": {"x": evidence}}
    )
    for text in labels_of(one).values():
        assert 0 < len(text) <= LABEL_LENGTH
    for text in annotations_of(one).values():
        assert 0 < len(text) <= 2000 and text.isprintable()


@pytest.mark.parametrize("evidence", ["no json", "[1]", "[" * 100_000, '{"a": "' + "x" * 5000 + '"}'])
def test_evidence_that_is_no_small_object_is_kept_as_text(evidence: str) -> None:
    said = Finding("overdue", "g-1", "critical", NOON, evidence)
    (one,) = read(event("opened", "g-1", finding=said)).findings
    (text,) = one.facts["evidence"].values()
    assert evidence.startswith(text[:100]) and len(text) <= EVIDENCE_LENGTH


@pytest.mark.parametrize(
    "evidence", ['{"x": "\\ud800"}', '{"\\udc00": 1}', '{"x": NaN}', '{"x": 1e999}', '{"x":' * 600 + "1" + "}" * 600]
)
def test_evidence_that_neither_a_database_nor_json_can_hold_is_kept_as_text(evidence: str) -> None:
    said = Finding("overdue", "g-1", "critical", NOON, evidence)
    (one,) = read(event("opened", "g-1", finding=said)).findings
    assert one.facts["evidence"] == {"text": evidence}
    # What goes into the outbox, and on to a receiver that knows no NaN.
    assert from_text(one.as_text().encode().decode()) == one
    json.loads(Webhook.message(object(), one).encode(), parse_constant=pytest.fail)
