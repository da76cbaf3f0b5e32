"""Kubernetes: one audited request: who asked for what, what the API server answered, and the fields of its events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ....schemas.event import Actor, Event, EventSource, Resource, Subject
from ...json_fields import Fields
from ..values import UNKNOWN, email_in, ip_address_in, record_id

SYSTEM = "kubernetes"
SERVICE_ACCOUNT = "system:serviceaccount:"
NODE = "system:node:"
DECISION = "authorization.k8s.io/decision"
REASON = "authorization.k8s.io/reason"
_SYSTEM_NAMES = "system:"
_GOOGLE_ACCOUNT = ".gserviceaccount.com"
_MANY = 100
"""Parameters of one name in a URI."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is about, from ``objectRef``. Absent members are empty strings."""

    group: str
    resource: str
    subresource: str
    namespace: str
    name: str

    @property
    def kind(self) -> str:
        """The resource with its subresource, for example ``pods/exec``."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource

    @property
    def place(self) -> str:
        """The namespace and name, for example ``default/web-0``."""
        return "/".join(filter(None, (self.namespace, self.name)))


class Request:
    """A record. The constructor raises RecordError if a required member is missing or wrong."""

    def __init__(self, record: Fields, instance: str | None, cluster: str | None = None) -> None:
        self.record = record
        self.stage = record.required_text("stage")
        self.verb = record.required_text("verb")
        self.audit_id = record.text("auditID") or record_id(record.values)
        self.cluster = instance or cluster or UNKNOWN
        self.instance = instance or cluster or SYSTEM
        self.user = record.object("user")
        self.impersonated = record.object("impersonatedUser")
        self.target = _target(record.object("objectRef"))
        self.status = record.object("responseStatus")
        self.annotations = record.object("annotations")
        self.code = self.status.integer("code")
        self.uri = record.text("requestURI") or ""
        self.received = record.time("requestReceivedTimestamp")

    @property
    def native_id(self) -> str:
        """The audit id with the time of the request: a client may choose the id, and use one for several requests."""
        received = self.record.text("requestReceivedTimestamp")
        return f"{self.audit_id}@{received}" if received else self.audit_id

    @property
    def began(self) -> datetime:
        """When the request arrived; the same in all records of one request."""
        return self.received or self.ended

    @property
    def ended(self) -> datetime:
        """When the stage of this record was reached."""
        record = self.record
        return (
            record.time("stageTimestamp")
            or self.received
            or record.time("timestamp")  # versions before audit.k8s.io/v1
            or record.required_time("stageTimestamp")
        )

    @property
    def username(self) -> str:
        """The user whose permissions count: the impersonated one, if there is one."""
        return self.impersonated.text("username") or self.user.text("username") or UNKNOWN

    @property
    def by_node(self) -> bool:
        """Whether a node sent the request. Whoever impersonates one is none."""
        return (self.user.text("username") or "").startswith(NODE) and not self.impersonated.values

    @property
    def by_component(self) -> bool:
        """Whether a part of the cluster, or a program in it, sent the request: whom it impersonates does not matter."""
        name = self.user.text("username") or UNKNOWN
        return name.startswith(_SYSTEM_NAMES) or name == UNKNOWN

    @property
    def subject(self) -> Subject:
        """That user as a subject."""
        return user_subject(self.username)

    @property
    def actor(self) -> Actor:
        """Who authenticated; ``on_behalf_of`` is the user that it impersonates."""
        name = self.user.text("username") or UNKNOWN
        return Actor(name, kind_of(name), on_behalf_of=self.impersonated.text("username"))

    @property
    def outcome(self) -> str:
        """``success``, ``denied``, ``failure``, or ``unknown`` without a status."""
        if self.annotations.text(DECISION) == "forbid" or self.code in (401, 403):
            return "denied"
        if self.stage == "Panic" or (self.code or 0) >= 400:
            return "failure"
        return "unknown" if self.code is None else "success"

    @property
    def refused(self) -> bool:
        """Whether the request changed nothing."""
        return self.outcome in ("denied", "failure")

    @property
    def error(self) -> str | None:
        """The API server's message about a refusal."""
        if not self.refused:
            return None
        return self.status.text("message") or self.status.text("reason") or self.annotations.text(REASON)

    @property
    def allowed_by(self) -> str | None:
        """The binding that allowed the request, in the words of the RBAC authorizer."""
        return None if self.refused else self.annotations.text(REASON)

    @property
    def asked(self) -> Fields:
        """The object in the request; empty if the audit policy does not log it, or if it is a JSON Patch."""
        return _object(self.record, "requestObject")

    @property
    def answer(self) -> Fields:
        """The object in the response; empty if the audit policy does not log it."""
        return _object(self.record, "responseObject")

    def parameters(self, name: str) -> tuple[str, ...]:
        """Return the values of a parameter in the URI."""
        try:
            query = urlsplit(self.uri).query
            found = parse_qs(query, keep_blank_values=True, errors="backslashreplace").get(name, [])
        except ValueError:
            return ()
        return tuple(found[:_MANY])

    @property
    def dry_run(self) -> bool:
        """Whether the API server was asked to change nothing."""
        return bool(self.parameters("dryRun") or self.asked.values.get("dryRun"))  # DeleteOptions have it too

    @property
    def resource(self) -> Resource:
        """The cluster: grants and sessions inside it name it, and the part of it in the entitlement."""
        return Resource("kubernetes_cluster", self.cluster)

    def event(self, event_type: str, **own: Any) -> Event:
        """Return an event of this record: the fields that all of them share, and its own ones."""
        shared = {
            "occurred_at": self.ended,
            "source": EventSource(SYSTEM, self.instance, self.native_id, f"{self.target.kind} {self.verb}"),
            "subject": self.subject,
            "actor": self.actor,
            "resource": self.resource,
            "outcome": self.outcome,
            "error": self.error,
            "client_ip": _client_ip(self.record),
        }
        return Event(event_type=event_type, **{**shared, **own})


def kind_of(name: str) -> str:
    """Return the kind of a user. Kubernetes does not say whether another user is a person."""
    if name.startswith(SERVICE_ACCOUNT) or name.endswith(_GOOGLE_ACCOUNT):
        return "service"
    return "system" if name.startswith(_SYSTEM_NAMES) else UNKNOWN


def user_subject(name: str) -> Subject:
    """Return a user as a subject."""
    return Subject(name, kind_of(name), email_in(name))


def in_namespace(role: str, namespace: str) -> str:
    """Return the entitlement to a role, or to an action, in a namespace; in the cluster without one."""
    return f"{role} in {namespace}" if namespace else role


def _target(reference: Fields) -> Target:
    names = ("apiGroup", "resource", "subresource", "namespace", "name")
    return Target(*(reference.text(name) or "" for name in names))


def _object(record: Fields, name: str) -> Fields:
    """Return an object; empty for another value: a JSON Patch, or AKS's text in place of a large one."""
    value = record.values.get(name)
    return Fields(value if isinstance(value, dict) else {}, record.location, f"{record.path}{name}.")


def _client_ip(record: Fields) -> str | None:
    """Return the last address: a client can choose all but this one."""
    addresses = record.texts("sourceIPs")
    return ip_address_in(addresses[-1]) if addresses else None
