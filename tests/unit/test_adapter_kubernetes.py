"""The Kubernetes adapter: bindings, roles, stages and the forms of the clouds.

The records are made by hand after the reference of ``audit.k8s.io/v1``, GKE's "Audit logging" and Azure Monitor's
``AKSAudit``; those of the sample file were written by real clusters.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from grantledger.producers.adapters import Adapter, RecordError, Skipped, make_adapter
from grantledger.schemas.event import Event
from support.adapters import HERE, one, read, reason, several
from support.kubernetes import BEGAN, ENDED, RBAC, binding, gke, request

from .test_adapters import plain_events, samples


def k8s(record: dict[str, Any], **options: Any) -> Any:
    return read("kubernetes", record, **{"instance": "prod", **options})


def run(*records: dict[str, Any], adapter: Adapter | None = None) -> list[Event]:
    """Return the events of records, read by one adapter as in one run."""
    adapter = adapter or make_adapter("kubernetes", instance="prod")
    results = [adapter.read(json.dumps(record).encode(), HERE) for record in records]
    return [event for result in results if not isinstance(result, Skipped) for event in result]


def told(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.event_type, event.subject.id) for event in events]


def created(*subjects: str, **more: Any) -> dict[str, Any]:
    return request("create", "shop:rolebindings/b", 201, answer=binding(*subjects, **more), id="c1")


def changed(*subjects: str, verb: str = "update", **more: Any) -> dict[str, Any]:
    return request(verb, "shop:rolebindings/b", answer=binding(*subjects), id="c2", **more)


def deleted(code: int = 200, **more: Any) -> dict[str, Any]:
    answer = {"kind": "Status", "status": "Success"}
    return request("delete", "shop:rolebindings/b", code, **{"answer": answer, "id": "c3", **more})


class TestBindings:
    def test_one_grant_per_subject(self) -> None:
        events = several(k8s(created("User:bob@example.com", "Group:sre", "ServiceAccount:ci:bot", "User:system:x")))
        assert [(event.subject.id, event.subject.kind) for event in events] == [
            ("bob@example.com", "unknown"), ("group:sre", "unknown"), ("system:serviceaccount:ci:bot", "service"),
            ("system:x", "system"),
        ]  # fmt: skip
        assert {event.event_type for event in events} == {"grant.activated"}
        assert len({event.grant_id for event in events}) == len({event.event_id for event in events}) == 4
        assert len({event.request_id for event in events}) == 1
        bob = events[0]
        assert (bob.entitlement, bob.expiry_source, bob.outcome) == ("edit in shop", "unknown", "success")
        assert bob.resource and (bob.resource.kind, bob.resource.id) == ("kubernetes_cluster", "prod")
        assert (bob.actor.id, bob.client_ip, bob.subject.email) == ("alice@example.com", "10.0.0.9", "bob@example.com")
        assert bob.occurred_at == datetime.fromisoformat(ENDED)

    def test_a_role_of_the_namespace_is_another_entitlement(self) -> None:
        event = one(k8s(created("User:bob", kind="Role")))
        assert event.entitlement == "Role edit in shop"

    def test_a_cluster_role_binding(self) -> None:
        record = request("create", "clusterrolebindings/b", 201, asked=binding("User:bob", role="cluster-admin"))
        assert one(k8s(record)).entitlement == "cluster-admin"

    def test_a_deletion_ends_every_grant_of_the_binding_also_of_an_earlier_run(self) -> None:
        (given,) = run(created("User:bob"))
        (ended,) = run(deleted())
        assert (ended.event_type, ended.grant_id, ended.request_id) == ("grant.revoked", None, given.request_id)
        assert (ended.removal_evidence, ended.actor.id, ended.subject.id) == (
            "confirmed", "alice@example.com", "unknown",
        )  # fmt: skip

    def test_a_deletion_is_the_same_event_whatever_the_run_has_read(self) -> None:
        (_, after), (alone,) = run(created("User:bob"), deleted()), run(deleted())
        assert (after.event_id, after.entitlement) == (alone.event_id, alone.entitlement)

    @pytest.mark.parametrize("more", [{"code": 202}, {"answer": {"metadata": {"deletionTimestamp": ENDED}}}])
    def test_a_deletion_that_waits_is_not_confirmed(self, more: dict[str, Any]) -> None:
        assert run(deleted(**more))[0].removal_evidence == "api_accepted"

    def test_an_update_takes_and_gives_what_differs(self) -> None:
        given = run(created("User:alice", "User:bob"))
        events = run(created("User:alice", "User:bob"), changed("User:alice", "User:carol"))[2:]
        assert told(events) == [("grant.revoked", "bob"), ("grant.activated", "carol")]
        assert events[0].grant_id == given[1].grant_id
        assert (events[0].removal_evidence, events[0].entitlement) == ("confirmed", "edit in shop")

    @pytest.mark.parametrize("verb", ["update", "patch"])
    def test_an_update_of_an_unknown_binding_replaces_all_its_grants(self, verb: str) -> None:
        (given,) = run(created("User:alice"))
        asked = {"subjects": [{"kind": "User", "name": "alice"}]}
        ended, again = run(changed("User:alice", verb=verb, asked=asked))
        assert told([ended, again]) == [("grant.revoked", "unknown"), ("grant.activated", "alice")]
        assert (ended.request_id, ended.grant_id) == (given.request_id, None)
        assert again.grant_id == given.grant_id
        assert (ended.occurred_at, again.occurred_at) == tuple(map(datetime.fromisoformat, (BEGAN, ENDED)))

    def test_the_ids_of_an_update_do_not_depend_on_the_run(self) -> None:
        with_memory = run(created("User:alice"), changed("User:alice", "User:bob"))[1:]
        without = run(changed("User:alice", "User:bob"))
        assert {event.event_id for event in with_memory} < {event.event_id for event in without}

    def test_what_changes_no_subject_is_skipped(self) -> None:
        labels = changed("User:alice", verb="patch", asked={"metadata": {"labels": {"a": "b"}}})
        assert reason(k8s(labels)) == "nothing_changed"
        assert told(run(created("User:alice"), changed("User:alice"))) == [("grant.activated", "alice")]
        assert reason(k8s(created())) == "nothing_changed"

    def test_a_binding_that_was_made_again_unseen_is_replaced(self) -> None:
        again = {**changed("User:alice"), "responseObject": binding("User:alice", role="admin")}
        events = run(created("User:alice"), again)
        assert told(events) == [
            ("grant.activated", "alice"), ("grant.revoked", "unknown"), ("grant.activated", "alice"),
        ]  # fmt: skip

    def test_a_dry_run_of_a_deletion_deletes_nothing(self) -> None:
        assert reason(k8s(deleted(asked={"kind": "DeleteOptions", "dryRun": ["All"]}))) == "dry_run"

    def test_all_subjects_gone(self) -> None:
        events = run(created("User:alice"), changed())
        assert told(events) == [("grant.activated", "alice"), ("grant.revoked", "alice")]

    def test_a_binding_that_is_made_again_may_give_another_role(self) -> None:
        first, _, second = run(created("User:bob"), deleted(), {**created("User:bob", role="admin"), "auditID": "c4"})
        assert first.grant_id != second.grant_id and first.request_id == second.request_id

    @pytest.mark.parametrize(
        ("code", "decision", "outcome"),
        [(403, "forbid", "denied"), (403, "allow", "denied"), (409, "allow", "failure"), (500, "allow", "failure")],
    )
    def test_a_refused_change_gives_and_takes_nothing(self, code: int, decision: str, outcome: str) -> None:
        more = {"annotations": {"authorization.k8s.io/decision": decision}}
        status = {"code": code, "message": "no"}
        asked = request("create", "shop:rolebindings/b", asked=binding("User:bob"), **more, responseStatus=status)
        event = one(k8s(asked))
        assert (event.event_type, event.subject.id, event.outcome, event.error) == (
            "grant.failed", "bob", outcome, "no",
        )  # fmt: skip
        assert event.grant_id != run(created("User:bob"))[0].grant_id and event.request_id is None
        (ended,) = run(deleted(code, answer=None, **more))
        assert (ended.event_type, ended.outcome, ended.removal_evidence) == ("grant.revoked", outcome, "none")

    def test_a_refused_update_is_forgotten(self) -> None:
        refused = changed("User:carol", responseStatus={"code": 403})
        events = run(created("User:alice"), refused, {**changed("User:alice", "User:bob"), "auditID": "c5"})
        assert told(events) == [("grant.activated", "alice"), ("grant.failed", "carol"), ("grant.activated", "bob")]

    def test_a_collection(self) -> None:
        items = {"kind": "RoleBindingList", "items": [binding("User:a", called="b"), binding("User:a", called="c")]}
        events = several(k8s(request("deletecollection", "shop:rolebindings", answer=items)))
        assert len({event.request_id for event in events}) == 2 and {one.grant_id for one in events} == {None}
        assert run(created("User:bob"))[0].request_id in {event.request_id for event in events}
        # The namespace controller's are logged without the response.
        of_namespace = request("deletecollection", "shop:rolebindings", id="c6")
        events = run(created("User:bob"), of_namespace)
        assert [(event.event_type, event.entitlement) for event in events[1:]] == [
            ("grant.revoked", "* in shop"), ("grant.revoked", "edit in shop"),
        ]  # fmt: skip
        assert events[2].request_id == events[0].request_id
        selected = {**of_namespace, "requestURI": "/apis/x?labelSelector=app%3Dweb"}
        assert len(run(created("User:bob"), selected)) == 2

    def test_a_content_that_is_not_logged(self) -> None:
        event = one(k8s(request("create", "shop:rolebindings/b", 201, level="Metadata")))
        assert (event.event_type, event.subject.id, event.entitlement) == (
            "grant.activated", "unknown", "unknown in shop",
        )  # fmt: skip
        event = one(k8s(request("update", "shop:rolebindings/b", level="Metadata")))
        assert (event.event_type, event.entitlement) == ("policy.changed", "subjects of shop/b")


@pytest.mark.parametrize("verb", ["create", "update", "patch", "delete", "deletecollection"])
def test_changes_of_roles(verb: str) -> None:
    event = one(k8s(request(verb, "shop:roles/reader")))
    assert (event.event_type, event.entitlement, event.outcome) == (
        "policy.changed", "Role reader in shop", "success",
    )  # fmt: skip
    assert event.action and (event.action.command, event.action.args) == (verb, ("roles shop/reader",))
    assert one(k8s(request(verb, "clusterroles/reader", 403))).outcome == "denied"


def test_the_users_of_eks() -> None:
    event = one(k8s(request("patch", "kube-system:configmaps/aws-auth", group="")))
    assert (event.event_type, event.entitlement) == ("policy.changed", "aws-auth")
    assert reason(k8s(request("patch", "kube-system:configmaps/other", group=""))) == "api_write"


class TestRecords:
    def test_earlier_stages_are_skipped(self) -> None:
        for stage in ("RequestReceived", "ResponseStarted"):
            assert reason(k8s({**created("User:bob"), "stage": stage})) == "earlier_stage"
        assert one(k8s({**created("User:bob"), "stage": "Panic"})).outcome == "failure"

    def test_one_request_has_one_id_and_a_repeated_audit_id_does_not_hide_another_request(self) -> None:
        first, again = run(created("User:bob")), run(created("User:bob"))
        assert first[0].event_id == again[0].event_id
        later = {**created("User:bob"), "requestReceivedTimestamp": "2026-03-01T12:00:01Z"}
        assert run(later)[0].event_id != first[0].event_id

    def test_impersonation(self) -> None:
        event = one(k8s({**created("User:bob"), "impersonatedUser": {"username": "root@example.com"}}))
        assert (event.actor.id, event.actor.on_behalf_of) == ("alice@example.com", "root@example.com")

    def test_the_cluster_is_the_instance(self) -> None:
        event = one(read("kubernetes", created("User:bob")))
        assert event.resource and (event.resource.id, event.source.instance) == ("unknown", "kubernetes")

    @pytest.mark.parametrize(
        ("record", "expected"),
        [
            (request("list", "shop:pods", group=""), "api_read"),
            (request("update", "shop:deployments/web", group="apps"), "api_write"),
            (request("create", "tokenreviews", group="authentication.k8s.io"), "access_review"),
            (request("create", "selfsubjectaccessreviews", group="authorization.k8s.io"), "access_review"),
            ({**request("get", ""), "objectRef": None, "requestURI": "/healthz"}, "non_resource"),
            ({**created("User:bob"), "requestURI": "/apis/x?dryRun=All&fieldManager=kubectl"}, "dry_run"),
        ],
    )
    def test_skipped(self, record: dict[str, Any], expected: str) -> None:
        assert reason(k8s(record)) == expected

    def test_times_before_v1(self) -> None:
        record = created("User:bob")
        del record["requestReceivedTimestamp"], record["stageTimestamp"]
        assert one(k8s({**record, "timestamp": ENDED})).occurred_at == datetime.fromisoformat(ENDED)

    def test_the_last_address_is_the_one_that_a_client_cannot_choose(self) -> None:
        assert one(k8s({**created("User:bob"), "sourceIPs": ["1.2.3.4", "10.0.0.7"]})).client_ip == "10.0.0.7"


class TestSample:
    """Records of a real cluster."""

    def test_events(self) -> None:
        counts: dict[str, int] = {}
        for _, event in plain_events("kubernetes"):
            counts[event.event_type] = counts.get(event.event_type, 0) + 1
        assert counts == {
            "grant.activated": 2, "grant.revoked": 1, "policy.changed": 8, "session.command": 1, "session.started": 2,
        }  # fmt: skip

    def test_a_binding_and_its_deletion_are_about_one_request(self) -> None:
        grants = [event for _, event in plain_events("kubernetes") if event.event_type.startswith("grant.")]
        assert len({event.request_id for event in grants}) == 1
        assert [event.entitlement for event in grants] == ["cluster-admin", "system:basic-user", "unknown"]

    def test_a_shell(self) -> None:
        events = [event for _, event in plain_events("kubernetes") if event.event_type == "session.command"]
        assert [(event.action.command, event.subject.id, event.entitlement) for event in events if event.action] == [
            ("bash", "minikube-user", "exec on default/nginx-deployment-7998647bdf-phvq7/nginx1")
        ]

    @pytest.mark.parametrize(
        ("file", "counts"),
        [("gcp", {"mapped": 1, "no_time": 25, "other_service": 68, "failed": 4}), ("azure", {"other_service": 47})],
    )
    def test_the_files_of_clouds(self, file: str, counts: dict[str, int]) -> None:
        """GKE's entries there are those of tests: most have no time. The four that fail are fragments of entries."""
        adapter, found = make_adapter("kubernetes"), dict.fromkeys(counts, 0)
        for line in samples("kubernetes", {"gcp": "gcp/auditlog.jsonl", "azure": "azure/audit.jsonl"}[file]):
            try:
                result = adapter.read(line, HERE)
            except RecordError:
                found["failed"] += 1
            else:
                found[result.reason if isinstance(result, Skipped) else "mapped"] += 1
        assert found == counts


