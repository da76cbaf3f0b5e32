"""Kinds of records that were mapped wrongly in the field: each as a case where its file is there, and self-made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from grantledger.producers.adapters import Adapter, RecordError, Skipped, make_adapter
from grantledger.schemas.event import Event
from support.adapters import HERE
from support.cases import Cases

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TIME = "2026-03-01T12:00:00Z"


def played(cases: Cases, tool: str, name: str) -> tuple[list[Event], list[Skipped]]:
    """Return the events and skips of a case, read by one adapter as in one run."""
    lines = cases.text(name, NOW).encode().splitlines()
    return _read(make_adapter(tool), lines)


def run(tool: str, *records: dict[str, Any]) -> tuple[list[Event], list[Skipped]]:
    """Return the events and skips of records, read by one adapter as in one run."""
    return _read(make_adapter(tool), [json.dumps(record).encode() for record in records])


def _read(adapter: Adapter, lines: list[bytes]) -> tuple[list[Event], list[Skipped]]:
    results = [adapter.read(line, HERE) for line in lines]
    skipped = [one for one in results if isinstance(one, Skipped)]
    events = [event for one in results if not isinstance(one, Skipped) for event in one]
    assert len({event.event_id for event in events}) == len(events)
    return events, skipped


def teleport(number: int, event: str, code: str = "", **members: Any) -> dict[str, Any]:
    base = {"event": event, "code": code, "uid": f"u{number}", "time": TIME, "cluster_name": "prod"}
    return {**base, **members}


def certificate(number: int, request: str, until: str = "2026-03-01T20:00:00Z", **identity: Any) -> dict[str, Any]:
    given = {"user": "alice", "roles": ["dba", "ops"], "access_requests": [request], "expires": until, **identity}
    return teleport(number, "cert.create", "TC000I", cert_type="user", identity=given)


def types(events: list[Event]) -> list[str]:
    return [event.event_type for event in events]


def of_type(events: list[Event], event_type: str) -> Iterator[Event]:
    return (event for event in events if event.event_type == event_type)


def places(events: list[Event]) -> set[tuple[str, str]]:
    return {(event.resource.kind, event.resource.id) for event in events if event.resource}


class TestAgents:
    def test_08_sessions_and_commands(self, cases: Cases) -> None:
        events, skipped = played(cases, "teleport", "08")
        assert types(events) == ["session.started", "session.command", "session.ended", "session.command"]
        assert not skipped and events[0].actor.kind == "agent" and events[0].actor.on_behalf_of == "alice@example.com"
        assert events[1].action and (events[1].action.command, events[1].action.args) == (
            "delete_file", ("path=/etc/x",),
        )  # fmt: skip

    def test_the_parameters_of_a_tool_call_are_its_arguments(self) -> None:
        message = {"method": "resources/read", "params": {"uri": "file:///etc/shadow", "limit": 3, "tags": [1]}}
        session = {"sid": "s", "user": "alice", "app_name": "files"}
        events, _ = run(
            "teleport",
            teleport(1, "mcp.session.request", "TMCP003E", message=message, error="access denied", **session),
            teleport(2, "mcp.session.notification", message={"method": "notifications/cancelled"}, **session),
            teleport(3, "mcp.session.listen_sse_stream", **session),
            teleport(4, "mcp.session.end", "TMCP002E", success=False, **session),
        )
        assert types(events) == ["session.command"] * 4
        action = events[0].action
        assert action and (action.command, action.args) == (
            "resources/read",
            ("file:///etc/shadow", "limit=3", "tags=[1]"),
        )
        assert [event.outcome for event in events[::3]] == ["denied", "failure"]

    def test_an_agent_that_said_its_name_acts_for_the_user(self) -> None:
        begin = {"method": "initialize", "params": {"clientInfo": {"name": "claude-ai"}}}
        session = {"sid": "s", "user": "alice"}
        (first, named, later), _ = run(
            "teleport",
            teleport(1, "mcp.session.start", "TMCP001I", **session),
            teleport(2, "mcp.session.request", "TMCP003I", message=begin, **session),
            teleport(3, "mcp.session.request", "TMCP003I", message={"method": "tools/call"}, **session),
        )
        assert (first.actor.id, first.actor.on_behalf_of) == ("alice", None)
        for event in (named, later):
            assert (event.actor.id, event.actor.kind, event.actor.on_behalf_of) == ("claude-ai", "agent", "alice")

    def test_a_bot_by_its_own_user_acts_for_nobody(self) -> None:
        bot = {"user": "bot-ci", "bot_name": "ci", "user_kind": 2, "sid": "s"}
        (event,), _ = run("teleport", teleport(1, "mcp.session.start", "TMCP001I", **bot))
        assert (event.actor.id, event.actor.kind, event.actor.on_behalf_of) == ("bot-ci", "agent", None)
        (event,), _ = run("teleport", teleport(1, "session.start", "T2000I", **bot))
        assert (event.subject.kind, event.actor.kind) == ("service", "service")

    def test_a_git_command_names_repository_and_references(self) -> None:
        change = {"action": "create", "reference": "refs/heads/main", "old": "00", "new": "a1"}
        git = {"service": "git-receive-pack", "path": "org/repo.git", "actions": [change], "server_id": "g1"}
        (event,), _ = run("teleport", teleport(1, "git.command", "TGIT001I", user="alice", **git))
        assert event.action and event.action.args == ("org/repo.git", "create refs/heads/main 00 a1")
        assert places([event]) == {("git_server", "g1")}


class TestAccessLists:
    def test_09_all_members_removed(self, cases: Cases) -> None:
        events, skipped = played(cases, "teleport", "09")
        assert set(types(events)) == {"grant.revoked", "policy.changed"}
        assert "access_list:prod-admins/alice@example.com" in {event.grant_id for event in events}
        assert [one.reason for one in skipped] == ["nothing_changed"]

    @pytest.mark.parametrize("event", ["access_list.member.delete_all_for_access_list", "access_list.delete"])
    def test_the_end_of_all_memberships_names_what_every_membership_names(self, event: str) -> None:
        member = [{"member_name": "alice"}]
        (given,), _ = run("teleport", teleport(1, "access_list.member.create", access_list_name="l", members=member))
        found, _ = run("teleport", teleport(2, event, name="l", updated_by="bob"))  # another run
        (ended,) = of_type(found, "grant.revoked")
        assert (ended.grant_id, ended.request_id) == (None, given.request_id)
        assert (ended.event_type, ended.removal_evidence, ended.actor.id) == ("grant.revoked", "api_accepted", "bob")
        refused, _ = run("teleport", teleport(2, event, "TAL008E", name="l", members=member))
        assert not list(of_type(refused, "grant.revoked"))

    def test_a_review_takes_memberships_away(self) -> None:
        record = teleport(1, "access_list.review", "TAL004I", name="l", removed_members=["alice", "bob"])
        events, _ = run("teleport", record)
        assert [(event.event_type, event.grant_id) for event in events] == [
            ("grant.revoked", "access_list:l/alice"), ("grant.revoked", "access_list:l/bob"),
        ]  # fmt: skip


class TestResources:
    ASKED = (
        {"cluster": "prod", "kind": "node", "name": "n1"},
        {"cluster": "prod", "kind": "db", "name": "orders"},
        {"cluster": "prod", "kind": "pod", "name": "k1", "sub_resource": "web/pod-1"},
        {"cluster": "prod", "kind": "app", "name": "wiki"},
    )

    def test_19_one_grant_on_each_resource(self, cases: Cases) -> None:
        events, _ = played(cases, "teleport", "19")
        granted = list(of_type(events, "grant.activated"))
        expected = {("server", "n1"), ("database", "orders"), ("kubernetes_cluster", "k1")}
        assert places(granted) == places(list(of_type(events, "request.created"))) == expected
        assert len({event.grant_id for event in granted}) == 3 and {event.request_id for event in granted} == {"t07"}

    def test_sessions_are_on_the_resources_of_the_request_and_of_the_grants(self) -> None:
        who = {"user": "alice", "sid": "s", "access_requests": ["r1"]}
        events, _ = run(
            "teleport",
            teleport(1, "access_request.create", "T5000I", id="r1", user="alice", resource_ids=self.ASKED),
            certificate(2, "r1", allowed_resource_ids=self.ASKED),
            teleport(3, "session.start", "T2000I", server_id="n1", server_hostname="host-1", **who),
            teleport(4, "db.session.start", "TDB00I", db_service="orders", server_id="agent", **who),
            teleport(5, "session.start", "T2000I", kubernetes_cluster="k1", server_id="agent", **who),
            teleport(6, "app.session.start", "T2007I", app_name="wiki", server_id="agent", **who),
        )
        kinds = [
            places(list(of_type(events, kind))) for kind in ("request.created", "grant.activated", "session.started")
        ]
        assert kinds[0] == kinds[1] == kinds[2] and len(kinds[0]) == 4
        granted = list(of_type(events, "grant.activated"))
        assert [event.grant_id for event in granted] == [
            "r1", "r1/database/orders", "r1/kubernetes_cluster/k1/pod web/pod-1", "r1/application/wiki",
        ]  # fmt: skip
        assert granted[2].entitlement == "dba,ops on pod web/pod-1"
        assert all(event.ends_by_itself for event in granted)

    def test_resources_with_constraints_are_read_alike(self) -> None:
        wrapped = [{"id": one, "ssh": {"logins_count": 1}} for one in self.ASKED]
        created = teleport(1, "access_request.create", id="r1", user="alice", RequestedResourceAccessIDs=wrapped)
        events, _ = run("teleport", created, certificate(2, "r1", AllowedResourceAccessIDs=wrapped))
        plain, _ = run("teleport", certificate(2, "r1", allowed_resource_ids=self.ASKED))
        assert places(events[:4]) == places(events[4:]) == places(plain)

    def test_two_certificates_of_one_request_are_the_same_grants(self) -> None:
        events, _ = run("teleport", *(certificate(number, "r1", allowed_resource_ids=self.ASKED) for number in (1, 2)))
        assert len({event.grant_id for event in events}) == 4


class TestExpiry:
    def test_20_a_pending_request_that_lapses_only_expires(self, cases: Cases) -> None:
        events, _ = played(cases, "teleport", "20")
        assert types(events) == ["request.created", "request.expired"]

    @pytest.mark.parametrize(
        ("state", "ends"), [("PENDING", False), ("DENIED", False), ("APPROVED", True), ("PROMOTED", True), (None, True)]
    )
    def test_only_an_approved_request_ends_a_grant(self, state: str | None, ends: bool) -> None:
        record = teleport(1, "access_request.expire", "T5005I", id="r1", state=state, expires="2026-03-01T11:00:00Z")
        events, _ = run("teleport", record)
        assert ("grant.expired" in types(events)) is ends

    def test_without_a_state_the_run_knows_whether_a_request_was_decided(self) -> None:
        created = teleport(1, "access_request.create", "T5000I", id="r1", user="alice", state="PENDING")
        review = {"id": "r1", "reviewer": "bob", "state": "APPROVED", "proposed_state": "APPROVED"}
        expired = teleport(3, "access_request.expire", "T5005I", id="r1", expires="2026-03-01T11:00:00Z")
        assert "grant.expired" not in types(run("teleport", created, expired)[0])
        approved = teleport(2, "access_request.review", "T5002I", **review)
        assert "grant.expired" in types(run("teleport", created, approved, expired)[0])


class TestLocks:
    def test_21_a_lifted_lock_gives_the_grant_back(self, cases: Cases) -> None:
        events, skipped = played(cases, "teleport", "21")
        assert not skipped
        about = [(event.event_type, event.grant_id) for event in events if event.grant_id]
        assert about == [("grant.activated", "t03"), ("grant.revoked", "t03"), *[("grant.activated", "t03")] * 2]
        given, _, lapsed, lifted = (event for event in events if event.grant_id)
        assert lifted.expires_at == lapsed.expires_at == given.expires_at
        assert lapsed.starts_at == datetime(2026, 11, 28, 6, 5, 39, 558_851, UTC) and lifted.starts_at is None

    @pytest.mark.parametrize("target", [{"user": "alice"}, {"role": "ops"}])
    def test_a_lock_takes_every_running_grant_of_its_target_and_its_end_returns_them(
        self, target: dict[str, str]
    ) -> None:
        lock = {"name": "l1", "user": "admin", "target": target}
        events, skipped = run(
            "teleport",
            certificate(1, "r1"),
            certificate(2, "r2", until="2026-03-01T13:00:00Z"),
            certificate(3, "over", until="2026-03-01T11:00:00Z"),
            certificate(4, "other", user="bob", roles=["dev"]),
            teleport(5, "lock.created", "TLK00I", **lock),
            teleport(6, "lock.deleted", "TLK01I", name="l1", user="admin", time="2026-03-01T14:00:00Z"),
            teleport(7, "lock.deleted", "TLK01I", name="l1", user="admin", time="2026-03-01T15:00:00Z"),
        )
        taken = {event.grant_id for event in of_type(events, "grant.revoked")}
        assert taken == {"r1", "r2"} | ({"user:alice"} if "user" in target else set())
        (back,) = (event for event in events if event.source.native_id == "u6" and event.grant_id)
        assert (back.event_type, back.grant_id, back.subject.id, back.actor.id) == (
            "grant.activated",
            "r1",
            "alice",
            "admin",
        )
        assert not skipped
        assert types([one for one in events if one.source.native_id == "u7"]) == ["policy.changed"], "a lock ends once"

    def test_a_lock_with_an_end_returns_what_outlasts_it(self) -> None:
        lock = {"name": "l1", "target": {"access_request": "r1"}, "expires": "2026-03-01T18:00:00Z"}
        events, _ = run("teleport", certificate(1, "r1"), teleport(2, "lock.created", **lock))
        assert types(events) == ["grant.activated", "policy.changed", "grant.revoked", "grant.activated"]
        assert events[3].starts_at == datetime(2026, 3, 1, 18, tzinfo=UTC)
        long = {**lock, "expires": "2026-03-02T00:00:00Z"}
        events, _ = run("teleport", certificate(1, "r1"), teleport(2, "lock.created", **long))
        assert types(events) == ["grant.activated", "policy.changed", "grant.revoked"]

    def test_ids_do_not_depend_on_what_else_was_seen(self) -> None:
        lock = teleport(5, "lock.created", name="l1", target={"user": "alice"})
        alone, _ = run("teleport", certificate(2, "r2"), lock)
        among, _ = run("teleport", certificate(1, "r1"), certificate(2, "r2"), lock)
        assert {event.event_id for event in alone} < {event.event_id for event in among}


class TestCrash:
    def test_22_the_upload_ends_the_session(self, cases: Cases) -> None:
        events, _ = played(cases, "teleport", "22")
        assert types(events)[-1] == "session.ended" and events[-1].session_id == "s-cr"

    def test_an_upload_names_no_resource_and_no_user(self) -> None:
        (event,), _ = run("teleport", teleport(1, "session.upload", "T2005I", sid="s1", url="s3://b/s1.tar"))
        assert (event.event_type, event.session_id, event.resource, event.subject.id) == (
            "session.ended", "s1", None, "unknown",
        )  # fmt: skip


def aws(number: int, service: str, call: str, **members: Any) -> dict[str, Any]:
    user = {
        "type": "IAMUser",
        "arn": "arn:aws:iam::111122223333:user/alice",
        "userName": "alice",
        "accountId": "111122223333",
    }
    base = {"userIdentity": user, "eventTime": TIME, "eventSource": f"{service}.amazonaws.com", "eventName": call}
    return {**base, "eventID": f"e{number}", "recipientAccountId": "111122223333", "awsRegion": "eu-west-1", **members}


class TestTemporaryAccessInAws:
    def test_23_keys_and_certificates(self, cases: Cases) -> None:
        events, skipped = played(cases, "cloudtrail", "23")
        assert types(events) == ["grant.activated", "grant.activated", "session.started", "grant.activated"]
        assert not skipped
        anywhere, pushed, _, pod = events
        assert (anywhere.grant_id, pod.grant_id) == ("ASIAEXAMPLEROLESANY1", "ASIAEXAMPLEPODIDENT1")
        assert pushed.resource and (pushed.resource.id, pushed.entitlement) == ("i-0123", "ec2-user")
        assert all(event.ends_by_itself and event.expires_at for event in (anywhere, pushed, pod))

    def test_07_temporary_credentials_end_automatically(self, cases: Cases) -> None:
        (event,), _ = played(cases, "cloudtrail", "07")
        assert (event.event_type, event.expiry_source, event.ends_by_itself) == ("grant.activated", "native", True)

    def test_a_refused_key_or_certificate_gives_nothing(self) -> None:
        asked = {"instanceId": "i-1", "instanceOSUser": "root"}
        events, _ = run(
            "cloudtrail",
            aws(1, "ec2-instance-connect", "SendSSHPublicKey", requestParameters=asked, errorCode="AccessDenied"),
            aws(
                2,
                "ec2-instance-connect",
                "SendSSHPublicKey",
                requestParameters=asked,
                responseElements={"success": False},
            ),
            aws(3, "rolesanywhere", "CreateSession", requestParameters={}, errorCode="AccessDeniedException"),
            aws(4, "ec2-instance-connect", "OpenTunnel", requestParameters=asked, errorCode="AccessDenied"),
        )
        assert types(events) == ["grant.failed", "grant.failed", "grant.failed", "session.denied"]
        assert [event.outcome for event in events] == ["denied", "failure", "denied", "denied"]

    def test_several_credentials_of_one_session_are_a_grant_each(self) -> None:
        given = [{"credentials": {"accessKeyId": f"ASIAEXAMPLE00000000{one}"}} for one in "12"]
        answer = {"subjectArn": "arn:aws:rolesanywhere:eu-west-1:1:subject/s", "credentialSet": given}
        events, _ = run("cloudtrail", aws(1, "rolesanywhere", "CreateSession", responseElements=answer))
        assert [event.grant_id for event in events] == ["ASIAEXAMPLE000000001", "ASIAEXAMPLE000000002"]

    def test_credentials_in_any_response_are_a_grant(self) -> None:
        given = {"accessKeyId": "ASIAEXAMPLE000000001", "expiration": "Mar 1, 2026, 1:00:00 PM"}
        password = {"dbUser": "IAM:alice", "expiration": "Mar 1, 2026, 1:00:00 PM"}
        asked = {"clusterIdentifier": "dw", "dbUser": "alice", "durationSeconds": 900}
        events, skipped = run(
            "cloudtrail",
            aws(1, "cognito-identity", "GetCredentialsForIdentity", responseElements={"credentials": given}),
            aws(2, "redshift", "GetClusterCredentials", requestParameters=asked, responseElements=password),
            aws(3, "redshift", "GetClusterCredentials", requestParameters=asked),
            aws(4, "redshift", "GetClusterCredentials", requestParameters=asked, errorCode="AccessDenied"),
            aws(5, "glue", "GetConnection", responseElements={"credentials": ["text"]}),
        )
        assert types(events) == ["grant.activated"] * 3 + ["grant.failed"] and len(skipped) == 1
        ends = [f"{event.expires_at:%H:%M} {event.expiry_source}" for event in events[:3]]
        assert ends == ["13:00 native", "13:00 native", "12:15 derived"]
        assert [event.entitlement for event in events[1:]] == ["IAM:alice", "alice", "alice"]

    def test_an_access_entry_is_given_and_taken(self) -> None:
        entry = {"name": "c1", "principalArn": "arn%3Aaws%3Aiam%3A%3A111122223333%3Arole%2Fops"}
        policy = {
            **entry,
            "policyArn": "arn:aws:eks::aws:cluster-access-policy/Admin",
            "accessScope": {"namespaces": ["web"]},
        }
        events, _ = run(
            "cloudtrail",
            aws(1, "eks", "CreateAccessEntry", requestParameters={**entry, "kubernetesGroups": ["viewers"]}),
            aws(2, "eks", "AssociateAccessPolicy", requestParameters=policy),
            aws(3, "eks", "DisassociateAccessPolicy", requestParameters=policy),
            aws(4, "eks", "DeleteAccessEntry", requestParameters=entry),
        )
        created, associated, taken, deleted = events
        assert types(events) == ["grant.activated"] * 2 + ["grant.revoked"] * 2
        assert (created.subject.id, created.entitlement) == ("arn:aws:iam::111122223333:role/ops", "viewers")
        assert associated.grant_id == taken.grant_id != created.grant_id
        assert deleted.grant_id is None and {event.request_id for event in events} == {deleted.request_id}
        node = {**entry, "type": "EC2_LINUX"}
        assert run("cloudtrail", aws(5, "eks", "CreateAccessEntry", requestParameters=node))[1]


class TestObjectsInS3:
    KEY: ClassVar = {
        "accessKeyId": "ASIAEXAMPLE000000001",
        "type": "AssumedRole",
        "arn": "arn:aws:sts::1:assumed-role/r/alice",
    }

    def test_24_the_object_is_the_resource(self, cases: Cases) -> None:
        (event,), _ = played(cases, "cloudtrail", "24")
        assert event.resource and event.resource.id == "arn:aws:s3:::prod-secrets/a.txt"

    @pytest.mark.parametrize(
        ("members", "resource"),
        [
            ({"requestParameters": {"bucketName": "b", "key": "x/y"}}, ("AWS::S3::Object", "arn:aws:s3:::b/x/y")),
            ({"requestParameters": {"bucketName": "b"}}, ("AWS::S3::Bucket", "arn:aws:s3:::b")),
            ({"requestParameters": None}, ("aws_account", "111122223333")),
            (
                {
                    "requestParameters": {"key": "k"},
                    "resources": [{"type": "AWS::S3::Bucket", "ARN": "arn:aws-cn:s3:::b", "accountId": "1"}],
                },
                ("AWS::S3::Object", "arn:aws-cn:s3:::b/k"),
            ),
            (
                {"requestParameters": {}, "resources": [{"type": "AWS::S3::Object", "ARNPrefix": "arn:aws:s3:::b/"}]},
                ("aws_account", "111122223333"),
            ),
        ],
    )
    def test_an_object_or_bucket_is_named_however_it_is_spelled(self, members: Any, resource: tuple[str, str]) -> None:
        events, _ = run("cloudtrail", aws(1, "s3", "DeleteObject", userIdentity=self.KEY, **members))
        assert places(events) == {resource}


def vault(
    number: int, path: str, accessor: str | None = "parent", operation: str = "update", **parts: Any
) -> dict[str, Any]:
    request = {"id": f"q{number}", "operation": operation, "path": path, "client_token_accessor": accessor}
    request |= parts.pop("request", {})
    return {
        "time": TIME,
        "type": "response",
        "auth": {"accessor": accessor},
        "request": request,
        "response": {},
        **parts,
    }


def token(accessor: str, **members: Any) -> dict[str, Any]:
    return {"auth": {"accessor": accessor, "client_token": f"hmac-{accessor}", "policies": ["db"], **members}}


def lease(id: str) -> dict[str, Any]:
    return {"secret": {"lease_id": f"database/creds/{id}"}}


class TestVaultEntries:
    def test_15_help_is_a_command_and_kmip_is_skipped(self, cases: Cases) -> None:
        (event,), (skipped,) = played(cases, "vault", "15")
        assert (event.event_type, event.action and event.action.command) == ("session.command", "help")
        assert skipped.reason == "kmip"

    def test_an_entry_without_an_id_gets_the_same_id_each_time(self) -> None:
        entry = vault(1, "ca/roles/a", operation="help")
        other = vault(1, "ca/roles/b", operation="help")
        del entry["request"]["id"], other["request"]["id"]
        ids = [run("vault", one)[0][0].event_id for one in (entry, entry, other)]
        assert ids[0] == ids[1] != ids[2]

    def test_help_on_the_root_has_no_path(self) -> None:
        (event,), _ = run("vault", {**vault(1, "x"), "request": {"operation": "help"}})
        assert event.action and event.action.args == ("/",)
        with pytest.raises(RecordError, match="request.path: is missing"):
            run("vault", {**vault(1, "x"), "request": {"operation": "read"}})

    @pytest.mark.parametrize("kind", ["kmip-request", "kmip-response"])
    def test_kmip_has_neither_path_nor_id(self, kind: str) -> None:
        _, (skipped,) = run("vault", {"time": TIME, "type": kind, "request": {"data": {"kmip_request": []}}})
        assert skipped.reason == "kmip"

    def test_16_a_certificate_until_the_year_9999(self, cases: Cases) -> None:
        (event,), _ = played(cases, "vault", "16")
        assert event.expires_at == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

    def test_certificates_and_batch_tokens_end_automatically(self) -> None:
        issued = {"data": {"serial_number": "aa", "expiration": 253402300799}}
        batch = {"auth": {"token_type": "batch", "token_ttl": 60}}
        events, _ = run(
            "vault",
            vault(1, "pki/issue/web", response=issued),
            vault(2, "pki/issue/web", response={**issued, "secret": {"lease_id": "pki/issue/web/l"}}),
            vault(3, "auth/approle/login", None, response=batch),
            vault(4, "auth/approle/login", None, response=token("t", token_type="service", token_ttl=60)),
            vault(5, "ssh/sign/ops", response={"data": {"serial_number": "bb"}}),
        )
        assert [event.ends_by_itself for event in events] == [True, True, True, None, None]
        assert events[1].expires_at == events[0].expires_at


class TestParentTokens:
    GIVEN = (
        vault(1, "auth/oidc/oidc/callback", response=token("parent")),
        vault(2, "database/creds/ro", operation="read", response=lease("l1")),
        vault(3, "auth/token/create", response=token("child")),
        vault(4, "database/creds/rw", "child", "read", response=lease("l2")),
        vault(5, "auth/token/create-orphan", response=token("orphan")),
        vault(6, "auth/token/create", response=token("free"), request={"data": {"no_parent": True}}),
        vault(7, "auth/token/create/role", response=token("by-role")),
        vault(8, "auth/oidc/oidc/callback", "other", response=token("other")),
        vault(9, "database/creds/ro", "other", "read", response=lease("l9")),
    )

    def revoked(self, *entries: dict[str, Any]) -> list[str | None]:
        events, _ = run("vault", *self.GIVEN, *entries)
        return [event.grant_id for event in of_type(events, "grant.revoked")]

    def test_17_children_and_leases_end_with_the_parent(self, cases: Cases) -> None:
        events, _ = played(cases, "vault", "17")
        ended = {event.grant_id for event in of_type(events, "grant.revoked")}
        assert ended == {event.grant_id for event in of_type(events, "grant.activated")}

    @pytest.mark.parametrize(
        "entry",
        [
            vault(20, "auth/token/revoke-self"),
            vault(20, "auth/token/revoke-accessor", "root", request={"data": {"accessor": "parent"}}),
        ],
    )
    def test_everything_below_ends_in_any_depth(self, entry: dict[str, Any]) -> None:
        assert self.revoked(entry, vault(21, "auth/token/revoke-self")) == [
            "parent", "database/creds/l1", "child", "database/creds/l2", "parent",
        ]  # fmt: skip

    def test_a_token_may_be_named_by_its_hmac(self) -> None:
        entry = vault(20, "auth/token/revoke", "root", request={"data": {"token": "hmac-child"}})
        assert self.revoked(entry) == ["hmac-child", "child", "database/creds/l2"]

    def test_an_orphaning_revocation_spares_the_child_tokens(self) -> None:
        entry = vault(20, "auth/token/revoke-orphan", "root", request={"data": {"token": "hmac-parent"}})
        assert self.revoked(entry) == ["hmac-parent", "parent", "database/creds/l1"]

    def test_a_prefix_ends_the_leases_below_it(self) -> None:
        entry = vault(20, "sys/leases/revoke-prefix/database/creds/", "root")
        assert set(self.revoked(entry)[1:]) == {f"database/creds/l{number}" for number in (1, 2, 9)}

    def test_a_refused_revocation_ends_nothing(self) -> None:
        entry = vault(20, "auth/token/revoke-self", error="1 error occurred: * permission denied")
        assert self.revoked(entry) == []

    def test_a_lease_that_ended_before_ends_once(self) -> None:
        first = vault(19, "sys/leases/revoke/database/creds/l1", "root")
        assert self.revoked(first, vault(20, "auth/token/revoke-self")).count("database/creds/l1") == 1


def test_31_a_record_with_two_members_of_one_name_fails(cases: Cases) -> None:
    with pytest.raises(RecordError, match="'event', 'user'"):
        played(cases, "teleport", "31")


@pytest.mark.parametrize("tool", ["cloudtrail", "hoop", "teleport", "vault"])
def test_every_event_names_its_mapping(tool: str) -> None:
    adapter = make_adapter(tool)
    assert adapter.VERSION.isdecimal() and adapter._mapping.adapter == tool
