"""The Vault adapter: particular entries."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from grantledger.producers.adapters import RecordError, Skipped
from grantledger.schemas.event import Event
from support.adapters import Result, one, read, several

from .test_adapters import samples


def vault(path: str, operation: str = "read", **parts: Any) -> Result:
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
    options = {"instance": parts.pop("instance")} if "instance" in parts else {}
    return read("vault", {**entry, "request": request, **parts}, **options)


def test_the_request_entry_is_skipped() -> None:
    assert vault("kv/a", type="request") == Skipped("request_half", "read kv/a")


def test_an_action_names_its_token_as_grant_and_session() -> None:
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


def test_a_login_is_a_grant() -> None:
    token = {"accessor": "hmac-new", "display_name": "oidc-bob", "policies": ["default", "ops"]}
    event = one(vault("auth/oidc/login", "update", response={"auth": token}))
    assert (event.event_type, event.grant_id, event.grant_id_kind) == ("grant.activated", "hmac-new", "native")
    assert (event.entitlement, event.expiry_source, event.expires_at) == ("default,ops", "unknown", None)


def test_the_ttl_of_a_token_is_its_expiry_where_the_entry_has_it() -> None:
    token = {"accessor": "n", "policies": ["p"], "token_ttl": 3600, "token_issue_time": "2024-05-01T10:00:00Z"}
    event = one(vault("auth/token/create", "update", response={"auth": token}))
    assert event.expires_at == datetime(2024, 5, 1, 11, tzinfo=UTC)
    assert event.expiry_source == "derived"
    assert event.actor.id == "oidc-alice"


def test_a_batch_token_gets_a_grant_id_of_ours() -> None:
    event = one(vault("auth/token/create", "update", response={"auth": {"policies": ["p"], "token_type": "batch"}}))
    assert event.grant_id_kind == "synthesized"


def test_a_renewal_counts_from_now() -> None:
    token = {"accessor": "n", "policies": ["p"], "token_ttl": 60, "token_issue_time": "2024-05-01T01:00:00Z"}
    event = one(vault("auth/token/renew-self", "update", response={"auth": token}))
    assert event.event_type == "grant.extended"
    assert event.expires_at == datetime(2024, 5, 1, 10, 1, 0, 500_000, tzinfo=UTC)


@pytest.mark.parametrize("error", ["permission denied", "1 error occurred:\n\t* permission denied\n\n"])
def test_a_refusal(error: str) -> None:
    event = one(vault("kv/secret", error=error))
    assert (event.event_type, event.outcome, event.error) == ("session.denied", "denied", error)


def test_a_refusal_by_policy_results() -> None:
    assert one(vault("kv/a", auth={"policy_results": {"allowed": False}})).event_type == "session.denied"


def test_a_failed_login_is_a_denial_of_whom_the_path_names() -> None:
    event = one(vault("auth/userpass/login/bob", "update", auth={}, error="invalid username or password", response={}))
    assert (event.event_type, event.subject.id, event.grant_id) == ("session.denied", "bob", None)


def test_another_error_is_a_failure() -> None:
    assert one(vault("x/y", error="unsupported path")).outcome == "failure"
    assert one(vault("x/y", response={"data": {"error": "hmac-1"}})).outcome == "failure"


def test_a_secret_with_a_key_called_error_is_no_failure() -> None:
    assert one(vault("kv/a", response={"data": {"error": "hmac", "user": "hmac"}})).outcome == "success"


def test_a_lease_is_a_grant_with_unknown_expiry() -> None:
    lease = "database/creds/readonly/abc"
    event = one(vault("database/creds/readonly", response={"secret": {"lease_id": lease}}))
    assert (event.event_type, event.grant_id, event.entitlement) == ("grant.activated", lease, "readonly")
    assert event.resource and event.resource.id == "database/creds/readonly"
    assert event.expiry_source == "unknown"


def test_a_lease_is_given_back() -> None:
    event = one(vault("sys/leases/revoke/database/creds/readonly/abc", "update"))
    assert (event.event_type, event.grant_id, event.removal_evidence) == (
        "grant.revoked",
        "database/creds/readonly/abc",
        "api_accepted",
    )


def test_leases_revoked_by_prefix_are_marked() -> None:
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
def test_a_token_is_revoked(path: str, data: dict[str, str], grant: str) -> None:
    event = one(vault(path, "update", request={"data": data}))
    assert (event.event_type, event.grant_id, event.actor.id) == ("grant.revoked", grant, "oidc-alice")


def test_a_revocation_that_failed_revokes_nothing() -> None:
    assert one(vault("auth/token/revoke", "update", error="internal error")).event_type == "session.command"


def test_a_certificate_has_a_native_expiry() -> None:
    data = {"serial_number": "hmac-s", "expiration": 1714561200}
    event = one(vault("pki/issue/web", "update", response={"data": data}))
    assert (event.event_type, event.grant_id, event.entitlement) == ("grant.activated", "hmac-s", "web")
    assert event.expires_at == datetime(2024, 5, 1, 11, tzinfo=UTC)
    gone = one(vault("pki/revoke", "update", request={"data": {"serial_number": "hmac-s"}}))
    assert (gone.event_type, gone.grant_id) == ("grant.revoked", "hmac-s")


def test_a_wrapped_login_is_two_grants() -> None:
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


def test_the_namespace_is_the_instance() -> None:
    event = one(vault("kv/a", request={"namespace": {"id": "x1", "path": "team/"}}))
    assert event.source.instance == "team"


def in_namespace(path: str, name: str, operation: str = "update", **parts: Any) -> Event:
    request = {"namespace": {"id": f"id-{name}", "path": f"{name}/"}, **parts.pop("request", {})}
    return one(vault(path, operation, request=request, instance="eu", **parts))


LEASE = {"response": {"secret": {"lease_id": "database/creds/ro/L1"}}}
SERIAL = {"response": {"data": {"serial_number": "hmac-s", "expiration": 1714561200}}}


@pytest.mark.parametrize(
    ("path", "parts", "grant", "resource"),
    [
        ("database/creds/ro", LEASE, "team/database/creds/ro/L1", "team/database/creds/ro"),
        ("sys/leases/renew/database/creds/ro/L1", {}, "team/database/creds/ro/L1", "team/database/creds/ro"),
        ("sys/leases/revoke/database/creds/ro/L1", {}, "team/database/creds/ro/L1", "team/database/creds/ro"),
        ("sys/leases/revoke-prefix/database", {}, "prefix:team/database", "team/database"),
        ("pki/issue/web", SERIAL, "team/hmac-s", "team/pki/issue/web"),
        ("pki/revoke", {"request": {"data": {"serial_number": "hmac-s"}}}, "team/hmac-s", "team/pki"),
        ("auth/token/revoke-accessor", {"request": {"data": {"accessor": "hmac-b"}}}, "hmac-b", "team"),
        ("auth/token/revoke-self", {}, "hmac-a", "team"),
        ("kv/a", {}, "hmac-a", "team/kv/a"),
    ],
)
def test_what_two_namespaces_may_both_have_names_its_namespace(
    path: str, parts: dict[str, Any], grant: str, resource: str
) -> None:
    """With one --instance, the two namespaces are one source."""
    event, other = in_namespace(path, "team", **parts), in_namespace(path, "ops", **parts)
    assert (event.source.system, event.source.instance) == ("vault", "eu")
    assert event.resource and other.resource and (event.grant_id, event.resource.id) == (grant, resource)
    assert event.resource.id != other.resource.id
    assert (event.grant_id == other.grant_id) == grant.startswith("hmac-"), "accessors are unique in a Vault"
    root = one(vault(path, "update", **parts))
    assert root.grant_id == grant.replace("team/", "") and "team" not in (root.resource.id if root.resource else "")


def test_the_sample_records_in_two_namespaces_share_accessors_only() -> None:
    grants: dict[str, set[tuple[str, str]]] = {}
    for line in samples("vault"):
        record = json.loads(line)
        for name in ("team", "ops"):
            record["request"]["namespace"] = {"id": f"id-{name}", "path": f"{name}/"}
            result = read("vault", record, instance="eu")
            for event in () if isinstance(result, Skipped) else result:
                if event.event_type.startswith("grant.") and event.resource and event.grant_id_kind == "native":
                    grants.setdefault(name, set()).add((event.resource.kind, event.grant_id or ""))
    shared = grants["team"] & grants["ops"]
    assert len(grants["team"]) == len(grants["ops"]) > 5
    assert shared and {kind for kind, _ in shared} == {"vault_namespace"}, "tokens"


def test_ui_lookups_are_skipped_unless_refused() -> None:
    assert vault("sys/internal/ui/mounts/kv") == Skipped("ui_lookup", "sys/internal/ui/mounts/kv")
    assert one(vault("sys/internal/ui/mounts/kv", error="permission denied")).event_type == "session.denied"


def test_an_entry_of_no_known_type_fails() -> None:
    with pytest.raises(RecordError) as caught:
        vault("kv/a", type="other")
    assert caught.value.field == "type"


class TestPolicies:
    """Changes of who may get access. The samples have policies, roles, users and auth methods; the paths of the others
    are those of Vault's API documentation."""

    def test_a_policy_is_named_as_tokens_name_it(self) -> None:
        command, changed = several(vault("sys/policies/acl/ops", "update", request={"data": {"policy": "hmac-x"}}))
        assert (command.event_type, changed.event_type, changed.outcome) == (
            "session.command", "policy.changed", "success",
        )  # fmt: skip
        token = one(vault("auth/oidc/login", "update", response={"auth": {"accessor": "a", "policies": ["ops"]}}))
        assert (changed.resource, changed.entitlement) == (token.resource, token.entitlement)
        assert (changed.subject.id, changed.actor.id, changed.session_id) == ("unknown", "oidc-alice", "hmac-a")
        assert changed.action and (changed.action.command, changed.action.args, changed.action.redacted) == (
            "update", ("sys/policies/acl/ops",), True,
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("sys/policy/ops", "ops"),
            ("sys/policies/egp/office", "office"),
            ("sys/auth/oidc", "auth method"),
            ("auth/token/roles/nomad", "nomad"),
            ("auth/corp/ldap/groups/admins", "admins"),
            ("auth/kubernetes/role/web", "web"),
            ("auth/userpass/users/bob/policies", "bob"),
            ("auth/approle/role/web/token-policies", "web"),
            ("identity/group/id/6a7b", "group"),
            ("identity/entity-alias", "entity-alias"),
            ("database/roles/readonly", "readonly"),
            ("team/pki/roles/web", "web"),
        ],
    )
    def test_what_decides_who_may_get_access(self, path: str, name: str) -> None:
        _, changed = several(vault(path, "update"))
        assert (changed.event_type, changed.entitlement) == ("policy.changed", name)
        assert one(vault(path, "read")).event_type == "session.command"

    @pytest.mark.parametrize(
        "path",
        [
            "sys/policies/password/long", "sys/auth/oidc/tune", "auth/approle/role/web/secret-id",
            "auth/userpass/users/bob/password", "identity/lookup/entity", "kv/data/a", "sys/mounts/kv",
        ],
    )  # fmt: skip
    def test_what_decides_nothing(self, path: str) -> None:
        assert one(vault(path, "update")).event_type == "session.command"

    def test_a_secret_in_a_folder_of_that_name_is_no_role(self) -> None:
        assert one(vault("kv/roles/a", "update", request={"mount_type": "kv"})).event_type == "session.command"

    def test_a_refused_change_is_on_record(self) -> None:
        denied, changed = several(vault("sys/policy/ops", "delete", error="1 error occurred: permission denied"))
        assert (denied.event_type, changed.event_type, changed.outcome) == (
            "session.denied", "policy.changed", "denied",
        )  # fmt: skip

    def test_namespaces(self) -> None:
        space = {"namespace": {"id": "x1", "path": "team/"}}
        _, changed = several(vault("sys/policy/ops", "update", request=space))
        assert changed.resource and (changed.resource.kind, changed.resource.id) == ("vault_namespace", "team")
        _, changed = several(vault("database/roles/ro", "update", request=space))
        assert changed.resource and changed.resource.id == "team/database/roles/ro"
