"""The watch with events of the Kubernetes adapter: bindings end by their deletion, tokens by themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from grantledger.base.times import micros_of
from grantledger.ledger.batch import Head, Records, decode, encode, seal
from grantledger.ledger.entry import NO_HEADERS, Genesis
from grantledger.processors.watch.core.commands import COMMANDS
from grantledger.processors.watch.core.facts import Fact
from grantledger.processors.watch.core.judge import Judge
from grantledger.processors.watch_policy import BUILT_IN, AccessRule, WatchPolicy
from grantledger.producers.adapters import Adapter, Skipped, make_adapter
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import LIFECYCLE_TOPIC, Event
from support.adapters import HERE
from support.decoded import facts_of
from support.kubernetes import binding, request, stream
from support.small_ledger import SIGNER

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
POLICY = WatchPolicy(rule=(*BUILT_IN.rule, AccessRule(source="kubernetes", max_seconds=3600)))


def at(minute: int, record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of a minute after noon."""
    began = NOON + timedelta(minutes=minute)
    times = {"requestReceivedTimestamp": began, "stageTimestamp": began + timedelta(milliseconds=200)}
    return {**record, "auditID": f"a{minute}", **{name: time.isoformat() for name, time in times.items()}}


def created(*subjects: str) -> dict[str, Any]:
    return at(0, request("create", "shop:rolebindings/b", 201, answer=binding(*subjects)))


def updated(*subjects: str) -> dict[str, Any]:
    return at(10, request("update", "shop:rolebindings/b", answer=binding(*subjects)))


def deleted() -> dict[str, Any]:
    return at(50, request("delete", "shop:rolebindings/b", answer={"kind": "Status"}))


def events_of(records: Iterable[dict[str, Any]], adapter: Adapter | None = None) -> list[Event]:
    """Return the events of records, each read by an adapter that has seen none of the others unless one is given."""
    found: list[Event] = []
    for record in records:
        reader = adapter or make_adapter("kubernetes", instance="prod")
        result = reader.read(json.dumps(record).encode(), HERE)
        assert not isinstance(result, Skipped), result
        found += (event for event in result if event.topic == LIFECYCLE_TOPIC)
    return found


def facts(events: list[Event]) -> list[Fact]:
    encoder = EventEncoder()
    times = [micros_of(event.occurred_at + timedelta(seconds=1)) // 1000 for event in events]
    records = Records([1] * len(events), list(range(len(events))), times, [b"k"] * len(events),
                      list(map(encoder.encode, events)), [NO_HEADERS] * len(events))  # fmt: skip
    head = Head.at_genesis(Genesis("d/access.lifecycle/0/0", bytes(16), 0))
    batch, _ = seal(head, records, len(events), NOON + timedelta(hours=9), SIGNER)
    return list(facts_of(decode(encode(batch)), SchemaCatalog((event_schema(),))))


def opened(events: list[Event], until: timedelta = timedelta(hours=2)) -> list[tuple[str, str | None]]:
    """Return the rule and the grant or session of each finding that is open at a time after noon."""
    judge = Judge(POLICY)
    for fact in facts(events):
        judge.add(fact)
    changes = judge.judge(micros_of(NOON + until))
    assert judge.faults == []
    found = (one.finding for one in changes if one.kind == "opened" and one.finding.rule not in COMMANDS)
    return sorted((one.rule, one.key.rpartition("/")[2]) for one in found)


@pytest.mark.parametrize("remembers", [True, False])
def test_a_binding_whose_subjects_leave_one_by_one(remembers: bool) -> None:
    adapter = make_adapter("kubernetes", instance="prod") if remembers else None
    given = events_of([created("User:alice", "User:bob")])
    alice = next(event.grant_id for event in given if event.subject.id == "alice")
    changed = events_of([created("User:alice", "User:bob"), updated("User:alice")], adapter)
    assert opened(changed) == [("overdue", alice)]
    adapter = make_adapter("kubernetes", instance="prod") if remembers else None
    ended = events_of([created("User:alice", "User:bob"), updated("User:alice"), deleted()], adapter)
    assert opened(ended) == []


def test_a_binding_that_nobody_ends_is_overdue_for_each_subject() -> None:
    assert [rule for rule, _ in opened(events_of([created("User:alice", "Group:sre")]))] == ["overdue", "overdue"]


def test_a_token_and_a_session_open_nothing() -> None:
    asked = {"spec": {"expirationSeconds": 600}}
    token = at(0, request("create", "ci:serviceaccounts/bot/token", 201, group="", asked=asked))
    shell = at(5, stream("exec", "command=sh"))
    change = at(6, request("patch", "clusterroles/edit"))
    assert opened(events_of([token, shell, change])) == []


def test_a_refused_deletion_ends_nothing() -> None:
    refused = {**deleted(), "responseStatus": {"code": 403}}
    assert [rule for rule, _ in opened(events_of([created("User:alice"), refused]))] == ["overdue"]
