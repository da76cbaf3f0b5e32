"""Findings from sealed entries, and their labels: valid, bounded, and distinct where the findings differ."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.kafka.sealed_log import SealedLogProblem, VerifiedBatch
from grantledger.kafka.sealed_log_findings import finding_about
from grantledger.ledger.batch import Head, SealedBatch
from grantledger.ledger.entry import Genesis
from grantledger.ledger.source_keys import SourceKeys
from grantledger.processors.watch.findings import config_event
from grantledger.processors.watch_policy import SourceLimits, WatchPolicy
from grantledger.producers import Event
from grantledger.schemas.catalog import SchemaCatalog
from grantledger.schemas.event import Finding, IssuingSource
from grantledger.sinks.alerts.alertmanager import annotations_of, labels_of
from grantledger.sinks.alerts.channel_builder import build_channels
from grantledger.sinks.alerts.config import AlertConfig
from grantledger.sinks.alerts.finding import (
    EVIDENCE_LENGTH,
    LABEL_LENGTH,
    FindingEvent,
    from_text,
    label,
    message_id,
    rfc3339,
)
from grantledger.sinks.alerts.outbox import OutboxPosition
from grantledger.sinks.alerts.reading import FindingsReader, Read, finding_of_problem, starting_at
from support.alerting import DEPLOYMENT, NOON, ORIGIN, FindingsLog, event, finding
from support.receiver import SECRET
from support.sources import Registrar

NOWHERE = OutboxPosition("00", 0)
LINES = {"person", "grant", "about", "late", "deadline", "approved by", "reason", "next", "runbook"}


def read(*values: Event | bytes | None) -> Read:
    return read_batch(FindingsLog().batch(*values))


def read_batch(batch: SealedBatch, sources: SourceKeys | None = None) -> Read:
    found = Read(NOWHERE)
    verified = VerifiedBatch(batch, Head.at_genesis(batch.genesis), 0)
    FindingsReader(DEPLOYMENT, SchemaCatalog()).add(found, verified, sources or SourceKeys(DEPLOYMENT))
    return found


def test_only_signed_findings_are_believed() -> None:
    """Whoever may write the findings, but has no key of the pipeline, neither opens nor ends an alert."""
    registrar = Registrar(DEPLOYMENT)
    watch, log = registrar.init("grantledger-watch")["grantledger-watch"], FindingsLog()
    forged, opened = event("resolved", "g-1"), event("opened", "g-1")
    found = read_batch(log.batch(opened, forged, signers=(watch, None)), registrar.keys)
    assert [(one.change, one.key) for one in found.findings] == [("opened", "g-1")] and found.unsigned == 1


def test_the_last_signed_policy_of_the_watch_is_read() -> None:
    registrar = Registrar(DEPLOYMENT)
    watch, log = registrar.init("grantledger-watch")["grantledger-watch"], FindingsLog()
    old, new = (config_event(DEPLOYMENT, WatchPolicy(source=(SourceLimits(system=name),)), NOON) for name in "ab")
    forged, other = config_event(DEPLOYMENT, WatchPolicy(), NOON), config_event("other.example", WatchPolicy(), NOON)
    found = read_batch(log.batch(old, new, other, forged, signers=(watch, watch, watch, None)), registrar.keys)
    assert found.policy == new.raw and read(event("opened", "g-1")).policy is None


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
        "person": "alice@example.com",
    }  # fmt: skip
    assert annotations_of(one)["summary"] == (
        "Access is past its deadline and no removal is on record: alice@example.com, readwrite orders "
        "(production), deadline 2026-03-01 12:00:00 UTC, grant g-1"
    )
    assert from_text(one.as_text()) == one
    assert found.position == OutboxPosition("00", 1, ORIGIN, 2) and len(found.schemas) == 1


def test_equal_ids_of_two_tenants_or_two_sources_are_different_findings() -> None:
    teleport, vault = IssuingSource("teleport", "root"), IssuingSource("vault", "root")
    found = read(
        event("opened", "g-1", tenant="a"),
        event("opened", "g-1", tenant="b"),
        event("opened", "g-1", tenant="a", grant_source=teleport),
        event("opened", "g-1", tenant="a", grant_source=vault),
        event("opened", "g-1", tenant="a", rule="used_without_grant", session_source=teleport),
        event("opened", "g-1", tenant="a", rule="used_without_grant", session_source=vault),
    ).findings
    assert len({one.identity for one in found}) == len({tuple(labels_of(one).values()) for one in found}) == 6
    assert labels_of(found[2]) == labels_of(found[0]) | {
        "grant_source_system": "teleport", "grant_source_instance": "root", "tool": "teleport/root",
    }  # fmt: skip


def test_the_alert_about_a_discontinuous_log_is_the_finding_that_readers_publish() -> None:
    problem = SealedLogProblem("sealed_log_discontinuous", "access.findings.sealed", 0, 7, 1_700_000_000_000, "why")
    alert, published = finding_of_problem(DEPLOYMENT, problem), finding_about(DEPLOYMENT, problem)
    (read_back,) = read(published).findings
    assert (alert.event_id, alert.identity) == (published.event_id, read_back.identity)
    assert alert.severity == "critical" and alert.at == alert.appended == 1_700_000_000_000_000
    assert annotations_of(alert)["entry"] == "access.findings.sealed/0@7"


@pytest.mark.parametrize(
    ("base", "address"),
    [
        ("", "docs/runbooks/overdue.md"),
        ("https://git.example/ledger/blob/main/", "https://git.example/ledger/blob/main/docs/runbooks/overdue.md"),
    ],
)
def test_the_runbook_is_a_link_under_the_configured_address(base: str, address: str) -> None:
    one = finding("opened")
    assert annotations_of(one, base)["runbook_url"] == one.runbook_at(base) == address
    assert "runbook_url" not in annotations_of(replace(one, rule="unknown"), base)


def test_a_finding_sealed_before_its_schema_is_read() -> None:
    found = read_batch(FindingsLog(registered=False).batch(event("opened", "g-1"), b"\xc3\x01" + bytes(8) + b"unknown"))
    assert ([one.key for one in found.findings], found.schemas, found.unreadable) == (["g-1"], [], 1)


def test_other_events_are_ignored_and_unreadable_entries_are_counted() -> None:
    found = read(event("opened", "g-1"), b"no event", None, b"", event("resolved", "g-1"))
    assert [one.change for one in found.findings] == ["opened", "resolved"]
    assert found.unreadable == 2


def test_a_time_set_by_the_sender_is_ignored() -> None:
    batch = FindingsLog().batch(event("opened", "g-1"), flags=0)
    found = read_batch(replace(batch, sealed_at=NOON + timedelta(hours=1)))
    assert rfc3339(found.findings[0].appended) == "2026-03-01T13:00:00.000000Z"


def test_entries_that_kafka_deleted_are_counted_and_reading_continues() -> None:
    log, reader, found = FindingsLog(), FindingsReader(DEPLOYMENT, SchemaCatalog()), Read(NOWHERE)
    every = [log.batch(event("opened", f"g-{number}")) for number in range(4)]
    for offset in (0, 3, 3, 1):
        verified = VerifiedBatch(every[offset], Head.at_genesis(every[offset].genesis), offset)
        reader.add(found, verified, SourceKeys(DEPLOYMENT))
    assert found.missed == 2
    assert [one.key for one in found.findings] == ["g-0", "g-3", "g-3", "g-1"]
    assert found.position.size == 5


def test_a_new_epoch_is_read_from_its_first_entry() -> None:
    log, reader, found = FindingsLog(), FindingsReader(DEPLOYMENT, SchemaCatalog()), Read(NOWHERE)
    before = log.batch(event("opened", "g-1"), event("opened", "g-2"))
    genesis = Genesis(f"{ORIGIN[:-1]}1", bytes([1]) * 16, 0, log.head.size, log.head.frontier.root())
    after = FindingsLog(Head.at_genesis(genesis), registered=False).batch(event("opened", "g-3"))
    for offset, batch in enumerate((before, after)):
        reader.add(found, VerifiedBatch(batch, Head.at_genesis(batch.genesis), offset), SourceKeys(DEPLOYMENT))
    assert [one.key for one in found.findings] == ["g-1", "g-2", "g-3"] and found.missed == 0
    assert found.position == replace(NOWHERE, next_offset=2, origin=genesis.origin, size=1)


def test_the_position_from_which_reading_continues() -> None:
    known = OutboxPosition("aa", 10, ORIGIN, 7)
    assert starting_at(None, "aa", 3, 20) == OutboxPosition("aa", 3)
    assert starting_at(known, "aa", 3, 20) == known
    assert starting_at(known, "aa", 15, 20) == replace(known, next_offset=15), "the index shows missing entries"
    assert starting_at(known, "bb", 0, 20) == OutboxPosition("bb", 0), "recreated"
    assert starting_at(known, "aa", 0, 9) == OutboxPosition("aa", 0), "restored from an older copy"


def scoped(one: FindingEvent, **scope: str) -> FindingEvent:
    return replace(one, facts=one.facts | scope)


def test_the_idempotency_key_depends_on_the_finding_and_the_channel() -> None:
    one = finding("opened")
    assert message_id(one, "hook") == "2be42086-f63e-5fae-aeb0-3df9402eb1f5", "fixed forever"
    others = [
        replace(one, rule="x"), replace(one, key="x"), replace(one, deadline=""), replace(one, event_id="x"),
        replace(one, change="resolved"), scoped(one, tenant="x"), scoped(one, grant_source_system="x"),
        scoped(one, grant_source_system="x", grant_source_instance="x"),
    ]  # fmt: skip
    ids = [message_id(one, "hook"), message_id(one, "oncall"), *(message_id(other, "hook") for other in others)]
    assert len(set(ids)) == len(ids)
    assert message_id(replace(one, severity="info", facts={"tenant": "default"}), "hook") == ids[0]


@given(text=st.text())
def test_a_label_is_short_and_prints(text: str) -> None:
    shown = label(text)
    assert len(shown) <= LABEL_LENGTH and shown.isprintable()
    assert shown == text or shown != text.strip()


@given(start=st.text(min_size=LABEL_LENGTH, max_size=300), one=st.text(), other=st.text())
def test_long_labels_that_differ_stay_apart(start: str, one: str, other: str) -> None:
    assert (label(start + one) == label(start + other)) == (one == other)


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[31mb", "a\u202eb", "a\x00b"])
def test_unprintable_characters_are_replaced_distinguishably(text: str) -> None:
    assert label(text).isprintable() and label(text) != label("a\N{REPLACEMENT CHARACTER}b")


@given(rule=st.text(min_size=1), key=st.text(), subject=st.text(), evidence=st.text(max_size=3 * EVIDENCE_LENGTH))
def test_an_alert_is_bounded_whatever_a_sender_wrote(rule: str, key: str, subject: str, evidence: str) -> None:
    one = FindingEvent(
        "e", "opened", rule, key, "", "critical", 0, 0, {"subject": subject, "evidence": {"x": evidence}}
    )
    for text in labels_of(one).values():
        assert 0 < len(text) <= LABEL_LENGTH
    for name, text in annotations_of(one).items():
        lines = text.split("\n") if name == "description" else [text]  # its line ends are ours
        assert 0 < len(text) <= 2000 and all(line.isprintable() for line in lines)
        assert all(line.partition(": ")[0] in LINES for line in lines if name == "description")


@pytest.mark.parametrize("evidence", ["no json", "[1]", "[" * 100_000, '{"a": "' + "x" * 5000 + '"}'])
def test_evidence_that_is_no_small_object_is_kept_as_text(evidence: str) -> None:
    said = Finding("overdue", "g-1", "critical", NOON, evidence)
    (one,) = read(event("opened", "g-1", finding=said)).findings
    (text,) = one.facts["evidence"].values()
    assert evidence.startswith(text[:100]) and len(text) <= EVIDENCE_LENGTH


@pytest.mark.parametrize(
    "evidence", ['{"x": "\\ud800"}', '{"\\udc00": 1}', '{"x": NaN}', '{"x": 1e999}', '{"x":' * 600 + "1" + "}" * 600]
)
def test_evidence_that_is_not_valid_json_is_kept_as_text(evidence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Finding("overdue", "g-1", "critical", NOON, evidence)
    (one,) = read(event("opened", "g-1", finding=said)).findings
    assert one.facts["evidence"] == {"text": evidence}
    # This text goes into the outbox, and on to a receiver that may not parse NaN.
    assert from_text(one.as_text().encode().decode()) == one
    channel = {"kind": "webhook", "url": "https://hook.example/", "secret": {"env": "HOOK_SECRET"}}
    config = AlertConfig.model_validate({"channels": {"hook": channel}})
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    webhook = build_channels(config)[0].channel
    json.loads(webhook.message(one, "").encode(), parse_constant=pytest.fail)
