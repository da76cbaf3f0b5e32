"""The Teleport adapter: particular records."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from grantledger.producers.adapters import RecordError, Skipped
from grantledger.schemas.event import IssuingSource
from support.adapters import Result, one, read, reason, several


def teleport(event: str, **members: Any) -> Result:
    record = {"event": event, "uid": "u1", "time": "2024-05-01T10:00:00.123Z", "cluster_name": "prod", **members}
    return read("teleport", record)


def test_a_request_for_several_resources_is_one_event_each() -> None:
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


def test_a_session_on_a_leaf_cluster_names_the_requests_of_the_root_cluster() -> None:
    session = {"sid": "s1", "user": "alice", "access_requests": ["r1"]}
    leaf = one(teleport("session.start", cluster_name="leaf", user_cluster_name="prod", **session))
    assert (leaf.source.instance, leaf.grant_source, leaf.request_source, leaf.session_source) == (
        "leaf", IssuingSource("teleport", "prod"), IssuingSource("teleport", "prod"), None,
    )  # fmt: skip
    own = one(teleport("session.start", user_cluster_name="prod", **session))
    assert (own.grant_source, own.request_source) == (None, None)
    without = one(teleport("session.start", cluster_name="leaf", user_cluster_name="prod", sid="s1", user="alice"))
    assert (without.grant_id, without.grant_source) == (None, None)


def test_approved_is_not_active() -> None:
    event = one(teleport("access_request.update", code="T5001I", id="r1", state="APPROVED", updated_by="bob"))
    assert event.event_type == "request.approved"
    assert event.grant_id is None
    assert (event.actor.id, event.approvals[0].reviewer) == ("bob", "bob")


def test_the_first_of_two_reviews_is_on_record_and_pending() -> None:
    review = {"id": "r1", "reviewer": "bob", "proposed_state": "APPROVED", "code": "T5002I"}
    assert one(teleport("access_request.review", state="PENDING", **review)).outcome == "pending"
    assert one(teleport("access_request.review", state="APPROVED", **review)).outcome == "success"


def test_a_denial() -> None:
    event = one(teleport("access_request.review", id="r", reviewer="b", proposed_state="DENIED", state="DENIED"))
    assert (event.event_type, event.outcome, event.approvals[0].decision) == ("request.denied", "denied", "denied")


def test_a_state_that_decides_nothing_is_skipped() -> None:
    assert reason(teleport("access_request.update", id="r", state="PENDING")) == "nothing_changed"


def test_a_request_that_expires_with_its_access_ends_the_grant() -> None:
    lapsed, ended = several(teleport("access_request.expire", id="r1", expires="2024-05-01T10:00:00Z"))
    assert (lapsed.event_type, lapsed.request_id) == ("request.expired", "r1")
    assert (ended.event_type, ended.grant_id, ended.removal_evidence) == ("grant.expired", "r1", "deadline")


def test_a_pending_request_that_expires_ends_no_grant() -> None:
    assert one(teleport("access_request.expire", id="r1", expires="2024-05-01T22:00:00Z")).event_type == (
        "request.expired"
    )
    assert one(teleport("access_request.expire", id="r1")).event_type == "request.expired"


def test_a_certificate_under_requests_is_a_grant_each() -> None:
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
    assert first.resource and (first.resource.kind, first.resource.id) == ("database", "orders")


def test_a_certificate_without_request_is_a_grant_of_its_own() -> None:
    event = one(teleport("cert.create", cert_type="user", identity={"user": "alice", "roles": ["dev"]}))
    assert (event.grant_id, event.grant_id_kind) == ("certificate:u1", "synthesized")
    assert (event.expiry_source, event.expires_at) == ("unknown", None)


def test_host_certificates_are_skipped() -> None:
    assert reason(teleport("cert.create", cert_type="host", identity={"user": "node"})) == "machine_identity"


def test_a_lock_on_a_request_revokes_the_grant() -> None:
    _, event = several(teleport("lock.created", user="admin", target={"access_request": "r1"}))
    assert (event.event_type, event.grant_id, event.removal_evidence) == ("grant.revoked", "r1", "api_accepted")
    assert event.actor.id == "admin"


def test_a_lock_on_a_user_revokes_all_they_have() -> None:
    _, event = several(teleport("lock.created", user="admin", target={"user": "alice"}))
    assert (event.subject.id, event.entitlement, event.grant_id_kind) == ("alice", "*", "synthesized")


def test_a_session_names_the_grant_it_runs_under() -> None:
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
def test_a_start_that_failed_is_a_denial(code: str) -> None:
    event = one(teleport("db.session.start", code=code, success=False, sid="s", user="a", error="access denied"))
    assert (event.event_type, event.outcome, event.error) == ("session.denied", "denied", "access denied")


def test_a_rejected_session_is_a_denial_with_a_session_of_ours() -> None:
    event = one(teleport("session.rejected", code="T1006W", user="a", reason="max connections"))
    assert event.event_type == "session.denied"
    assert event.session_id and event.session_id.startswith("synthesized:session:")


def test_a_kubernetes_request_with_403_is_denied() -> None:
    event = one(teleport("kube.request", user="a", verb="GET", request_path="/api", response_code=403, code="T3009I"))
    assert event.outcome == "denied"
    assert event.action and (event.action.command, event.action.args[0]) == ("GET", "/api")


@pytest.mark.parametrize("event_type", ["db.session.neptune.query", "session.new_thing", "app.session.grpc"])
def test_new_kinds_of_session_records_are_mapped(event_type: str) -> None:
    assert one(teleport(event_type, user="a", sid="s")).event_type in ("session.query", "session.command")


def test_an_unknown_type_is_skipped_by_name() -> None:
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
def test_client_address(address: str, ip: str | None) -> None:
    assert one(teleport("session.start", sid="s", user="a", **{"addr.remote": address})).client_ip == ip


def test_impersonator_is_the_actor() -> None:
    event = one(teleport("session.start", sid="s", user="alice", impersonator="bot-x"))
    assert (event.subject.id, event.actor.id) == ("alice", "bot-x")


def test_access_list_members() -> None:
    member = [{"member_name": "alice", "reason": "joined the team"}]
    given = one(teleport("access_list.member.create", code="TAL005I", access_list_name="l1", members=member))
    taken = one(teleport("access_list.member.delete", code="TAL007I", access_list_name="l1", members=member))
    assert (given.event_type, taken.event_type) == ("grant.activated", "grant.revoked")
    assert given.grant_id == taken.grant_id


class TestPolicies:
    """Changes of who may get access.

    The samples have users, connectors and locks. The members of the others are those of ``events.proto`` and of
    "Audit Event Reference" in Teleport's documentation.
    """

    @pytest.mark.parametrize("event", ["role.created", "role.updated", "role.deleted"])
    def test_roles_are_named_as_grants_name_them(self, event: str) -> None:
        changed = one(teleport(event, code="T9000I", name="dba", user="carol", expires="0001-01-01T00:00:00Z"))
        assert (changed.event_type, changed.entitlement, changed.subject.id, changed.actor.id, changed.outcome) == (
            "policy.changed", "dba", "unknown", "carol", "success",
        )  # fmt: skip
        assert changed.resource and (changed.resource.kind, changed.resource.id) == ("teleport_cluster", "prod")
        assert changed.action and (changed.action.command, changed.action.args) == (event, ("dba",))

    def test_a_lock_names_its_target_and_the_person(self) -> None:
        on_user = several(teleport("lock.created", name="l1", user="carol", target={"user": "alice"}))[0]
        assert (on_user.event_type, on_user.entitlement, on_user.subject.id) == ("policy.changed", "lock l1", "alice")
        assert on_user.action and on_user.action.args == ("l1", "user=alice")
        on_login = one(teleport("lock.created", name="l2", user="carol", target={"login": "root", "server_id": "n1"}))
        assert on_login.action and on_login.action.args == ("l2", "login=root", "server_id=n1")
        assert one(teleport("lock.deleted", code="TLK01I", name="l2", user="carol")).event_type == "policy.changed"

    def test_the_definition_of_a_list_stands_beside_its_memberships(self) -> None:
        member = {"access_list_name": "l1", "access_list_title": "Admins", "members": [{"member_name": "alice"}]}
        grant = one(teleport("access_list.member.create", code="TAL005I", **member))
        named = {"name": "l1", "access_list_title": "Admins", "updated_by": "carol"}
        changed = one(teleport("access_list.update", code="TAL002I", **named))
        assert (changed.event_type, changed.resource, changed.entitlement, changed.actor.id) == (
            "policy.changed", grant.resource, grant.entitlement, "carol",
        )  # fmt: skip
        assert one(teleport("access_list.update", code="TAL002E", **named)).outcome == "failure"
        kinds = [event.event_type for event in several(teleport("access_list.delete", code="TAL003I", **named))]
        assert kinds == ["policy.changed", "grant.revoked"]

    def test_the_roles_of_a_user(self) -> None:
        user = {"name": "bob", "roles": ["dba", "ops"], "user": "carol"}
        changed = one(teleport("user.update", code="T1003I", connector="local", **user))
        assert (changed.subject.id, changed.entitlement, changed.actor.id) == ("bob", "dba,ops", "carol")
        assert reason(teleport("user.create", code="T1002I", connector="github", **user)) == "authentication"

    @pytest.mark.parametrize(
        ("event", "entitlement"),
        [
            ("saml.updated", "saml connector x"),
            ("login_rule.create", "login rule x"),
            ("trusted_cluster.create", "trusted cluster x"),
            ("bot.create", "bot x"),
        ],
    )
    def test_what_maps_people_to_roles(self, event: str, entitlement: str) -> None:
        assert one(teleport(event, name="x", user="carol")).entitlement == entitlement


def test_wrong_types_name_the_member() -> None:
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
