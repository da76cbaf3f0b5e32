"""One contract for every adapter, and what each of them makes of particular records."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
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

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLES = Path(os.environ.get("GRANTLEDGER_SAMPLES", REPOSITORY.parent / "shared" / "samples"))
FILES = {
    "cloudtrail": "aws_cloudtrail/cloudtrail.jsonl",
    "hoop": "hoop/events.jsonl",
    "teleport": "teleport/audit_fixtures.jsonl",
    "vault": "vault/audit.log",
}
"""Records that the tools themselves wrote; see the README there."""
EXPECTED = {
    "cloudtrail": {"mapped": 699, "skipped": 2201},
    "hoop": {"mapped": 5, "skipped": 7},
    "teleport": {"mapped": 109, "skipped": 56},
    "vault": {"mapped": 564, "skipped": 833},
}
REPEATED_IDENTITIES = {"cloudtrail": 0, "hoop": 0, "teleport": 2, "vault": 0}
"""Pairs of records in those files to which the tool's fixture gave one uid, type and code, with other content."""

HERE = Location("file", 7)
ENCODER = EventEncoder()


def samples(tool: str) -> list[bytes]:
    path = SAMPLES / FILES[tool]
    if not path.is_file():
        reason = f"no sample records at {path}; set GRANTLEDGER_SAMPLES"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path.read_bytes().splitlines()


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
            assert event.raw == line
            assert event.raw_sha256 == hashlib.sha256(line).digest()

    def test_every_text_of_an_event_comes_from_the_record_or_is_marked(self, tool: str) -> None:
        """No ids, names or secrets appear that the record does not hold."""
        for line, event in plain_events(tool):
            text = " ".join(strings(json.loads(line)))
            for value in (event.subject.id, event.actor.id, event.request_id, event.reason, event.error):
                assert value is None or value in text or value in ("unknown", tool), value
            for value in (event.grant_id, event.session_id):
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
            with pytest.raises(RecordError, match=r"^file:7: ") as caught:
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
CLOUDTRAIL_CALLS = (
    ("sts", "AssumeRole"),
    ("sts", "AssumeRoot"),
    ("sso", "CreateAccountAssignment"),
    ("sso", "Federate"),
    ("signin", "ConsoleLogin"),
    ("ssm", "StartSession"),
    ("ec2", "RunInstances"),
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
    request = {"id": "i", "path": draw(st.sampled_from(["auth/token/revoke", "pki/issue/x", "kv/a"])), "operation": "x"}
    return {"type": "response", "time": "2024-05-01T10:00:00Z", "request": request}


MEMBERS = {
    "cloudtrail": [
        "requestParameters",
        "responseElements",
        "userIdentity",
        "additionalEventData",
        "serviceEventDetails",
        "resources",
        "errorCode",
        "errorMessage",
        "eventType",
        "eventTime",
        "recipientAccountId",
        "sourceIPAddress",
        "detail",
        "Records",
    ],
    "hoop": [
        "payload",
        "event_type",
        "occurred_at",
        "id",
        "session_id",
        "review",
        "review_owner",
        "status",
        "input",
        "command",
        "exit_code",
    ],
    "teleport": [
        "user",
        "code",
        "uid",
        "sid",
        "expires",
        "roles",
        "state",
        "proposed_state",
        "resource_ids",
        "identity",
        "target",
        "members",
        "exitCode",
        "status_code",
        "children",
        "argv",
        "access_requests",
        "db_labels",
        "addr.remote",
        "user_kind",
        "success",
        "action",
        "db_query",
        "file_transfer_stats",
        "max_duration",
    ],
    "vault": ["auth", "response", "error", "time", "request", "type"],
}


@pytest.mark.parametrize("tool", sorted(ADAPTERS))
@settings(max_examples=1000 if os.environ.get("GRANTLEDGER_TEST_SLOW") else 100, deadline=None)
@given(data=st.data())
def test_no_json_value_raises_anything_but_a_record_error(tool: str, data: st.DataObject) -> None:
    record = data.draw(JSON | st.dictionaries(st.sampled_from(MEMBERS[tool]) | TEXTS, JSON, max_size=5))
    if isinstance(record, dict) and data.draw(st.booleans()):
        record = {**data.draw(st.composite(lambda draw: skeleton(tool, draw))()), **record}
    raw = json.dumps(record).encode()
    try:
        outcome = make_adapter(tool).read(raw, HERE)
    except RecordError as error:
        assert error.location == HERE
        return
    if not isinstance(outcome, Skipped):
        for event in outcome:
            ENCODER.encode(event)
            assert event.key.encode()


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_record_error(raw: bytes) -> None:
    for name in ADAPTERS:
        try:
            make_adapter(name).read(raw, HERE)
        except RecordError:
            continue


@pytest.mark.parametrize(
    ("tool", "message"),
    [("telepor", "Did you mean 'teleport'? Available: cloudtrail, "), ("sudo", "no adapter for 'sudo'. Available: ")],
)
def test_an_unknown_tool_gets_a_suggestion_and_the_list(tool: str, message: str) -> None:
    with pytest.raises(UnknownToolError, match=re.escape(message)):
        make_adapter(tool)


def teleport(event: str, **members: Any) -> tuple[Event, ...] | Skipped:
    record = {"event": event, "uid": "u1", "time": "2024-05-01T10:00:00.123Z", "cluster_name": "prod", **members}
    return make_adapter("teleport").read(json.dumps(record).encode(), HERE)


def one(outcome: tuple[Event, ...] | Skipped) -> Event:
    assert not isinstance(outcome, Skipped)
    (event,) = outcome
    return event


def several(outcome: tuple[Event, ...] | Skipped) -> tuple[Event, ...]:
    assert not isinstance(outcome, Skipped)
    return outcome


class TestTeleport:
    def test_a_request_for_several_resources_is_one_event_each(self) -> None:
        asked = [{"cluster": "prod", "kind": "db", "name": name} for name in ("orders", "billing")]
        first, second = several(
            teleport(
                "access_request.create",
                code="T5000I",
                user="alice@example.com",
                user_kind=1,
                id="r1",
                state="PENDING",
                roles=["dba", "ops"],
                resource_ids=asked,
                max_duration="2024-05-01T11:00:00Z",
                reason="fix",
            )
        )
        assert (first.event_type, first.request_id, first.outcome) == ("request.created", "r1", "pending")
        assert (first.subject.id, first.subject.kind) == ("alice@example.com", "human")
        assert first.resource and second.resource
        assert (first.resource.id, second.resource.id) == ("orders", "billing")
        assert (first.entitlement, first.requested_seconds, first.reason) == ("dba,ops", 3599, "fix")
        assert first.event_id != second.event_id

    def test_approved_is_not_active(self) -> None:
        event = one(teleport("access_request.update", code="T5001I", id="r1", state="APPROVED", updated_by="bob"))
        assert event.event_type == "request.approved"
        assert event.grant_id is None
        assert (event.actor.id, event.approvals[0].reviewer) == ("bob", "bob")

    def test_the_first_of_two_reviews_is_on_record_and_pending(self) -> None:
        review = {"id": "r1", "reviewer": "bob", "proposed_state": "APPROVED", "code": "T5002I"}
        assert one(teleport("access_request.review", state="PENDING", **review)).outcome == "pending"
        assert one(teleport("access_request.review", state="APPROVED", **review)).outcome == "success"

    def test_a_denial(self) -> None:
        event = one(teleport("access_request.review", id="r", reviewer="b", proposed_state="DENIED", state="DENIED"))
        assert (event.event_type, event.outcome, event.approvals[0].decision) == ("request.denied", "denied", "denied")

    def test_a_state_that_decides_nothing_is_skipped(self) -> None:
        outcome = teleport("access_request.update", id="r", state="PENDING")
        assert isinstance(outcome, Skipped)
        assert outcome.reason == "nothing_changed"

    def test_a_request_that_expires_with_its_access_ends_the_grant(self) -> None:
        lapsed, ended = several(teleport("access_request.expire", id="r1", expires="2024-05-01T10:00:00Z"))
        assert (lapsed.event_type, lapsed.request_id) == ("request.expired", "r1")
        assert (ended.event_type, ended.grant_id, ended.removal_evidence) == ("grant.expired", "r1", "deadline")

    def test_a_pending_request_that_expires_ends_no_grant(self) -> None:
        assert one(teleport("access_request.expire", id="r1", expires="2024-05-01T22:00:00Z")).event_type == (
            "request.expired"
        )
        assert one(teleport("access_request.expire", id="r1")).event_type == "request.expired"

    def test_a_certificate_under_requests_is_a_grant_each(self) -> None:
        identity = {
            "user": "alice",
            "roles": ["dba"],
            "expires": "2024-05-01T11:00:00Z",
            "access_requests": ["r1", "r2"],
            "allowed_resource_ids": [{"cluster": "prod", "kind": "db", "name": "orders"}],
        }
        first, second = several(teleport("cert.create", code="TC000I", cert_type="user", identity=identity))
        assert (first.grant_id, first.grant_id_kind, first.request_id) == ("r1", "native", "r1")
        assert second.grant_id == "r2"
        assert first.expires_at == datetime(2024, 5, 1, 11, tzinfo=UTC)
        assert (first.expiry_source, first.entitlement) == ("native", "dba")
        assert first.resource and (first.resource.kind, first.resource.id) == ("db", "orders")

    def test_a_certificate_without_request_is_a_grant_of_its_own(self) -> None:
        event = one(teleport("cert.create", cert_type="user", identity={"user": "alice", "roles": ["dev"]}))
        assert (event.grant_id, event.grant_id_kind) == ("certificate:u1", "synthesized")
        assert (event.expiry_source, event.expires_at) == ("unknown", None)

    def test_a_host_certificate_is_nobodys_access(self) -> None:
        outcome = teleport("cert.create", cert_type="host", identity={"user": "node"})
        assert isinstance(outcome, Skipped)
        assert outcome.reason == "machine_identity"

    def test_a_lock_on_a_request_revokes_the_grant(self) -> None:
        event = one(teleport("lock.created", user="admin", target={"access_request": "r1"}))
        assert (event.event_type, event.grant_id, event.removal_evidence) == ("grant.revoked", "r1", "api_accepted")
        assert event.actor.id == "admin"

    def test_a_lock_on_a_user_revokes_all_they_have(self) -> None:
        event = one(teleport("lock.created", user="admin", target={"user": "alice"}))
        assert (event.subject.id, event.entitlement, event.grant_id_kind) == ("alice", "*", "synthesized")

    def test_a_session_names_the_grant_it_runs_under(self) -> None:
        start = {"user": "alice", "sid": "s1", "login": "root", "server_hostname": "db-1"}
        event = one(teleport("session.start", code="T2000I", access_requests=["r1"], **start))
        assert (event.event_type, event.grant_id, event.session_id, event.outcome) == (
            "session.started",
            "r1",
            "s1",
            "success",
        )
        assert one(teleport("session.start", access_requests=["r1", "r2"], **start)).grant_id is None

    @pytest.mark.parametrize("code", ["TDB00W", "T2007E"])
    def test_a_start_that_failed_is_a_denial(self, code: str) -> None:
        event = one(teleport("db.session.start", code=code, success=False, sid="s", user="a", error="access denied"))
        assert (event.event_type, event.outcome, event.error) == ("session.denied", "denied", "access denied")

    def test_a_rejected_session_is_a_denial_with_a_session_of_ours(self) -> None:
        event = one(teleport("session.rejected", code="T1006W", user="a", reason="max connections"))
        assert event.event_type == "session.denied"
        assert event.session_id and event.session_id.startswith("synthesized:session:")

    def test_a_kubernetes_request_with_403_is_denied(self) -> None:
        event = one(
            teleport("kube.request", user="a", verb="GET", request_path="/api", response_code=403, code="T3009I")
        )
        assert event.outcome == "denied"
        assert event.action and (event.action.command, event.action.args[0]) == ("GET", "/api")

    @pytest.mark.parametrize("event_type", ["db.session.neptune.query", "session.new_thing", "app.session.grpc"])
    def test_new_kinds_of_session_records_are_mapped(self, event_type: str) -> None:
        assert one(teleport(event_type, user="a", sid="s")).event_type in ("session.query", "session.command")

    def test_an_unknown_type_is_skipped_by_name(self) -> None:
        assert teleport("brand.new") == Skipped("event_unknown", "brand.new")

    @pytest.mark.parametrize(
        ("address", "ip"),
        [
            ("1.2.3.4:22", "1.2.3.4"),
            ("[::1]:22", "::1"),
            ("::1", "::1"),
            ("1.2.3.4", "1.2.3.4"),
            ("host.example:22", None),
        ],
    )
    def test_client_address(self, address: str, ip: str | None) -> None:
        assert one(teleport("session.start", sid="s", user="a", **{"addr.remote": address})).client_ip == ip

    def test_impersonator_is_the_actor(self) -> None:
        event = one(teleport("session.start", sid="s", user="alice", impersonator="bot-x"))
        assert (event.subject.id, event.actor.id) == ("alice", "bot-x")

    def test_access_list_members(self) -> None:
        member = [{"member_name": "alice", "reason": "joined the team"}]
        given = one(teleport("access_list.member.create", code="TAL005I", access_list_name="l1", members=member))
        taken = one(teleport("access_list.member.delete", code="TAL007I", access_list_name="l1", members=member))
        assert (given.event_type, taken.event_type) == ("grant.activated", "grant.revoked")
        assert given.grant_id == taken.grant_id

    def test_wrong_types_name_the_member(self) -> None:
        for members, field in (
            ({"user": 7}, "user"),
            ({"sid": ["x"]}, "sid"),
            ({"time": "yesterday"}, "time"),
            ({"time": "2024-05-01T10:00:00"}, "time"),
            ({"access_requests": "r"}, "access_requests"),
            ({"server_labels": []}, "server_labels"),
            ({"user": "\ud800"}, "user"),
            ({"exitCode": 2**70}, "exitCode"),
        ):
            with pytest.raises(RecordError) as caught:
                teleport("session.start", **{"sid": "s", "server_id": "n", **members})
            assert caught.value.field == field


def vault(path: str, operation: str = "read", **parts: Any) -> tuple[Event, ...] | Skipped:
    request = {
        "id": "q1",
        "operation": operation,
        "path": path,
        "namespace": {"id": "root"},
        "remote_address": "10.0.0.1",
    }
    auth = {"accessor": "hmac-a", "display_name": "oidc-alice", "policies": ["ops"], "metadata": {"username": "alice"}}
    entry = {"time": "2024-05-01T10:00:00.5Z", "type": "response", "auth": auth, "response": {}}
    request |= parts.pop("request", {})
    return make_adapter("vault").read(json.dumps({**entry, "request": request, **parts}).encode(), HERE)


class TestVault:
    def test_the_request_entry_is_skipped(self) -> None:
        assert vault("kv/a", type="request") == Skipped("request_half", "read kv/a")

    def test_an_action_names_its_token_as_grant_and_session(self) -> None:
        event = one(vault("kv/data/a", request={"data": {"x": "hmac"}}))
        assert (event.event_type, event.outcome, event.grant_id, event.session_id) == (
            "session.command",
            "success",
            "hmac-a",
            "hmac-a",
        )
        assert event.action and (event.action.command, event.action.args, event.action.redacted) == (
            "read",
            ("kv/data/a",),
            True,
        )
        assert (event.subject.id, event.subject.kind, event.client_ip) == ("oidc-alice", "human", "10.0.0.1")

    def test_a_login_is_a_grant(self) -> None:
        token = {"accessor": "hmac-new", "display_name": "oidc-bob", "policies": ["default", "ops"]}
        event = one(vault("auth/oidc/login", "update", response={"auth": token}))
        assert (event.event_type, event.grant_id, event.grant_id_kind) == ("grant.activated", "hmac-new", "native")
        assert (event.entitlement, event.expiry_source, event.expires_at) == ("default,ops", "unknown", None)

    def test_the_ttl_of_a_token_is_its_expiry_where_the_entry_has_it(self) -> None:
        token = {"accessor": "n", "policies": ["p"], "token_ttl": 3600, "token_issue_time": "2024-05-01T10:00:00Z"}
        event = one(vault("auth/token/create", "update", response={"auth": token}))
        assert event.expires_at == datetime(2024, 5, 1, 11, tzinfo=UTC)
        assert event.expiry_source == "derived"
        assert event.actor.id == "oidc-alice"

    def test_a_batch_token_gets_a_grant_id_of_ours(self) -> None:
        event = one(vault("auth/token/create", "update", response={"auth": {"policies": ["p"], "token_type": "batch"}}))
        assert event.grant_id_kind == "synthesized"

    def test_a_renewal_counts_from_now(self) -> None:
        token = {"accessor": "n", "policies": ["p"], "token_ttl": 60, "token_issue_time": "2024-05-01T01:00:00Z"}
        event = one(vault("auth/token/renew-self", "update", response={"auth": token}))
        assert event.event_type == "grant.extended"
        assert event.expires_at == datetime(2024, 5, 1, 10, 1, 0, 500_000, tzinfo=UTC)

    @pytest.mark.parametrize("error", ["permission denied", "1 error occurred:\n\t* permission denied\n\n"])
    def test_a_refusal(self, error: str) -> None:
        event = one(vault("kv/secret", error=error))
        assert (event.event_type, event.outcome, event.error) == ("session.denied", "denied", error)

    def test_a_refusal_by_policy_results(self) -> None:
        assert one(vault("kv/a", auth={"policy_results": {"allowed": False}})).event_type == "session.denied"

    def test_a_failed_login_is_a_denial_of_whom_the_path_names(self) -> None:
        event = one(
            vault("auth/userpass/login/bob", "update", auth={}, error="invalid username or password", response={})
        )
        assert (event.event_type, event.subject.id, event.grant_id) == ("session.denied", "bob", None)

    def test_another_error_is_a_failure(self) -> None:
        assert one(vault("x/y", error="unsupported path")).outcome == "failure"
        assert one(vault("x/y", response={"data": {"error": "hmac-1"}})).outcome == "failure"

    def test_a_secret_with_a_key_called_error_is_no_failure(self) -> None:
        assert one(vault("kv/a", response={"data": {"error": "hmac", "user": "hmac"}})).outcome == "success"

    def test_a_lease_is_a_grant_with_unknown_expiry(self) -> None:
        lease = "database/creds/readonly/abc"
        event = one(vault("database/creds/readonly", response={"secret": {"lease_id": lease}}))
        assert (event.event_type, event.grant_id, event.entitlement) == ("grant.activated", lease, "readonly")
        assert event.resource and event.resource.id == "database/creds/readonly"
        assert event.expiry_source == "unknown"

    def test_a_lease_is_given_back(self) -> None:
        event = one(vault("sys/leases/revoke/database/creds/readonly/abc", "update"))
        assert (event.event_type, event.grant_id, event.removal_evidence) == (
            "grant.revoked",
            "database/creds/readonly/abc",
            "api_accepted",
        )

    def test_leases_revoked_by_prefix_are_marked(self) -> None:
        event = one(vault("sys/leases/revoke-prefix/database/creds", "update"))
        assert (event.grant_id, event.grant_id_kind, event.entitlement) == (
            "prefix:database/creds",
            "synthesized",
            "*",
        )

    @pytest.mark.parametrize(
        ("path", "data", "grant"),
        [
            ("auth/token/revoke-self", {}, "hmac-a"),
            ("auth/token/revoke-accessor", {"accessor": "hmac-b"}, "hmac-b"),
            ("auth/token/revoke", {"token": "hmac-t"}, "hmac-t"),
        ],
    )
    def test_a_token_is_revoked(self, path: str, data: dict[str, str], grant: str) -> None:
        event = one(vault(path, "update", request={"data": data}))
        assert (event.event_type, event.grant_id, event.actor.id) == ("grant.revoked", grant, "oidc-alice")

    def test_a_revocation_that_failed_revokes_nothing(self) -> None:
        assert one(vault("auth/token/revoke", "update", error="internal error")).event_type == "session.command"

    def test_a_certificate_has_a_native_expiry(self) -> None:
        data = {"serial_number": "hmac-s", "expiration": 1714561200}
        event = one(vault("pki/issue/web", "update", response={"data": data}))
        assert (event.event_type, event.grant_id, event.entitlement) == ("grant.activated", "hmac-s", "web")
        assert event.expires_at == datetime(2024, 5, 1, 11, tzinfo=UTC)
        gone = one(vault("pki/revoke", "update", request={"data": {"serial_number": "hmac-s"}}))
        assert (gone.event_type, gone.grant_id) == ("grant.revoked", "hmac-s")

    def test_a_wrapped_login_is_two_grants(self) -> None:
        wrap = {
            "accessor": "w",
            "wrapped_accessor": "i",
            "ttl": 60,
            "creation_time": "2024-05-01T10:00:00Z",
            "creation_path": "auth/oidc/login",
        }
        outer, inner = several(vault("auth/oidc/login", "update", response={"wrap_info": wrap}))
        assert (outer.grant_id, outer.expires_at) == ("w", datetime(2024, 5, 1, 10, 1, tzinfo=UTC))
        assert (inner.grant_id, inner.expiry_source) == ("i", "unknown")

    def test_the_namespace_is_the_instance(self) -> None:
        event = one(vault("kv/a", request={"namespace": {"id": "x1", "path": "team/"}}))
        assert event.source.instance == "team"

    def test_ui_lookups_are_skipped_unless_refused(self) -> None:
        assert vault("sys/internal/ui/mounts/kv") == Skipped("ui_lookup", "sys/internal/ui/mounts/kv")
        assert one(vault("sys/internal/ui/mounts/kv", error="permission denied")).event_type == "session.denied"

    def test_an_entry_of_no_known_type_fails(self) -> None:
        with pytest.raises(RecordError) as caught:
            vault("kv/a", type="other")
        assert caught.value.field == "type"


class TestDocumentation:
    """docs/adapters.md names everything that an adapter may answer."""

    TEXT = (REPOSITORY / "docs" / "adapters.md").read_text("utf-8")

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
        assert set(adapter.SKIP_REASONS) == {"blank_line", "door_test"}
        for raw in (b'{"kind": "slammed"}', b'{"kind": "opened"}', b'{"kind": "opened", "person": 7}'):
            with pytest.raises(RecordError, match="^file:7: "):
                adapter.read(raw, HERE)

    def test_every_skip_reason_is_documented(self, tool: str) -> None:
        for reason in make_adapter(tool).SKIP_REASONS:
            assert f"`{reason}`" in self.TEXT

    def test_every_teleport_type_that_is_named_in_the_code_is_documented(self) -> None:
        named = (
            {event for types in event_types.SKIPPED_TYPES.values() for event in types}
            | event_types.SESSION_STARTS
            | event_types.SESSION_ENDS
        )
        for event in named | event_types.DENIALS | event_types.ACTIONS:
            assert f"`{event}`" in self.TEXT, event