class TestClouds:
    PLACE = "rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings/b"

    def test_a_binding_of_gke(self) -> None:
        method = "io.k8s.authorization.rbac.v1.rolebindings"
        event = one(read("kubernetes", gke(f"{method}.create", self.PLACE, request=binding("User:bob"))))
        assert (event.event_type, event.entitlement, event.outcome) == ("grant.activated", "edit in shop", "success")
        assert (event.source.instance, event.client_ip, event.actor.id) == ("prod", "10.0.0.9", "alice@example.com")
        own = one(k8s(created("User:bob")))
        assert (event.grant_id, event.resource) == (own.grant_id, own.resource)
        ended = one(read("kubernetes", gke(f"{method}.delete", self.PLACE)))
        assert (ended.event_type, ended.request_id) == ("grant.revoked", event.request_id)

    def test_impersonation_in_gke(self) -> None:
        who = {"principalEmail": "alice@example.com", "authoritySelector": "bob"}
        method = "io.k8s.core.v1.pods.exec.create"
        event = one(read("kubernetes", gke(method, "core/v1/namespaces/shop/pods/web-0/exec", authenticationInfo=who)))
        assert (event.subject.id, event.actor.id, event.actor.on_behalf_of) == ("bob", "alice@example.com", "bob")
        assert (event.event_type, event.entitlement) == ("session.started", "exec on shop/web-0")

    @pytest.mark.parametrize(
        ("payload", "outcome"),
        [
            ({"status": {"code": 7, "message": "no"}}, "denied"),
            ({"authorizationInfo": [{"granted": False}]}, "denied"),
            ({"status": {"code": 3}, "response": {"code": 400}}, "failure"),
            ({"status": {"code": 10}}, "failure"),
        ],
    )
    def test_refusals_in_gke(self, payload: dict[str, Any], outcome: str) -> None:
        method = "io.k8s.authorization.rbac.v1.rolebindings.create"
        event = one(read("kubernetes", gke(method, self.PLACE, request=binding("User:bob"), **payload)))
        assert (event.event_type, event.outcome) == ("grant.failed", outcome)

    def test_a_row_of_aks(self) -> None:
        record = created("User:bob")
        names = {
            "AuditId": "auditID", "Stage": "stage", "Verb": "verb", "User": "user", "ObjectRef": "objectRef",
            "RequestUri": "requestURI", "ResponseStatus": "responseStatus", "ResponseObject": "responseObject",
            "SourceIps": "sourceIPs", "RequestReceivedTime": "requestReceivedTimestamp",
            "StageReceivedTime": "stageTimestamp", "Annotations": "annotations",
        }  # fmt: skip
        row = {column: record[name] for column, name in names.items()}
        row["_ResourceId"] = "/subscriptions/s/providers/microsoft.containerservice/managedclusters/prod"
        event, own = one(read("kubernetes", row)), one(k8s(record))
        assert (event.event_id, event.grant_id, event.resource) == (own.event_id, own.grant_id, own.resource)
        big = {**row, "RequestObject": "skipped-too-big-size-object", "ResponseObject": "skipped-too-big-size-object"}
        assert one(read("kubernetes", big)).subject.id == "unknown"

    def test_other_services(self) -> None:
        entry = gke("v1.compute.instances.insert", "projects/p", serviceName="compute.googleapis.com")
        assert reason(k8s(entry)) == "other_service"
        assert reason(k8s({"category": "SignInLogs", "properties": {}, "operationName": "x"})) == "other_service"
        assert reason(k8s({**gke("io.k8s.core.v1.pods.get", "core/v1/pods"), "timestamp": "2026-03-01"})) == "no_time"


def test_group_of_the_api_is_checked() -> None:
    """A resource of another group with the same name is something else."""
    assert reason(k8s(request("create", "shop:rolebindings/b", group="example.com"))) == "api_write"
    assert RBAC in json.dumps(created())
