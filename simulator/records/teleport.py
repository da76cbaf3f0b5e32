"""Lifecycles as Teleport's audit log records them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from ..company import CLUSTER, Employee
from ..lifecycle import Step, StepKind
from .writer import RecordWriter, rfc3339

_CODES = {
    "access_request.create": "T5000I",
    "access_request.review": "T5002I",
    "access_request.delete": "T5003I",
    "access_request.expire": "T5005I",
    "cert.create": "TC000I",
    "session.start": "T2000I",
    "session.command": "T4000I",
    "session.end": "T2004I",
    "db.session.start": "TDB00I",
    "db.session.query": "TDB02I",
    "db.session.end": "TDB01I",
    "kube.request": "T3009I",
    "lock.created": "TLK00I",
    "access_list.member.create": "TAL005I",
    "access_list.member.delete": "TAL007I",
}
ACCESS_LIST = "production-responders"
_REQUEST_LIFETIME = timedelta(minutes=30)


class TeleportWriter(RecordWriter):
    """Writes a lifecycle as Teleport records."""

    DIGITS = 3
    closings = (
        (StepKind.SESSION_STARTED, StepKind.SESSION_ENDED),
        (StepKind.GRANTED, StepKind.REVOKED, StepKind.EXPIRED),
        (StepKind.REQUESTED, StepKind.CANCELLED, StepKind.APPROVED, StepKind.DENIED, StepKind.REQUEST_EXPIRED),
    )

    def prepare(self) -> None:
        """Generate the ids of the lifecycle."""
        self.cluster = self.lifecycle.instance or CLUSTER
        self._request = self.new_id()
        self.session_id = self.new_id()
        joined = any(step.kind is StepKind.GRANTED and step.detail == ACCESS_LIST for step in self.lifecycle.steps)
        self.grant_id = f"access_list:{ACCESS_LIST}/{self.lifecycle.person.email}" if joined else self._request
        self._index = 0

    @property
    def source(self) -> tuple[str, str]:
        """System and instance in the events of the tool."""
        return "teleport", self.cluster

    def records(self, step: Step, at: datetime) -> list[dict[str, Any]]:
        """Return the records of a step."""
        kind = step.kind
        if kind is StepKind.REQUESTED:
            return [self._requested(at)]
        if kind in (StepKind.REVIEWED, StepKind.APPROVED, StepKind.DENIED):
            return [self._reviewed(step, at)]
        if kind is StepKind.CANCELLED:
            return [self._record("access_request.delete", at, **self._user(self.lifecycle.person), id=self._request)]
        if kind is StepKind.REQUEST_EXPIRED:
            # An undecided request expires long before the requested end of the access.
            until = at + _REQUEST_LIFETIME
            return [self._record("access_request.expire", at, id=self._request, expires=rfc3339(until))]
        if kind is StepKind.EXPIRED:
            return [self._record("access_request.expire", at, id=self._request, expires=rfc3339(self.ends))]
        if step.detail == ACCESS_LIST:
            return [self._member(at, "create" if kind is StepKind.GRANTED else "delete")]
        if kind in (StepKind.GRANTED, StepKind.RENEWED):
            return [self._granted(at)]
        if kind is StepKind.REVOKED:
            return [self._locked(at)]
        return [self._in_session(step, at)]

    def _record(self, event: str, at: datetime, **members: Any) -> dict[str, Any]:
        record = {"ei": self._index, "event": event, "uid": self.new_id(), "code": _CODES[event]}
        self._index += 1
        return {**record, "time": rfc3339(at, self.DIGITS), "cluster_name": self.cluster, **members}

    def _user(self, person: Employee) -> dict[str, Any]:
        return {"user": person.email, "user_kind": 1, "user_cluster_name": self.cluster}

    def _asked(self) -> dict[str, Any]:
        target = self.lifecycle.target
        asked = {"cluster": self.cluster, "kind": target.kind, "name": target.name}
        return {"roles": [target.role], "id": self._request, "resource_ids": [asked]}

    def _until(self) -> dict[str, Any]:
        until = self.ends if self.lifecycle.grant_ends else self.clock(self.start) + _REQUEST_LIFETIME
        return {"max_duration": rfc3339(until), "expires": rfc3339(until)}

    def _requested(self, at: datetime) -> dict[str, Any]:
        reason = f"{self.lifecycle.ticket}: {self.lifecycle.reason}"
        members = {**self._user(self.lifecycle.person), **self._until(), **self._asked()}
        return self._record("access_request.create", at, **members, state="PENDING", reason=reason)

    def _reviewed(self, step: Step, at: datetime) -> dict[str, Any]:
        first = step.kind is StepKind.REVIEWED
        reviewer = self.lifecycle.reviewers[0 if first else -1]
        proposed = "DENIED" if step.kind is StepKind.DENIED else "APPROVED"
        return self._record(
            "access_request.review",
            at,
            **self._until(),
            **self._asked(),
            state="PENDING" if first else proposed,
            proposed_state=proposed,
            reason=step.detail or "ok",
            reviewer=reviewer.email,
        )

    def _granted(self, at: datetime) -> dict[str, Any]:
        identity = {
            "user": self.lifecycle.person.email,
            "roles": ["engineer", self.lifecycle.target.role],
            "logins": [self.lifecycle.target.user],
            "expires": rfc3339(self.ends),
            "route_to_cluster": self.cluster,
            "teleport_cluster": self.cluster,
            "client_ip": self.lifecycle.person.address,
            "access_requests": [self._request],
            "allowed_resource_ids": self._asked()["resource_ids"],
        }
        return self._record("cert.create", at, cert_type="user", identity=identity)

    def _locked(self, at: datetime) -> dict[str, Any]:
        reviewer = self.lifecycle.reviewers[-1]
        lock = {"name": self.new_id(), "expires": rfc3339(self.ends), "updated_by": reviewer.email}
        target = {"access_request": self._request}
        return self._record("lock.created", at, **lock, **self._user(reviewer), target=target)

    def _member(self, at: datetime, what: str) -> dict[str, Any]:
        reviewer = self.lifecycle.reviewers[-1]
        members = [{"member_name": self.lifecycle.person.email, "reason": self.lifecycle.reason}]
        title = {"access_list_name": ACCESS_LIST, "access_list_title": "Production responders"}
        return self._record(f"access_list.member.{what}", at, **self._user(reviewer), **title, members=members)

    def _in_session(self, step: Step, at: datetime) -> dict[str, Any]:
        lifecycle = self.lifecycle
        who = {**self._user(lifecycle.person), "access_requests": [self._request], "sid": self.session_id}
        connection = {"addr.remote": f"{lifecycle.person.address}:50112"}
        if lifecycle.target.kind == "db":
            database = {
                "db_service": lifecycle.target.name,
                "db_protocol": "postgres",
                "db_name": lifecycle.target.name.removesuffix("-prod"),
                "db_user": lifecycle.target.user,
                "db_labels": {"env": "prod"},
            }
            if step.kind is StepKind.ACTION:
                return self._record("db.session.query", at, **who, **database, db_query=step.detail, success=True)
            event = "db.session.start" if step.kind is StepKind.SESSION_STARTED else "db.session.end"
            opened = {**connection, "success": True} if step.kind is StepKind.SESSION_STARTED else {}
            return self._record(event, at, **who, **database, **opened)
        if lifecycle.target.kind == "kube_cluster":
            names = {"kubernetes_cluster": lifecycle.target.name, "kubernetes_groups": [lifecycle.target.role]}
            resource = {**names, "kubernetes_labels": {"env": "prod"}, "proto": "kube"}
            if step.kind in (StepKind.ACTION, StepKind.ACTION_DENIED):
                return self._kube(step, at, {**who, **connection, **resource})
        else:
            names = {"server_hostname": lifecycle.target.name, "login": lifecycle.target.user}
            resource = {**names, "server_labels": {"env": "prod"}}
            if step.kind is StepKind.ACTION:
                program, *argv = step.detail.split(" ")
                run = {"path": program, "program": program.rsplit("/", 1)[1], "argv": argv, "return_code": 0}
                return self._record("session.command", at, **who, **resource, **run)
        event = "session.start" if step.kind is StepKind.SESSION_STARTED else "session.end"
        return self._record(event, at, **who, **connection, **resource)

    def _kube(self, step: Step, at: datetime, members: dict[str, Any]) -> dict[str, Any]:
        refused = step.kind is StepKind.ACTION_DENIED
        verb, path = ("DELETE", "/api/v1/namespaces/checkout/secrets/tls") if refused else step.detail.split(" ", 1)
        return self._record(
            "kube.request", at, **members, verb=verb, request_path=path, response_code=403 if refused else 200
        )
