"""Sample lives as Teleport writes them into its audit log."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

from ..schemas.event import Resource
from .life import Deed, Life, Step
from .own import Own
from .teller import Held, Teller, stamp
from .world import CLUSTER, Person

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


class TeleportTeller(Teller):
    """Tells a life as Teleport records."""

    DIGITS = 3

    def __init__(self, life: Life, start: datetime, rng: random.Random, checker: Own | None = None) -> None:
        super().__init__(life, start, rng, checker)
        self.cluster = life.place or CLUSTER
        self._request = self.new_id()
        self._session = self.new_id()
        self._index = 0

    @property
    def grant_id(self) -> str:
        """The access request, which is the grant as well; of a member the membership."""
        joined = any(step.deed is Deed.GRANTED and step.detail == ACCESS_LIST for step in self.life.steps)
        return f"access_list:{ACCESS_LIST}/{self.life.person.email}" if joined else self._request

    @property
    def session_id(self) -> str:
        """Teleport's session id."""
        return self._session

    def held(self, deed: Deed) -> Held:
        """Return the grant as the checker knows it."""
        target = self.life.target
        return Held(self.grant_id, self.life.person.email, Resource(target.kind, target.name), target.role)

    def records(self, step: Step, at: datetime) -> list[dict[str, Any]]:
        """Return the records of a step."""
        deed = step.deed
        if deed is Deed.REQUESTED:
            return [self._requested(at)]
        if deed in (Deed.REVIEWED, Deed.APPROVED, Deed.DENIED):
            return [self._reviewed(step, at)]
        if deed is Deed.CANCELLED:
            return [self._record("access_request.delete", at, **self._user(self.life.person), id=self._request)]
        if deed is Deed.LAPSED:
            # A request that nobody decides lapses long before the access that it asked for would have ended.
            until = at + _REQUEST_LIFETIME
            return [self._record("access_request.expire", at, id=self._request, expires=stamp(until))]
        if deed is Deed.EXPIRED:
            return [self._record("access_request.expire", at, id=self._request, expires=stamp(self.ends))]
        if step.detail == ACCESS_LIST:
            return [self._member(at, "create" if deed is Deed.GRANTED else "delete")]
        if deed in (Deed.GRANTED, Deed.RENEWED):
            return [self._granted(at)]
        if deed is Deed.REVOKED:
            return [self._locked(at)]
        return [self._in_session(step, at)]

    def open_ends(self) -> list[Deed]:
        """Return what is left to say: a session's end, and a lock where a certificate is out."""
        told = set(self.told)
        ends = []
        if Deed.SESSION_STARTED in told and Deed.SESSION_ENDED not in told:
            ends.append(Deed.SESSION_ENDED)
        if Deed.GRANTED in told and not told & {Deed.REVOKED, Deed.EXPIRED}:
            ends.append(Deed.REVOKED)
        decided = {Deed.APPROVED, Deed.DENIED, Deed.CANCELLED, Deed.LAPSED}
        if Deed.REQUESTED in told and not told & decided:
            ends.append(Deed.CANCELLED)
        return ends

    def _record(self, event: str, at: datetime, **members: Any) -> dict[str, Any]:
        record = {"ei": self._index, "event": event, "uid": self.new_id(), "code": _CODES[event]}
        self._index += 1
        return {**record, "time": stamp(at, self.DIGITS), "cluster_name": self.cluster, **members}

    def _user(self, person: Person) -> dict[str, Any]:
        return {"user": person.email, "user_kind": 1, "user_cluster_name": self.cluster}

    def _asked(self) -> dict[str, Any]:
        target = self.life.target
        asked = {"cluster": self.cluster, "kind": target.kind, "name": target.name}
        return {"roles": [target.role], "id": self._request, "resource_ids": [asked]}

    def _until(self) -> dict[str, Any]:
        until = self.ends if self.life.grant_ends else self.clock(self.start) + _REQUEST_LIFETIME
        return {"max_duration": stamp(until), "expires": stamp(until)}

    def _requested(self, at: datetime) -> dict[str, Any]:
        reason = f"{self.life.ticket}: {self.life.reason}"
        members = {**self._user(self.life.person), **self._until(), **self._asked()}
        return self._record("access_request.create", at, **members, state="PENDING", reason=reason)

    def _reviewed(self, step: Step, at: datetime) -> dict[str, Any]:
        first = step.deed is Deed.REVIEWED
        reviewer = self.life.reviewers[0 if first else -1]
        proposed = "DENIED" if step.deed is Deed.DENIED else "APPROVED"
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
            "user": self.life.person.email,
            "roles": ["engineer", self.life.target.role],
            "logins": [self.life.target.user],
            "expires": stamp(self.ends),
            "route_to_cluster": self.cluster,
            "teleport_cluster": self.cluster,
            "client_ip": self.life.person.address,
            "access_requests": [self._request],
            "allowed_resource_ids": self._asked()["resource_ids"],
        }
        return self._record("cert.create", at, cert_type="user", identity=identity)

    def _locked(self, at: datetime) -> dict[str, Any]:
        reviewer = self.life.reviewers[-1]
        lock = {"name": self.new_id(), "expires": stamp(self.ends), "updated_by": reviewer.email}
        return self._record(
            "lock.created", at, **lock, **self._user(reviewer), target={"access_request": self._request}
        )

    def _member(self, at: datetime, what: str) -> dict[str, Any]:
        reviewer = self.life.reviewers[-1]
        members = [{"member_name": self.life.person.email, "reason": self.life.reason}]
        title = {"access_list_name": ACCESS_LIST, "access_list_title": "Production responders"}
        return self._record(f"access_list.member.{what}", at, **self._user(reviewer), **title, members=members)

    def _in_session(self, step: Step, at: datetime) -> dict[str, Any]:
        life = self.life
        who = {**self._user(life.person), "access_requests": [self._request], "sid": self._session}
        connection = {"addr.remote": f"{life.person.address}:50112"}
        if life.target.kind == "db":
            database = {
                "db_service": life.target.name,
                "db_protocol": "postgres",
                "db_name": life.target.name.removesuffix("-prod"),
                "db_user": life.target.user,
                "db_labels": {"env": "prod"},
            }
            if step.deed is Deed.ACTED:
                return self._record("db.session.query", at, **who, **database, db_query=step.detail, success=True)
            event = "db.session.start" if step.deed is Deed.SESSION_STARTED else "db.session.end"
            opened = {**connection, "success": True} if step.deed is Deed.SESSION_STARTED else {}
            return self._record(event, at, **who, **database, **opened)
        if life.target.kind == "kube_cluster":
            place = {
                "kubernetes_cluster": life.target.name,
                "kubernetes_groups": [life.target.role],
                "kubernetes_labels": {"env": "prod"},
                "proto": "kube",
            }
            if step.deed in (Deed.ACTED, Deed.REFUSED):
                return self._kube(step, at, {**who, **connection, **place})
        else:
            place = {"server_hostname": life.target.name, "login": life.target.user, "server_labels": {"env": "prod"}}
            if step.deed is Deed.ACTED:
                program, *argv = step.detail.split(" ")
                run = {"path": program, "program": program.rsplit("/", 1)[1], "argv": argv, "return_code": 0}
                return self._record("session.command", at, **who, **place, **run)
        event = "session.start" if step.deed is Deed.SESSION_STARTED else "session.end"
        return self._record(event, at, **who, **connection, **place)

    def _kube(self, step: Step, at: datetime, members: dict[str, Any]) -> dict[str, Any]:
        refused = step.deed is Deed.REFUSED
        verb, path = ("DELETE", "/api/v1/namespaces/checkout/secrets/tls") if refused else step.detail.split(" ", 1)
        return self._record(
            "kube.request", at, **members, verb=verb, request_path=path, response_code=403 if refused else 200
        )
