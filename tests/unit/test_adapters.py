"""The contract that every adapter must keep, checked on sample records and on random input."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.producers.adapters import (
    ADAPTERS,
    Adapter,
    Location,
    RecordError,
    Skipped,
    UnknownToolError,
    make_adapter,
)
from grantledger.producers.adapters.teleport import event_types
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import EventEncoder, decode
from grantledger.schemas.event import Event
from grantledger.schemas.rules import check
from support.adapters import HERE, assert_maps_or_fails, one
from support.examples import few
from support.mapping_rates import FILES, records, row

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLES = Path(os.environ.get("GRANTLEDGER_SAMPLES", REPOSITORY.parent / "shared" / "samples"))
EXPECTED = {
    "cloudtrail": {"mapped": 763, "skipped": 2137},
    "hoop": {"mapped": 5, "skipped": 7},
    "kubernetes": {"mapped": 13, "skipped": 38},
    "mcp": {"mapped": 10, "skipped": 9},
    "okta": {"mapped": 20, "skipped": 17},
    "postgresql": {"mapped": 415},
    "sudo": {"mapped": 4},
    "teleport": {"mapped": 117, "skipped": 48},
    "vault": {"mapped": 564, "skipped": 833},
}
REPEATED_IDENTITIES = {
    "cloudtrail": 0,
    "hoop": 0,
    "kubernetes": 0,
    "mcp": 0,
    "okta": 4,
    "postgresql": 0,
    "sudo": 0,
    "teleport": 2,
    "vault": 0,
}
"""Pairs of records in those files to which the tool's fixture gave one uid, type and code, with other content."""


def samples(tool: str, file: str | None = None) -> list[bytes]:
    try:
        return records(tool, SAMPLES, file)
    except FileNotFoundError as error:
        reason = f"no sample records: {error}; set GRANTLEDGER_SAMPLES"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


@functools.cache
def plain_outcomes(tool: str) -> tuple[tuple[bytes, tuple[Event, ...] | Skipped], ...]:
    """Return every sample record with its outcome, read once for all tests."""
    lines = samples(tool)
    return tuple(zip(lines, read_all(make_adapter(tool), lines), strict=True))


def plain_events(tool: str) -> Iterator[tuple[bytes, Event]]:
    for line, outcome in plain_outcomes(tool):
        for event in () if isinstance(outcome, Skipped) else outcome:
            yield line, event


def read_all(adapter: Adapter, lines: list[bytes]) -> list[tuple[Event, ...] | Skipped]:
    return [adapter.read(line, Location("samples", number)) for number, line in enumerate(lines, 1)]


def events_of(adapter: Adapter, lines: list[bytes]) -> Iterator[tuple[bytes, Event]]:
    for line, outcome in zip(lines, read_all(adapter, lines), strict=True):
        if not isinstance(outcome, Skipped):
            for event in outcome:
                yield line, event


