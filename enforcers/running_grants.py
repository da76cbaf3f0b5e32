"""The grants that are running now, and those that were ever activated, according to ``access.lifecycle``. Pure.

Seconds or a day pass between a command and its execution. The enforcer must not remove a grant that was extended
meanwhile, nor access that it shares with a grant that started meanwhile.

Only its own source extends a grant. Only its own source, or an enforcer that read the access back, removes it. An event
that names only a request is about all its grants.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, NamedTuple

from ..schemas.access_key import SourceName, access_key, is_issuer, issuer_of
from ..schemas.event import GIVING, OBSERVED, REMOVING
from ..schemas.own_sources import ENFORCER
from ..schemas.rules import FAILED
from .command_rules import SealedActivation
from .contract import Key, RevokeCommand

KINDS = (*GIVING, *REMOVING, OBSERVED)
"""Types of the events that matter here."""
LATEST = datetime.max.replace(tzinfo=UTC)
KEPT = timedelta(days=1)
"""How long after its end a grant is kept that has a request: an extension of the request may arrive late."""


class AccessIdentity(NamedTuple):
    """Identifies an access. Grants with the same identity overlap. The watch compares the same fields."""

    tenant: str
    subject: str
    resource_kind: str
    resource: str
    entitlement: str


def access_of(command: RevokeCommand) -> AccessIdentity:
    """Return the access that a command asks to remove."""
    resource = command.resource
    return AccessIdentity(command.key.tenant, command.subject.id, resource.kind, resource.id, command.entitlement)


class GrantEvent(NamedTuple):
    """What one event reports about a grant.

    Attributes:
        key: access key of the grant; empty if the event names only a request.
        request_key: access key of the request, or empty.
        source: the source that issued the grant; if the event names only a request, its own source.
        own: whether the event is from that source.
        signed: whether it is registered and signed the event.
        confirmed: whether a removal is confirmed.
        occurred: by the source's clock, but not later than it was appended.
    """

    kind: str
    event_id: str
    key: str
    request_key: str
    grant_id: str
    source: SourceName
    own: bool
    signed: bool
    access: AccessIdentity
    environment: str
    confirmed: bool
    until: datetime | None
    occurred: datetime
    appended: datetime

    @classmethod
    def of(cls, datum: Mapping[str, Any], appended: datetime, *, signed: bool) -> GrantEvent | None:
        """Return what a decoded event reports, None if it is not about a grant, or changed nothing."""
        kind, grant_id, request_id = datum["event_type"], datum["grant_id"] or "", datum["request_id"] or ""
        if not (grant_id or request_id) or kind not in KINDS or datum["outcome"] in FAILED:
            return None
        source, tenant = _name(datum["source"]), datum["tenant"]
        issuer = _issuer(datum, "grant_source") if grant_id else source
        resource = datum["resource"] or {"kind": "", "id": "", "environment": None}
        own, confirmed = is_issuer(source, issuer), datum["removal_evidence"] == "confirmed"
        if not own:
            read_back = datum["outcome"] == "success" and (confirmed if kind in REMOVING else kind == OBSERVED)
            if source[0] != ENFORCER or not read_back:
                return None
        access = AccessIdentity(
            tenant, datum["subject"]["id"], resource["kind"], resource["id"], datum["entitlement"] or ""
        )
        until = datum["expires_at"]
        if until is not None:
            # A source clock that is ahead does not lengthen the grant.
            until = until.astimezone(UTC) - max(timedelta(0), datum["occurred_at"] - appended)
        return cls(
            kind, datum["event_id"], access_key(tenant, issuer, grant_id) if grant_id else "",
            access_key(tenant, _issuer(datum, "request_source"), request_id) if request_id else "", grant_id, issuer,
            own, signed, access, resource["environment"] or "", confirmed, until,
            min(datum["occurred_at"].astimezone(UTC), appended), appended,
        )  # fmt: skip

    def is_grant_of(self, key: Key) -> bool:
        """Whether a command is about this grant."""
        return self.key == key.grant_key

    def runs(self, now: datetime) -> bool:
        """Whether the grant has not ended after this event."""
        return self.kind in GIVING and (self.until is None or self.until > now)


class _Known(NamedTuple):
    """A grant that runs, or would seem to run if an old record of it was sent again.

    Attributes:
        last: its last event.
        request_key: access key of the request that its first event with one names, or empty.
        activated: its source activated it, and did not only extend it.
        until: the latest end that any event gave it.
    """

    last: GrantEvent
    request_key: str
    activated: bool
    until: datetime | None

    def may_run(self, now: datetime) -> bool:
        """Whether it runs, or an old record or an extension of its request could bring it back."""
        return self.until is None or self.until > now - (KEPT if self.request_key else timedelta(0))

    def is_foreign_claim(self, key: Key) -> bool:
        """Whether another source extended the id of a command's grant without having activated such a grant."""
        same_id = (self.last.access.tenant, self.last.grant_id) == (key.tenant, key.grant_id)
        return same_id and not self.activated and bool(key.issuer[0]) and not self.last.is_grant_of(key)


