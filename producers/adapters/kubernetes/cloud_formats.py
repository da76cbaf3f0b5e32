"""Kubernetes: audit records that a cloud writes in its own form, brought into the form of ``audit.k8s.io``.

EKS and the diagnostic settings of AKS contain the API server's own record. Sources of the others: "Audit logging" in
GKE's documentation and ``google.cloud.audit.AuditLog``; the table ``AKSAudit`` in Azure Monitor's reference.
"""

from __future__ import annotations

from typing import Any

from ...json_fields import Fields
from ..values import record_id
from .request import DECISION

GKE_METHOD = "io.k8s."
_GKE_SERVICE = "k8s.io"
_REFUSED = {7: 403, 16: 401}
"""HTTP statuses of ``google.rpc.Code``: permission denied, unauthenticated."""
_FAILED = 500
_AKS = {
    "AuditId": "auditID", "Stage": "stage", "Level": "level", "Verb": "verb", "RequestUri": "requestURI",
    "User": "user", "ImpersonatedUser": "impersonatedUser", "SourceIps": "sourceIPs", "UserAgent": "userAgent",
    "ObjectRef": "objectRef", "ResponseStatus": "responseStatus", "RequestObject": "requestObject",
    "ResponseObject": "responseObject", "Annotations": "annotations",
    "RequestReceivedTime": "requestReceivedTimestamp", "StageReceivedTime": "stageTimestamp",
}  # fmt: skip
"""The columns of ``AKSAudit`` and ``AKSAuditAdmin``."""


def is_cloud_audit_entry(values: dict[str, Any]) -> bool:
    """Return whether this is an entry of Google's Cloud Audit Logs, of whatever service."""
    return isinstance(values.get("protoPayload"), dict)


def is_azure_record(values: dict[str, Any]) -> bool:
    """Return whether this is a record of Azure's diagnostic settings that is not about the Kubernetes API.

    A record that is contains the API server's own one as text (``properties.log``), which was taken out of it before.
    """
    names = {name.lower() for name in values}
    return {"category", "properties"} <= names and not {"resourceid", "operationname"}.isdisjoint(names)


def is_gke(values: dict[str, Any]) -> bool:
    """Return whether this is an entry of Cloud Audit Logs about a request to the Kubernetes API."""
    if not is_cloud_audit_entry(values):
        return False
    method, service = (values["protoPayload"].get(name) for name in ("methodName", "serviceName"))
    return service == _GKE_SERVICE or (isinstance(method, str) and method.startswith(GKE_METHOD))


def is_aks(values: dict[str, Any]) -> bool:
    """Return whether this is a row of ``AKSAudit`` or ``AKSAuditAdmin``."""
    return {"AuditId", "Stage", "Verb"} <= values.keys()


def of_gke(entry: Fields) -> tuple[Fields, str | None]:
    """Return an entry of GKE as an audit record, and the cluster.

    GKE writes one entry per request, without audit id, stage and groups: the entry's id stands for the audit id.
    """
    payload = entry.object("protoPayload")
    who = payload.object("authenticationInfo")
    principal, selected = who.text("principalEmail"), who.text("authoritySelector")
    metadata = payload.object("requestMetadata")
    address = metadata.first_text("callerIp", "callerIP")
    at = entry.text("timestamp") or payload.text("timestamp")
    method = payload.text("methodName") or ""
    code = _gke_code(entry, payload)
    record = {
        "auditID": entry.text("insertId") or record_id(entry.values),
        "stage": "ResponseComplete",
        "verb": method.rpartition(".")[2],
        "user": {"username": principal or selected},
        "impersonatedUser": {"username": selected} if principal and selected and selected != principal else None,
        "sourceIPs": [address] if address else None,
        "objectRef": _gke_target(payload.text("resourceName") or "", method),
        "responseStatus": {"code": code, "message": payload.object("status").text("message")},
        "requestURI": payload.text("requestURI"),
        "requestObject": payload.values.get("request"),
        "responseObject": payload.values.get("response"),
        "requestReceivedTimestamp": at,
        "stageTimestamp": at,
        "annotations": entry.object("labels").values,
    }
    labels = entry.object("resource").object("labels")
    return Fields(record, entry.location), labels.text("cluster_name")


def _gke_code(entry: Fields, payload: Fields) -> int | None:
    """Return the HTTP status that an entry means; None if it has none."""
    granted = [one.flag("granted") for one in payload.objects("authorizationInfo")]
    if False in granted or entry.object("labels").text(DECISION) == "forbid":
        return 403
    status = payload.object("status").integer("code")
    if status:
        answered = payload.values.get("response")
        code = answered.get("code") if isinstance(answered, dict) else None
        return code if type(code) is int and 400 <= code < 600 else _REFUSED.get(status, _FAILED)
    return 200 if payload.has("status") or True in granted else None


def _gke_target(name: str, method: str) -> dict[str, str] | None:
    """Return the object of a resource name: ``group/version[/namespaces/NAMESPACE]/resource[/NAME[/SUBRESOURCE]]``."""
    parts = name.split("/")
    if len(parts) < 3:
        return None
    target = {"apiGroup": "" if parts[0] == "core" else parts[0], "apiVersion": parts[1]}
    rest = parts[2:]
    if rest[0] == "namespaces" and len(rest) > 2:
        target["namespace"] = rest[1]
        rest = rest[2:]
    # The method ends in [.SUBRESOURCE].VERB; a name may contain slashes only in a path behind "proxy".
    names = dict(zip(("resource", "name", "subresource"), rest, strict=False))
    if len(rest) == 2 and f".{rest[0]}.{rest[1]}." in method:
        names = {"resource": rest[0], "subresource": rest[1]}
    return {**target, **names}


def of_aks(row: Fields) -> tuple[Fields, str | None]:
    """Return a row of ``AKSAudit`` as an audit record, and the cluster."""
    record = {name: row.values[column] for column, name in _AKS.items() if column in row.values}
    identity = row.first_text("_ResourceId", "resourceId") or ""
    head, _, cluster = identity.rpartition("/")
    return Fields(record, row.location), cluster if head.lower().endswith("/managedclusters") else None
