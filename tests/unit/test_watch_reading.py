"""Real records, through adapters and sealed batches, to the findings of the watch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from grantledger.base.times import micros_of
from grantledger.ledger.batch import Head, Records, SealedBatch, decode, encode, seal
from grantledger.ledger.entry import NO_HEADERS, Genesis
from grantledger.processors.access import Access
from grantledger.processors.watch.core.facts import Decision
from grantledger.processors.watch.core.judge import Judge
from grantledger.processors.watch_policy import BUILT_IN
from grantledger.producers.adapters import Location, Skipped, make_adapter
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import LIFECYCLE_TOPIC, Actor, Approval, Event, EventSource, Resource, Subject
from support.decoded import facts_of
from support.small_ledger import SIGNER

CATALOG = SchemaCatalog((event_schema(),))
NOW = datetime(2026, 6, 1, tzinfo=UTC)
MS = micros_of(NOW) // 1000


def sealed(values: Iterable[bytes | None], flags: int = 1) -> SealedBatch:
    """A batch of values, each appended a second after the one before, as it comes out of Kafka."""
    values = list(values)
    count = len(values)
    times = [MS + 1000 * at for at in range(count)]
    records = Records([flags] * count, list(range(count)), times, [b"k"] * count, values, [NO_HEADERS] * count)
    head = Head.at_genesis(Genesis("d/access.lifecycle/0/0", bytes(16), 0))
    batch, _ = seal(head, records, count, NOW + timedelta(hours=9), SIGNER)
    return decode(encode(batch))


def event(**more: object) -> Event:
    made = Event(
        event_type="grant.activated",
        occurred_at=NOW,
        source=EventSource("emit", "test", "1", "grant"),
        subject=Subject("alice", "human"),
        actor=Actor("alice", "human"),
        resource=Resource("database", "orders", "production"),
        entitlement="admin",
        grant_id="g",
        grant_id_kind="native",
        expires_at=NOW + timedelta(hours=1),
        expiry_source="native",
    )
    return replace(made, **more)  # type: ignore[arg-type]


def test_fields_of_a_fact() -> None:
    approval = Approval("bob", "approved", forced=True)
    values = [EventEncoder().encode(event(approvals=(approval,), request_id="r")), None, b"\xc3\x01garbage"]
    [fact] = facts_of(sealed(values), CATALOG)
    assert (fact.index, fact.append, fact.occurred) == (0, MS * 1000, micros_of(NOW))
    assert fact.access == Access("default", "alice", "database", "orders", "admin")
    assert (fact.environment, fact.person, fact.grant_id, fact.request_id) == ("production", ("alice",), "g", "r")
    assert fact.decisions == (Decision("bob", "approved", forced=True),)
    assert fact.expires == micros_of(NOW + timedelta(hours=1))
    [timed_by_its_sender] = facts_of(sealed(values[:1], flags=0), CATALOG)
    assert timed_by_its_sender.append == micros_of(NOW + timedelta(hours=9))


def test_what_failed_or_was_denied_changes_nothing() -> None:
    revoked = {
        "event_type": "grant.revoked",
        "removal_evidence": "confirmed",
        "expires_at": None,
        "expiry_source": None,
    }
    events = [event(outcome="denied"), *(event(**revoked, outcome=one) for one in ("failure", "pending", "success"))]
    facts = list(facts_of(sealed(map(EventEncoder().encode, events)), CATALOG))
    assert [(one.event_type, one.removal) for one in facts[:1]] == [("grant.failed", "none")]
    assert facts[1].event_type == "grant.failed"
    assert [(one.event_type, one.removal) for one in facts[2:]] == [
        ("grant.revoked", "api_accepted"), ("grant.revoked", "confirmed"),
    ]  # fmt: skip


def test_decisions_of_requests_have_times_and_those_of_grants_may_repeat_them() -> None:
    undated = (Approval("bob", "approved"),)
    asked = event(event_type="request.approved", approvals=undated, request_id="r", grant_id=None, grant_id_kind=None)
    facts = list(facts_of(sealed(map(EventEncoder().encode, [asked, event(approvals=undated)])), CATALOG))
    assert [one.decisions[0].at for one in facts] == [micros_of(NOW), None]


def test_the_content_of_an_event_is_all_of_it_but_the_salt() -> None:
    first = event()
    again = replace(first, salt=bytes(16))
    other = replace(first, salt=bytes(16), reason="another")
    approved = replace(first, approvals=(Approval("bob", "approved"),))
    encoder = EventEncoder()
    facts = list(facts_of(sealed(encoder.encode(one) for one in (first, again, other, approved)), CATALOG))
    assert len({fact.event_id for fact in facts}) == 1
    assert facts[0].content == facts[1].content
    assert len({fact.content for fact in facts}) == 3
    [alone] = facts_of(sealed([encoder.encode(first)]), CATALOG)
    assert alone.content == facts[0].content, "whatever else is in the batch"


@pytest.mark.parametrize(
    ("tool", "file"),
    [
        ("teleport", "teleport/audit_fixtures.jsonl"),
        ("vault", "vault/audit.log"),
        ("hoop", "hoop/events.jsonl"),
        ("kubernetes", "kubernetes/audit.jsonl"),
    ],
)
def test_real_records_can_be_judged(samples: Path, tool: str, file: str) -> None:
    """Records from the tools' own tests are no complete lives; they only must not stop the watch."""
    adapter, encoder = make_adapter(tool), EventEncoder()
    events: list[Event] = []
    for number, line in enumerate((samples / file).read_bytes().splitlines(), 1):
        mapped = adapter.read(line, Location(file, number))
        if not isinstance(mapped, Skipped):
            events += [one for one in mapped if one.topic == LIFECYCLE_TOPIC]
    batch = sealed(map(encoder.encode, events))
    facts = list(facts_of(batch, CATALOG))
    assert len(facts) == len(events) > 0
    judge = Judge(BUILT_IN)
    for fact in facts:
        judge.add(fact)
    changes = judge.judge(MS * 1000 + 10 * 365 * 86_400_000_000)
    granted = {fact.grant_key for fact in facts if fact.event_type == "grant.activated"}
    assert granted == {name for name, grant in judge.state.grants.items() if grant.activations}
    found = Counter(change.finding.rule for change in changes if change.kind == "opened")
    if tool == "vault":  # its audit log says neither how long a lease runs nor that it ran out; the records are old
        assert set(found) == {"late_records"}
    if tool == "teleport":  # certificates end by themselves
        assert "overdue" not in found
