"""hoop.dev: reviews, as the decisions that are published and as the resource that the API returns."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from ....schemas.event import Actor, Approval, Event, Resource, Source
from ..contract import Mapped, Skipped
from ..reading import Fields
from .record import SYSTEM, UNKNOWN, HoopRecord, person

_DECISIONS = {"APPROVED": "approved", "REJECTED": "denied"}
_RAN = frozenset({"PROCESSING", "EXECUTED", "UNKNOWN"})


def map_decision(found: HoopRecord) -> Mapped:
    """Return the event of a review that was approved or rejected.

    An approval is published for reviews of every type, also for one that lets a single statement through, and says
    nothing of an end: it is no grant.
    """
    payload = found.payload
    approved = found.event_type == "access.jit_approved"
    review = payload.required_text("review_id")
    reviewer = payload.text("reviewer")
    common = found.common(review, Actor(reviewer or UNKNOWN))
    reason = payload.text("reason")
    decision = "approved" if approved else "denied"
    approval = Approval(reviewer or UNKNOWN, decision, at=common["occurred_at"], reason=reason)
    return (
        Event(
            event_type=f"request.{decision}",
            subject=found.subject,
            resource=found.connection,
            # A connection is reviewed as a whole; hoop has no roles within one.
            entitlement=UNKNOWN,
            request_id=review,
            session_id=payload.text("session_id"),
            approvals=(approval,),
            reason=reason,
            outcome="success" if approved else "denied",
            **common,
        ),
    )


def is_review(record: Fields) -> bool:
    """Whether this is a review as ``GET /api/reviews`` returns it: it names no event."""
    return not record.has("event_type") and record.has("review_owner") and record.has("status")


def map_review(record: Fields, instance: str | None) -> Mapped | Skipped:
    """Return what the state of a review says; a review holds its last state only.

    Args:
        record: the review.
        instance: ``source.instance``; ``hoop`` where None.
    """
    status = record.required_text("status")
    if status in _RAN:
        return Skipped("review_ran", f"a review in state {status}")
    review = _Review(record, status, instance)
    time = review.time
    if time is None:
        return Skipped("no_time", f"a review in state {status} that does not say since when")
    if status == "PENDING":
        return (review.event("request.created", time, outcome="pending", requested_seconds=review.seconds),)
    if status == "APPROVED":
        return review.approved(time)
    if status == "REJECTED":
        reason = record.text("rejection_reason")
        return (review.event("request.denied", time, outcome="denied", reason=reason),)
    if status == "EXPIRED":
        return (review.event("request.expired", time, outcome="success"),)
    if status == "REVOKED":
        return (
            review.event("grant.revoked", time, outcome="success", removal_evidence="api_accepted", **review.grant),
        )
    return Skipped("event_unknown", f"a review in state {status}")


class _Review:
    """A review resource, read once."""

    def __init__(self, record: Fields, status: str, instance: str | None) -> None:
        self.record = record
        self.status = status
        self.id = record.required_text("id")
        self.jit = record.text("type") == "jit"
        self.source = Source(SYSTEM, instance or SYSTEM, self.id, f"review/{status}")
        self.owner = record.object("review_owner")
        self.groups = record.objects("review_groups_data")

    @property
    def time(self) -> datetime | None:
        """When the review came into its state: the last decision that says the same."""
        if self.status == "PENDING":
            return self.record.time("created_at")
        if self.status == "EXPIRED":
            return self.record.time("expires_at")
        dates = [group.time("review_date") for group in self.groups if group.text("status") == self.status]
        return max((date for date in dates if date is not None), default=None)

    @property
    def seconds(self) -> int | None:
        """How long the access may last, from nanoseconds; None for a review of a single statement."""
        nanoseconds = self.record.integer("access_duration") or 0
        return nanoseconds // 1_000_000_000 if self.jit and nanoseconds > 0 else None

    @property
    def grant(self) -> dict[str, Any]:
        return {"grant_id": self.id, "grant_id_kind": "native"}

    @property
    def approvals(self) -> tuple[Approval, ...]:
        return tuple(
            Approval(
                _reviewer(group) or UNKNOWN,
                _DECISIONS.get(group.text("status") or "", "pending"),
                group=group.text("group"),
                at=group.time("review_date"),
                forced=group.flag("forced_review") or False,
            )
            for group in self.groups
        )

    def approved(self, time: datetime) -> Mapped:
        """An approved review. Of type ``jit`` it opens the connection until ``revoke_at``, which is set now."""
        events = (self.event("request.approved", time, outcome="success", requested_seconds=self.seconds),)
        if not self.jit:
            return events
        planned = self.record.time("revoke_at")
        until = planned or _later(time, self.seconds)
        source = "native" if planned else "derived" if until else "unknown"
        given = {"outcome": "success", "expires_at": until, "expiry_source": source, **self.grant}
        return (*events, self.event("grant.activated", time, **given))

    def event(self, event_type: str, time: datetime, **own: Any) -> Event:
        deciders = [_reviewer(group) for group in self.groups if group.text("status") == self.status]
        decider = next((name for name in deciders if name), None)
        owner = person(self.owner.text("email") or self.owner.text("id"))
        # A pending review was caused by who asks; an expired one by nobody.
        asked = {"PENDING": Actor(owner.id), "EXPIRED": Actor(SYSTEM, "system")}.get(self.status)
        return Event(
            event_type=event_type,
            occurred_at=time,
            source=self.source,
            subject=owner,
            actor=asked or Actor(decider or UNKNOWN),
            resource=Resource("connection", self.record.object("review_connection").text("name") or UNKNOWN),
            entitlement=UNKNOWN,
            request_id=self.id,
            session_id=self.record.text("session"),
            approvals=self.approvals,
            **own,
        )


def _reviewer(group: Fields) -> str | None:
    by = group.object("reviewed_by")
    return by.text("email") or by.text("id")


def _later(start: datetime, seconds: int | None) -> datetime | None:
    try:
        return start + timedelta(seconds=seconds) if seconds else None
    except OverflowError:
        return None
