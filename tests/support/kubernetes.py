"""Audit records of Kubernetes for tests, in the form of the reference of ``audit.k8s.io/v1``."""

from __future__ import annotations

from typing import Any

RBAC = "rbac.authorization.k8s.io"
CERTIFICATES = "certificates.k8s.io"
BEGAN, ENDED = "2026-03-01T12:00:00.000100Z", "2026-03-01T12:00:00.200000Z"


def request(verb: str, place: str, code: int | None = 200, **members: Any) -> dict[str, Any]:
    """Return a record about ``[NAMESPACE:]RESOURCE[/NAME[/SUBRESOURCE]]``; the group is RBAC's unless given.

    Members replace those of the record: ``asked`` and ``answer`` are the objects, ``id`` the audit id.
    """
    namespace, _, rest = place.rpartition(":")
    resource, name, subresource = (*rest.split("/"), "", "")[:3]
    reference = {
        "resource": resource, "namespace": namespace, "name": name, "subresource": subresource,
        "apiGroup": members.pop("group", RBAC), "apiVersion": "v1",
    }  # fmt: skip
    record = {
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse",
        "auditID": members.pop("id", "a1"), "stage": "ResponseComplete", "verb": verb,
        "requestURI": f"/apis/{resource}",
        "user": {"username": "alice@example.com", "groups": ["system:authenticated"]}, "sourceIPs": ["10.0.0.9"],
        "objectRef": {name: value for name, value in reference.items() if value},
        "requestReceivedTimestamp": BEGAN, "stageTimestamp": ENDED,
        "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""},
        "requestObject": members.pop("asked", None), "responseObject": members.pop("answer", None),
        "responseStatus": {"code": code} if code else None,
    }  # fmt: skip
    return {name: value for name, value in {**record, **members}.items() if value is not None}


def binding(*subjects: str, role: str = "edit", kind: str = "ClusterRole", called: str = "b") -> dict[str, Any]:
    """Return a binding to subjects: ``KIND:NAME``, or ``ServiceAccount:NAMESPACE:NAME``."""
    listed = []
    for subject in subjects:
        what, _, name = subject.partition(":")
        of, _, account = name.partition(":") if what == "ServiceAccount" else ("", "", name)
        listed.append({"kind": what, "name": account, **({"namespace": of} if of else {})})
    return {
        "kind": "RoleBinding", "metadata": {"name": called, "namespace": "shop"}, "subjects": listed,
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role},
    }  # fmt: skip


def stream(what: str, query: str = "", **members: Any) -> dict[str, Any]:
    """Return a record of ``exec``, ``attach`` or ``portforward``."""
    uri = f"/api/v1/namespaces/shop/pods/web-0/{what}{'?' if query else ''}{query}"
    verb = members.pop("verb", "create")
    return request(verb, f"shop:pods/web-0/{what}", 101, group="", **{"requestURI": uri, **members})


def gke(method: str, name: str, **payload: Any) -> dict[str, Any]:
    """Return an entry of Cloud Audit Logs, in the form of "Audit logging" in GKE's documentation."""
    return {
        "insertId": "g1", "timestamp": "2026-03-01T12:00:00.5Z",
        "logName": "projects/p/logs/cloudaudit.googleapis.com%2Factivity",
        "resource": {"type": "k8s_cluster", "labels": {"cluster_name": "prod", "location": "eu", "project_id": "p"}},
        "labels": {"authorization.k8s.io/decision": "allow"},
        "protoPayload": {
            "@type": "type.googleapis.com/google.cloud.audit.AuditLog", "serviceName": "k8s.io", "methodName": method,
            "resourceName": name, "authenticationInfo": {"principalEmail": "alice@example.com"},
            "requestMetadata": {"callerIp": "10.0.0.9"}, "status": {}, **payload,
        },
    }  # fmt: skip
