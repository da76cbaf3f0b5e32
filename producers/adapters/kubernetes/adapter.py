"""Kubernetes: the API server's audit log, one JSON object per line or in an ``EventList``; also EKS, GKE and AKS.

Sources: "Auditing" in Kubernetes' documentation, the reference of ``audit.k8s.io/v1``, and the filter of the API server
that writes the stages (``pkg/endpoints/filters/audit.go``).
"""

from __future__ import annotations

from typing import Any, ClassVar

from ...json_fields import Fields, RecordError
from ...redaction.redactor import Redaction
from ..contract import Adapter, Mapped, Skipped
from .bindings import map_binding, map_policy
from .cloud_formats import is_aks, is_azure_record, is_cloud_audit_entry, is_gke, of_aks, of_gke
from .credentials import map_certificate, map_token
from .request import SYSTEM, Request
from .secrets import record_without_secrets
from .seen import Seen
from .sessions import is_stream, map_refusal, map_session

_STAGES = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")
_READS = ("get", "list", "watch")
_REVIEWS = ("authorization.k8s.io", "authentication.k8s.io")


class KubernetesAdapter(Adapter):
    """Maps audit records of the Kubernetes API server.

    Four properties of Kubernetes determine the mapping. Access by a role binding has no end: only its deletion ends it,
    and neither that record nor an update names those who lose it. The API server writes one record per stage of
    a request. The last stage counts, except that `ResponseStarted` starts a session. Somebody who impersonates
    a user acts with that user's permissions, and the record names both. Commands typed in a session are in no record.
    """

    SYSTEM: ClassVar[str] = SYSTEM
    VERSION: ClassVar[str] = "2"
    COVERS: ClassVar[tuple[str, ...]] = (
        "role bindings, as grants per subject; changes of roles, as policy.changed",
        "tokens of service accounts and client certificates, as grants that end by themselves",
        "exec, attach, port-forward and ephemeral containers, as sessions with their command; refused requests",
        "the same from EKS, GKE and AKS",
    )
    DOES_NOT_SAY: ClassVar[tuple[str, ...]] = (
        "its cluster's name: give --instance",
        "an end of role bindings: set max_seconds in the watch policy",
        "who is in a group: the identity provider knows",
        "what is typed in a shell: use Teleport or hoop in front of it",
    )
    MARKS: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"auditID", "stage"}),)
    REMEMBERS: ClassVar[bool] = True
    HIDES: ClassVar[tuple[bytes, ...]] = (b"exec", b"/proxy", b'"env"', b"ecret", b"last-applied")
    SKIP_REASONS: ClassVar[dict[str, str]] = {
        "access_review": "a question of a program about permissions or a token",
        "api_read": "an ordinary request that reads objects",
        "api_write": "an ordinary request that changes objects",
        "content_not_logged": "a decision on a certificate request, of which the audit policy does not log the object",
        "dry_run": "a request that was to change nothing",
        "earlier_stage": "the record of an earlier stage of a request; the last one is mapped",
        "no_time": "an entry of Cloud Audit Logs without a time in Google's form",
        "node_certificate": "a certificate of a node",
        "non_resource": "a request for no object: health, versions, metrics",
        "nothing_changed": "a change of a binding that left its subjects, or of a certificate request, as they were",
        "other_service": "an entry of Cloud Audit Logs or of Azure's diagnostic logs about another service",
        "request_cleanup": "the deletion or an edit of a certificate request, which takes no certificate back",
        "workload_proxy": "a request of a component to a pod, service or node, through the API server",
        "workload_token": "a token that a node requests for a pod that it runs",
    }

    def __init__(self, *, instance: str | None = None, tenant: str = "default") -> None:
        super().__init__(instance=instance, tenant=tenant)
        self._seen = Seen()

    @classmethod
    def owns(cls, record: dict[str, Any]) -> bool:
        """Return whether this is an audit record, in the form of the API server, of GKE or of AKS."""
        return super().owns(record) or is_gke(record) or is_aks(record)

    def redact(self, values: dict[str, Any], redaction: Redaction) -> dict[str, Any]:
        """Return a record without the secrets in URIs, environments and Secrets."""
        return record_without_secrets(values, redaction)

    def map(self, record: Fields) -> Mapped | Skipped:
        """Return the events of one record, or the reason to skip it."""
        cluster = None
        if is_cloud_audit_entry(record.values):
            if not is_gke(record.values):
                payload = record.object("protoPayload")
                return Skipped("other_service", payload.compact("methodName") or "no method")
            record, cluster = of_gke(record)
            if not _has_time(record):
                return Skipped("no_time", f"{record.text('verb') or 'a request'}")
        elif is_azure_record(record.values):
            return Skipped("other_service", f"Azure {record.compact('category')}")
        elif is_aks(record.values):
            record, cluster = of_aks(record)
        request = Request(record, self.instance, cluster)
        skipped = _stage(request)
        if skipped is not None:
            return skipped
        if request.dry_run and request.verb not in _READS:
            return Skipped("dry_run", _named(request))
        return (
            map_binding(request, self._seen)
            or map_policy(request)
            or map_token(request)
            or map_certificate(request)
            or map_session(request)
            or map_refusal(request)
            or Skipped(_ordinary(request), _named(request))
        )


def _has_time(record: Fields) -> bool:
    try:
        return record.time("stageTimestamp") is not None
    except RecordError:
        return False


def _stage(request: Request) -> Skipped | None:
    """Return the reason to skip the record of a stage that does not decide."""
    if request.stage not in _STAGES:
        request.record.fail("stage", f"{request.stage[:40]!r} is not one of {', '.join(_STAGES)}")
    started = request.stage == "ResponseStarted" and is_stream(request) and not request.refused
    decides = request.stage in ("ResponseComplete", "Panic") or started
    return None if decides else Skipped("earlier_stage", f"{request.stage} of {_named(request)}")


def _ordinary(request: Request) -> str:
    target = request.target
    if not target.resource:
        return "non_resource"
    if target.group in _REVIEWS:
        return "access_review"
    if target.subresource == "proxy":
        return "workload_proxy"
    return "api_read" if request.verb in _READS else "api_write"


def _named(request: Request) -> str:
    target = request.target
    return " ".join(filter(None, (request.verb, target.kind or request.uri.partition("?")[0], target.place)))[:200]
