"""What the ways in report about the records of a source: counts that add up, and records that nobody could map."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.producers.adapters import make_adapter
from grantledger.producers.client import EventTooLargeError
from grantledger.producers.importer import Importer
from grantledger.producers.input_files import InputFile
from grantledger.producers.source_reports import MOST_INSTANCES, RecordCounts, ReportedSource, SourceReports
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import Event, Mapping, Report
from support.following import run_once
from support.gateway import FakeKafka, GatewayInProcess

TIME = "2024-05-01T10:00:00Z"
KNOWN = {"event": "session.start", "code": "T2000I", "uid": "u1", "sid": "s1", "user": "alice", "time": TIME,
         "cluster_name": "root"}  # fmt: skip
UNKNOWN = {"event": "teapot.boiled", "code": "T9999I", "uid": "u2", "time": TIME}
BROKEN = {"event": "session.start", "code": "T2000I", "uid": "u3", "time": "now"}
OTHER = {"type": "response", "request": {"id": "1"}}
SKIPPED = {"event": "session.data", "code": "T2006I", "uid": "u4", "sid": "s1", "time": TIME}
RECORDS = b"\n".join(
    [*(json.dumps(one).encode() for one in (KNOWN, UNKNOWN, BROKEN, OTHER, SKIPPED)), b"some text", b""]
)
"""One mapped, one unknown and one broken record, one of another tool, one skipped, and a text."""


def told(events: list[Event]) -> dict[tuple[str, str, str | None, bool], int]:
    """Return the numbers by instance, result, reason, and whether the record is kept."""
    found: Counter[tuple[str, str, str | None, bool]] = Counter()
    for event in events:
        EventEncoder().encode(event)
        assert event.report is not None and event.topic == "access.activity"
        key = event.source.instance, event.report.result, event.report.reason, event.raw is not None
        found[key] += event.report.records
    return dict(found)


EXPECTED: dict[tuple[str, str, str | None, bool], int] = {
    ("i-1", "mapped", None, False): 1,
    ("i-1", "skipped", "event_unknown", True): 1,
    ("i-1", "skipped", "telemetry", False): 1,
    ("i-1", "failed", "time: 'now' is not an RFC 3339 time", True): 1,
    ("i-1", "failed", None, False): 2,
}


def imported(instance: str | None = "i-1", keep: Any = None) -> tuple[Importer, list[Event]]:
    kept: list[Event] = []
    importer = Importer(make_adapter("teleport", instance=instance), lambda _: None, keep=keep or kept.append)
    importer.run(InputFile("audit.log", io.BytesIO(RECORDS)))
    return importer, kept


def test_an_import_keeps_what_is_well_formed_and_counts_the_rest() -> None:
    importer, kept = imported()
    reports = SourceReports(importer.source)
    reports.add(importer.counts)
    assert told([*kept, *reports.take(last=True)]) == EXPECTED
    assert [json.loads(event.raw or b"") for event in kept] == [UNKNOWN, BROKEN]
    assert {event.mapping for event in kept} == {Mapping("teleport", make_adapter("teleport").VERSION)}
    assert [event.event_id for event in kept] == [event.event_id for event in imported()[1]], "read again"
    assert importer.report.failed == 3 and importer.report.skipped.total() == 2 and importer.report.kept == 1


def test_a_record_that_is_too_large_to_keep_is_counted() -> None:
    def too_large(_: Event) -> None:
        raise EventTooLargeError("raw", "is large")

    importer, _ = imported(keep=too_large)
    assert (importer.counts.failed, importer.counts.skipped["event_unknown"]) == (3, 1)


def test_secrets_of_a_record_that_is_kept_are_removed() -> None:
    statement = {
        "timestamp": "no time", "error_severity": "LOG", "pid": 1, "session_id": "s", "user": "alice", "dbname": "d",
        "message": "statement: ALTER ROLE bob PASSWORD 'hunter2'", "backend_type": "client backend",
    }  # fmt: skip
    kept: list[Event] = []
    importer = Importer(make_adapter("postgresql", instance="i-1"), lambda _: None, keep=kept.append)
    importer.run(InputFile("log", io.BytesIO(json.dumps(statement).encode())))
    [event] = kept
    assert event.raw is not None and b"ALTER ROLE bob" in event.raw and b"hunter2" not in event.raw


def test_what_names_no_installation_waits_until_records_name_one() -> None:
    reports = SourceReports(ReportedSource("teleport", None, "follow"))
    reports.add(RecordCounts(skipped=Counter(noise=2), failed=1))
    assert reports.take() == []
    reports.add(RecordCounts(mapped=Counter({"root": 4})))
    assert told(reports.take()) == {
        ("root", "mapped", None, False): 4, ("root", "skipped", "noise", False): 2, ("root", "failed", None, False): 1,
    }  # fmt: skip
    assert reports.take(last=True) == [], "each is reported once"
    reports.add(RecordCounts(mapped=Counter({"leaf": 1}), failed=1))
    assert ("unknown", "failed", None, False) in told(reports.take()), "there are several"


COUNTS = st.builds(
    RecordCounts,
    mapped=st.dictionaries(st.sampled_from("abc"), st.integers(1, 9)).map(Counter),
    skipped=st.dictionaries(st.sampled_from("xy"), st.integers(1, 9)).map(Counter),
    failed=st.integers(0, 9),
)


@given(st.lists(COUNTS), st.sampled_from(["a", None]))
def test_reports_add_up_to_what_was_counted(added: list[RecordCounts], instance: str | None) -> None:
    reports, events, total = SourceReports(ReportedSource("t", instance, "import")), list[Event](), RecordCounts()
    for one in added:
        total.add(one)
        reports.add(one)
        events += reports.take()
    events += reports.take(last=True)
    found = RecordCounts()
    for event in events:
        assert event.report is not None and event.report.records > 0
        if event.report.result == "mapped":
            found.add_mapped(event.source.instance, event.report.records)
        elif event.report.result == "skipped":
            found.skipped[event.report.reason or ""] += event.report.records
        else:
            found.failed += event.report.records
    assert found == total
    assert len({event.event_id for event in events}) == len(events)


def test_records_may_name_any_number_of_installations() -> None:
    counts = RecordCounts()
    for number in range(MOST_INSTANCES + 50):
        counts.add_mapped(f"account-{number}")
    assert len(counts.mapped) == MOST_INSTANCES + 1 and counts.mapped["unknown"] == 50


def test_a_long_reason_is_cut() -> None:
    event = ReportedSource("t", "i", "import").kept(b"{}", "failed", "x" * 100_000)
    assert event.report == Report("failed", 1, "x" * 200)


def test_follow_reports_what_it_read(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(RECORDS)
    kafka, follower = run_once(tmp_path, str(log))
    of_cluster = {("root" if not key[3] else "unknown", *key[1:]): count for key, count in EXPECTED.items()}
    assert told(kafka.reports) == of_cluster, "the records name the installation"
    report = follower.report()
    assert (report.mapped, report.failed, len(kafka.events)) == (1, 3, 1)


@pytest.fixture
def gateway(tmp_path: Path) -> Any:
    with GatewayInProcess(tmp_path, kafka=FakeKafka()) as started:
        yield started


def reported(gateway: GatewayInProcess, system: str) -> dict[tuple[str, str, str | None, bool], int]:
    found: Counter[tuple[str, str, str | None, bool]] = Counter()
    for event in gateway.kafka.events:
        if event["event_type"] == "source.report" and event["source"]["system"] == system:
            one = event["report"]
            found[event["source"]["instance"], one["result"], one["reason"], event["raw"] is not None] += one["records"]
    return dict(found)


def test_the_gateway_reports_what_it_took(gateway: GatewayInProcess) -> None:
    response = gateway.post("/ingest/teleport", RECORDS, source="teleport")
    assert (response.status_code, response.json()["refused_count"], response.json()["kept"]) == (200, 3, 1)
    alone = gateway.post("/ingest/teleport", json.dumps({**BROKEN, "uid": "u9"}).encode(), source="teleport")
    assert (alone.status_code, alone.json()["kept"], alone.json()["events"]) == (200, 1, 0), "it is in the ledger"
    refused = gateway.post("/ingest/teleport", b"some text", source="teleport")
    assert refused.status_code == 422
    session = {"event_type": "session.started", "subject": "alice", "session_id": "s-4", "source": {"native_id": "1"}}
    assert gateway.post("/v1/events", [session, {**session, "outcome": "good"}]).status_code == 207
    gateway.run(gateway.gateway.report())
    kept = ("i-1", "failed", "time: 'now' is not an RFC 3339 time", True)
    assert reported(gateway, "teleport") == {**EXPECTED, kept: 2, ("i-1", "failed", None, False): 3}
    assert reported(gateway, "deploy-bot") == {("eu-1", "mapped", None, False): 1, ("eu-1", "failed", None, False): 1}
    before = len(gateway.kafka.events)
    gateway.run(gateway.gateway.report())
    assert len(gateway.kafka.events) == before, "each is reported once"


def test_the_gateway_reports_about_a_source_that_is_no_longer_configured(gateway: GatewayInProcess) -> None:
    assert gateway.post("/ingest/teleport", RECORDS, source="teleport").status_code == 200
    gateway.gateway.use({}, gateway.credentials_with({}))
    gateway.run(gateway.gateway.report())
    assert reported(gateway, "teleport") == EXPECTED