@pytest.fixture(params=sorted(ADAPTERS))
def tool(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


class TestContract:
    def test_every_adapter_has_a_sample_file(self) -> None:
        assert set(FILES) == set(ADAPTERS)

    def test_every_record_is_mapped_or_skipped_for_a_stated_reason(self, tool: str) -> None:
        adapter = make_adapter(tool)
        counts: Counter[str] = Counter()
        for _, outcome in plain_outcomes(tool):
            if isinstance(outcome, Skipped):
                assert outcome.reason in adapter.SKIP_REASONS
                assert outcome.detail
                counts["skipped"] += 1
            else:
                assert outcome
                counts["mapped"] += 1
        assert counts == EXPECTED[tool]

    def test_events_keep_the_rules_and_survive_the_codec(self, tool: str) -> None:
        encoder, catalog = EventEncoder(), SchemaCatalog((event_schema(),))
        for _, event in plain_events(tool):
            check(event)
            datum = decode(encoder.encode(event), catalog, 0)
            assert datum == event.to_datum()

    def test_ids_are_the_same_on_every_reading_and_name_one_record(self, tool: str) -> None:
        first = [event.event_id for _, event in plain_events(tool)]
        assert first == [event.event_id for _, event in events_of(make_adapter(tool), samples(tool))]
        assert len(first) - len(set(first)) == REPEATED_IDENTITIES[tool]

    def test_raw_is_the_line(self, tool: str) -> None:
        for line, event in plain_events(tool):
            assert event.raw == line or b"[redacted:" in (event.raw or b"")
            assert event.raw_sha256 == hashlib.sha256(event.raw or b"").digest()

    def test_every_text_of_an_event_comes_from_the_record_or_is_marked(self, tool: str) -> None:
        """No ids, names or secrets appear that the record does not hold. An agent says its name once per session."""
        named_before = tool == "mcp"
        for line, event in plain_events(tool):
            text = " ".join(strings(json.loads(line)))
            for value in (event.subject.id, event.reason, event.error, *(() if named_before else (event.actor.id,))):
                assert value is None or value in text or value in ("unknown", tool), value
            for value in (event.grant_id, event.request_id, event.session_id):
                assert value is None or value in text or "synthesized:" in value, value
            if event.grant_id and event.grant_id not in text:
                assert event.grant_id_kind == "synthesized"

    def test_instance_and_tenant_are_stamped(self, tool: str) -> None:
        plain = list(plain_events(tool))
        stamped = list(events_of(make_adapter(tool, instance="eu-1", tenant="acme"), samples(tool)))
        assert {(event.source.instance, event.tenant) for _, event in stamped} == {("eu-1", "acme")}
        assert {event.tenant for _, event in plain} == {"default"}
        assert all(event.source.system == tool and event.source.instance for _, event in plain)

    def test_damaged_records_fail_with_their_place(self, tool: str) -> None:
        adapter = make_adapter(tool)
        for raw in (
            b"{",
            b"nonsense",
            b"[]",
            b"null",
            b'"text"',
            b"\xff\xfe",
            b"{}",
            b'{"event": NaN}',
            b'{"a":' * 100_000,
            b"1" * 6000,
        ):
            with pytest.raises(RecordError, match=r"^records.jsonl:7: ") as caught:
                adapter.read(raw, HERE)
            assert caught.value.location == HERE

    def test_a_cut_off_record_fails(self, tool: str) -> None:
        adapter = make_adapter(tool)
        for line in samples(tool)[:40]:
            with pytest.raises(RecordError):
                adapter.read(line[: len(line) // 2], HERE)

    def test_a_blank_line_is_skipped(self, tool: str) -> None:
        assert make_adapter(tool).read(b"  \r", HERE) == Skipped("blank_line", "an empty line")


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    else:
        yield str(value)


TEXTS = st.text(max_size=8) | st.sampled_from(
    [
        "response",
        "2024-05-01T10:00:00Z",
        "0001-01-01T00:00:00Z",
        "APPROVED",
        "auth/x/login/y",
        "\ud800",
        "T1000W",
        "user",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
SOME_TYPES = (
    "access_request.create",
    "access_request.review",
    "access_request.expire",
    "cert.create",
    "lock.created",
    "access_list.member.create",
    "session.start",
    "db.session.query",
    "db.session.cassandra.batch",
    "sftp",
    "sftp_summary",
    "kube.request",
    "session.command",
)
HOOP_TYPES = ("access.jit_approved", "session.started", "session.closed", "session.open", "session.guardrail_violation")
OKTA_TYPES = (
    "user.session.start",
    "group.user_membership.add",
    "user.account.privilege.grant",
    "access.request.reject",
)
CLOUDTRAIL_CALLS = (
    ("sts", "AssumeRole"),
    ("sts", "AssumeRoot"),
    ("sso", "CreateAccountAssignment"),
    ("sso", "Federate"),
    ("signin", "ConsoleLogin"),
    ("ssm", "StartSession"),
    ("ec2", "RunInstances"),
)


KUBERNETES_REQUESTS = (
    ("create", "rbac.authorization.k8s.io", "rolebindings", ""),
    ("patch", "rbac.authorization.k8s.io", "clusterrolebindings", ""),
    ("deletecollection", "rbac.authorization.k8s.io", "rolebindings", ""),
    ("update", "rbac.authorization.k8s.io", "roles", ""),
    ("create", "", "pods", "exec"),
    ("patch", "", "pods", "ephemeralcontainers"),
    ("get", "", "nodes", "proxy"),
    ("create", "", "serviceaccounts", "token"),
    ("update", "certificates.k8s.io", "certificatesigningrequests", "approval"),
    ("update", "certificates.k8s.io", "certificatesigningrequests", "status"),
)


def skeleton(tool: str, draw: st.DrawFn) -> dict[str, Any]:
    if tool == "teleport":
        return {"event": draw(st.sampled_from(SOME_TYPES)), "time": "2024-05-01T10:00:00Z", "id": "r"}
    if tool == "hoop":
        return {"event_type": draw(st.sampled_from(HOOP_TYPES)), "payload": {"occurred_at": "2026-05-01T10:00:00Z"}}
    if tool == "cloudtrail":
        service, name = draw(st.sampled_from(CLOUDTRAIL_CALLS))
        return {
            "eventSource": f"{service}.amazonaws.com",
            "eventName": name,
            "eventTime": "2024-05-01T10:00:00Z",
            "eventID": "e",
            "userIdentity": {"type": "AssumedRole", "arn": "arn:aws:sts::1:assumed-role/r/s"},
        }
    if tool == "kubernetes":
        verb, group, resource, subresource = draw(st.sampled_from(KUBERNETES_REQUESTS))
        return {
            "auditID": "a",
            "stage": draw(st.sampled_from(["ResponseComplete", "ResponseStarted", "Panic"])),
            "verb": verb,
            "objectRef": {"apiGroup": group, "resource": resource, "subresource": subresource},
            "stageTimestamp": "2024-05-01T10:00:00Z",
        }
    if tool == "mcp":
        method = draw(st.sampled_from(["initialize", "tools/call", "resources/read", "ping"]))
        return {"time": "2024-05-01T10:00:00Z", "message": {"jsonrpc": "2.0", "id": 1, "method": method}}
    if tool == "okta":
        kind = draw(st.sampled_from(OKTA_TYPES))
        return {"eventType": kind, "published": "2024-05-01T10:00:00Z", "uuid": "u", "actor": {"id": "a"}}
    if tool == "postgresql":
        message = draw(st.sampled_from(["AUDIT: SESSION,1,1,ROLE,GRANT ROLE,,,GRANT a TO b", "statement: x", ""]))
        return {"timestamp": "2024-05-01 10:00:00 UTC", "error_severity": "LOG", "pid": 1, "message": message}
    if tool == "sudo":
        kind = draw(st.sampled_from(["accept", "reject", "alert", "exit"]))
        return {"sudo": {kind: {"uuid": "u", "server_time": {"seconds": 1}, "submituser": draw(JSON)}}}
    request = {"id": "i", "path": draw(st.sampled_from(["auth/token/revoke", "pki/issue/x", "kv/a"])), "operation": "x"}
    return {"type": "response", "time": "2024-05-01T10:00:00Z", "request": request}


MEMBERS = {
    "cloudtrail": [
        "requestParameters", "responseElements", "userIdentity", "additionalEventData", "serviceEventDetails",
        "resources", "errorCode", "errorMessage", "eventType", "eventTime", "recipientAccountId", "sourceIPAddress",
        "detail", "Records"
    ],
    "hoop": [
        "payload", "event_type", "occurred_at", "id", "session_id", "review", "review_owner", "status", "input",
        "command", "exit_code"
    ],
    "kubernetes": [
        "user", "impersonatedUser", "requestObject", "responseObject", "responseStatus", "annotations",
        "requestURI", "requestReceivedTimestamp", "sourceIPs", "protoPayload", "AuditId"
    ],
    "mcp": [
        "message", "request", "response", "params", "result", "error", "user", "from", "session_id", "time", "type",
        "audit_id", "logged_at", "subjects", "target", "data", "delegation"
    ],
    "okta": ["eventType", "published", "uuid", "actor", "target", "outcome", "debugContext", "client", "severity"],
    "postgresql": ["timestamp", "message", "error_severity", "user", "session_id", "line_num", "statement", "pid"],
    "sudo": ["sudo", "accept", "reject", "alert", "exit", "submituser", "runuser", "runargv", "submit_time", "uuid"],
    "teleport": [
        "user", "code", "uid", "sid", "expires", "roles", "state", "proposed_state", "resource_ids", "identity",
        "target", "members", "exitCode", "status_code", "children", "argv", "access_requests", "db_labels",
        "addr.remote", "user_kind", "success", "action", "db_query", "file_transfer_stats", "max_duration"
    ],
    "vault": [
        "auth", "response", "error", "time", "request", "type"
    ],
}  # fmt: skip


@pytest.mark.parametrize("tool", sorted(ADAPTERS))
@few(40)
@given(data=st.data())
def test_no_json_value_raises_anything_but_a_record_error(tool: str, data: st.DataObject) -> None:
    record = data.draw(JSON | st.dictionaries(st.sampled_from(MEMBERS[tool]) | TEXTS, JSON, max_size=5))
    if isinstance(record, dict) and data.draw(st.booleans()):
        record = {**data.draw(st.composite(lambda draw: skeleton(tool, draw))()), **record}
    assert_maps_or_fails(tool, record)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_record_error(raw: bytes) -> None:
    for name in ADAPTERS:
        try:
            make_adapter(name).read(raw, HERE)
        except RecordError:
            continue


@pytest.mark.parametrize(
    ("tool", "message"),
    [("telepor", "Did you mean 'teleport'? Available: cloudtrail, "), ("doas", "no adapter for 'doas'. Available: ")],
)
def test_an_unknown_tool_gets_a_suggestion_and_the_list(tool: str, message: str) -> None:
    with pytest.raises(UnknownToolError, match=re.escape(message)):
        make_adapter(tool)


class TestDocumentation:
    """docs/adapters.md compares the tools; the page of each names everything that its adapter may answer."""

    PAGES = REPOSITORY / "docs" / "sources"
    TEXT = (REPOSITORY / "docs" / "adapters.md").read_text("utf-8")

    def page(self, tool: str) -> str:
        return (self.PAGES / f"{tool}.md").read_text("utf-8")

    def test_the_mapping_rates(self, tool: str) -> None:
        outcomes = [outcome for _, outcome in plain_outcomes(tool)]
        assert row(tool, outcomes) in self.TEXT.splitlines()
        assert f"(sources/{tool}.md)" in self.TEXT

    def test_the_printed_reports_of_the_samples(self, tool: str) -> None:
        """Each table of a page that an import of the samples printed has the counts of today."""
        outcomes = [outcome for _, outcome in plain_outcomes(tool)]
        skipped = Counter(f"skipped: {outcome.reason}" for outcome in outcomes if isinstance(outcome, Skipped))
        counts = {"records": len(outcomes), "mapped": len(outcomes) - skipped.total(), "failed": 0, **skipped}
        first = self.page(tool).partition("┏")[2].partition("└")[0]
        shown = {name: int(count.replace(",", "")) for name, count in re.findall(r"│ (.+?) +│ +([\d,]+) │", first)}
        assert not shown or counts.items() <= shown.items()
        assert shown or tool in ("okta", "postgresql", "sudo")

    def test_the_example_adapter_keeps_the_contract(self) -> None:
        section = self.TEXT.partition("## Write an adapter")[2]
        code = section.partition("```python\n")[2].partition("```")[0]
        lines = section.partition("```json\n")[2].partition("```")[0].encode().splitlines()
        namespace: dict[str, Any] = {}
        exec(compile(code, "adapters.md", "exec"), namespace)
        adapter: Adapter = namespace["DoormanAdapter"](tenant="acme")
        opened, closed, tested = read_all(adapter, lines)
        granted, removed = one(opened), one(closed)
        assert (granted.event_type, granted.expiry_source) == ("grant.activated", "native")
        assert (removed.event_type, removed.removal_evidence) == ("grant.revoked", "confirmed")
        assert granted.grant_id == removed.grant_id and granted.event_id != removed.event_id
        assert (granted.tenant, granted.raw) == ("acme", lines[0])
        assert tested == Skipped("door_test", "a test of vault-2")
        assert set(adapter.SKIP_REASONS) == {"blank_line", "collector_message", "door_test"}
        for raw in (b'{"kind": "slammed"}', b'{"kind": "opened"}', b'{"kind": "opened", "person": 7}'):
            with pytest.raises(RecordError, match="^records.jsonl:7: "):
                adapter.read(raw, HERE)

    def test_every_skip_reason_is_documented(self, tool: str) -> None:
        text = self.TEXT + self.page(tool)
        for reason in make_adapter(tool).SKIP_REASONS:
            assert f"`{reason}`" in text

    def test_what_each_adapter_covers_and_its_tool_does_not_say_is_listed(self, tool: str) -> None:
        assert ADAPTERS[tool].COVERS and ADAPTERS[tool].DOES_NOT_SAY

    def test_every_teleport_type_that_is_named_in_the_code_is_documented(self) -> None:
        named = (
            {event for types in event_types.SKIPPED_TYPES.values() for event in types}
            | event_types.SESSION_STARTS
            | event_types.SESSION_ENDS
        )
        for event in named | event_types.DENIALS | event_types.ACTIONS:
            assert f"`{event}`" in self.page("teleport"), event