class RunningGrants:
    """The running grants. The last event of a grant by its source's clock counts, of equal ones the later in the log.

    So an old record that is sent again, even a signed one, changes nothing.
    """

    def __init__(self) -> None:
        self._grants: dict[str, _Known] = {}
        self._of_request: dict[str, set[str]] = {}

    def add(self, event: GrantEvent, now: datetime) -> None:
        """Apply an event."""
        if event.kind == OBSERVED:
            return
        if not event.key:
            self._add_to_grants_of_request(event)
            return
        known = self._grants.get(event.key)
        if known is None:
            first = _Known(event, event.request_key, event.kind == "grant.activated", event.until)
            if event.kind in GIVING and first.may_run(now):
                self._set(event.key, first)
        elif event.own or event.access == known.last.access:
            self._apply(event.key, known, event)

    def _add_to_grants_of_request(self, event: GrantEvent) -> None:
        """Apply an event that names only a request to those of its grants that the event's source issued."""
        for key in self._of_request.get(event.request_key, ()):
            known = self._grants[key]
            last = known.last
            back = event.kind in GIVING and last.kind in REMOVING and last.confirmed
            if is_issuer(event.source, last.source) and not back:
                about = last._replace(
                    kind=event.kind, event_id=event.event_id, own=True, signed=event.signed, confirmed=event.confirmed,
                    until=event.until, occurred=event.occurred, appended=event.appended,
                )  # fmt: skip
                self._apply(key, known, about)

    def _apply(self, key: str, known: _Known, event: GrantEvent) -> None:
        if _is_old(event, known.last):
            return
        ends = (known.until, event.until if event.kind in GIVING else known.until)
        until = max((end for end in ends if end is not None), default=None) if None not in ends else None
        activated = known.activated or event.kind == "grant.activated"
        self._set(key, _Known(event, known.request_key or (event.own and event.request_key) or "", activated, until))

    def _set(self, key: str, known: _Known) -> None:
        self._grants[key] = known
        if known.request_key:
            self._of_request.setdefault(known.request_key, set()).add(key)

    def covering(
        self, command: RevokeCommand, requested: datetime, now: datetime, shared: Callable[[GrantEvent], bool]
    ) -> GrantEvent | None:
        """Return the last event of the running grant that covers the access of a command: its own, else the longest.

        Args:
            requested: when the revocation was requested.
            shared: whether the revocation would also remove the access of another grant. A grant counts only if the
                policy lets its source decide about that access.
        """
        key, access = command.key, access_of(command)

        def covers(known: _Known) -> bool:
            one = known.last
            own = one.is_grant_of(key)
            if not one.runs(now) or known.is_foreign_claim(key) or not (own or shared(one)):
                return False
            if own and command.requested_by and one.appended <= requested:
                return False  # the person knew that it runs
            # The watch policy may give a grant an end: the watch considered it when it sent the command.
            return one.until is not None or not (own or one.access == access) or one.appended > requested

        running = (known.last for known in self._grants.values() if covers(known))
        return max(running, key=lambda one: (one.is_grant_of(key), one.until or LATEST, one.key), default=None)

    def prune(self, now: datetime) -> None:
        """Delete the grants that no record can bring back."""
        kept = {key: one for key, one in self._grants.items() if one.may_run(now)}
        self._grants, self._of_request = {}, {}
        for key, one in kept.items():
            self._set(key, one)


class SealedActivations:
    """The activations in the sealed log, of grants of any age: 200 bytes each."""

    def __init__(self) -> None:
        self._seed = os.urandom(16)
        self._found: dict[int, int] = {}
        """By grant and access: when the first record arrived, in milliseconds; bits: observed, activated, signed."""

    def add(self, event: GrantEvent, received: datetime) -> None:
        """Apply an event of the sealed log that arrived at some time."""
        place, time_ms = self._place(event.key, event.access), int(received.timestamp() * 1000)
        if event.kind == OBSERVED and not event.own and place in self._found:
            self._found[place] |= 4
        if not event.own or not event.key or event.kind not in GIVING:
            return
        found = self._found.get(place, time_ms << 3)
        activated = event.kind == "grant.activated"
        self._found[place] = min(found >> 3, time_ms) << 3 | found & 7 | activated << 1 | (activated and event.signed)

    def find(self, command: RevokeCommand) -> SealedActivation | None:
        """Return the activation of the grant of a command, with the same access."""
        found = self._found.get(self._place(command.key.grant_key, access_of(command)), 0)
        if not found & 2:
            return None
        return SealedActivation(datetime.fromtimestamp((found >> 3) / 1000, UTC), bool(found & 1), bool(found & 4))

    def _place(self, key: str, access: AccessIdentity) -> int:
        text = "\0".join((key, *access)).encode("utf-8", "replace")
        return int.from_bytes(blake2b(text, digest_size=8, key=self._seed).digest())


def _is_old(event: GrantEvent, last: GrantEvent) -> bool:
    """Whether an event happened before the last one, is the same, or gives at the moment when that one took."""
    if event.occurred != last.occurred:
        return event.occurred < last.occurred
    return event.event_id == last.event_id or (event.kind in GIVING and last.kind in REMOVING)


def _issuer(datum: Mapping[str, Any], name: str) -> SourceName:
    named = datum.get(name)
    return issuer_of(_name(datum["source"]), _name(named) if named else None)


def _name(source: Mapping[str, Any]) -> tuple[str, str]:
    return source["system"], source["instance"]
