"""hoop.dev: reviews, both as published decisions and as the resource that the API returns."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ....schemas.event import Actor, Approval, Event, EventSource, Resource
from ...json_fields import Fields
from ..contract import Mapped, Skipped
from ..values import UNKNOWN, time_after
from .record import SYSTEM, HoopRecord, person

_DECISIONS = {"APPROVED": "approved", "REJECTED": "denied"}
_RAN = frozenset({"PROCESSING", "EXECUTED", "UNKNOWN"})


def map_decision(hoop: HoopRecord) -> Mapped:
    """Return the event of an approved or rejected review.

    An approval is not a grant: hoop publishes it for every type of review, even for a single statement, without an end.
    """
    payload = hoop.payload
    approved = hoop.event_type == "access.jit_approved"
    review = payload.required_text("review_id")
    reviewer = payload.text("reviewer")
    reason = payload.text("reason")
    decision = "approved" if approved else "denied"
    approval = Approval(reviewer or UNKNOWN, decision, at=hoop.required_time, reason=reason)
    return (
        hoop.event(
            f"request.{decision}",
            review,
            actor=Actor(reviewer or UNKNOWN),
            # A review covers the whole connection; hoop has no roles within one.
            entitlement=UNKNOWN,
            request_id=review,
            session_id=payload.text("session_id"),
            approvals=(approval,),
            reason=reason,
            outcome="success" if approved else "denied",
        ),
    )


def is_review(record: Fields) -> bool:
    """Return whether this is a review as ``GET /api/reviews`` returns it: it has no event type."""
    is_kind = record.has("review_owner") or record.values.get("type") in ("jit", "onetime")
    return not record.has("event_type") and is_kind and record.has("status")


def map_review(record: Fields, instance: str | None) -> Mapped | Skipped:
    """Return the events for the state of a review. A review contains only its last state."""
    status = record.required_text("status")
    if status in _RAN:
        return Skipped("review_ran", f"a review in state {status}")
    review = _Review(record, status, instance)
    time = review.time
    if time is None:
        return Skipped("no_time", f"a review in state {status} without the time of the decision")
    match status:
        case "PENDING":
            return (review.event("request.created", time, outcome="pending", requested_seconds=review.seconds),)
        case "APPROVED":
            return review.approved(time)
        case "REJECTED":
            return (review.event("request.denied", time, outcome="denied", reason=record.text("rejection_reason")),)
        case "EXPIRED":
            return (review.event("request.expired", time, outcome="success"),)
        case "REVOKED":
            removal = {"outcome": "success", "removal_evidence": "api_accepted", **review.grant}
            return (review.event("grant.revoked", time, **removal),)
    return Skipped("event_unknown", f"a review in state {status}")


class _Review:
    """A review resource."""

    def __init__(self, record: Fields, status: str, instance: str | None) -> None:
        self.record = record
        self.status = status
        self.id = record.required_text("id")
        self.jit = record.text("type") == "jit"
        self.source = EventSource(SYSTEM, instance or SYSTEM, self.id, f"review/{status}")
        self.owner = record.object("review_owner")
        self.groups = record.objects("review_groups_data")

    @property
    def time(self) -> datetime | None:
        """When the review reached its state: the last decision with that status."""
        if self.status == "PENDING":
            return self.record.time("created_at")
        if self.status == "EXPIRED":
            return self.record.time("expires_at")
        dates = [group.time("review_date") for group in self.groups if group.text("status") == self.status]
        return max((date for date in dates if date is not None), default=None)

    @property
    def seconds(self) -> int | None:
        """The duration of the access; None for a review of a single statement. hoop stores nanoseconds."""
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
        """Map an approved review. Type ``jit`` opens the connection until ``revoke_at``, which the approval sets."""
        events = (self.event("request.approved", time, outcome="success", requested_seconds=self.seconds),)
        if not self.jit:
            return events
        planned = self.record.time("revoke_at")
        until = planned or time_after(time, self.seconds)
        source = "native" if planned else "derived" if until else "unknown"
        given = {"outcome": "success", "expires_at": until, "expiry_source": source, **self.grant}
        return (*events, self.event("grant.activated", time, **given))

    def event(self, event_type: str, time: datetime, **own: Any) -> Event:
        deciders = (_reviewer(group) for group in self.groups if group.text("status") == self.status)
        decider = next(filter(None, deciders), None)
        owner = person(self.owner.text("email") or self.owner.text("id"))
        # The owner creates a review; hoop itself lets it expire.
        actor = {"PENDING": Actor(owner.id), "EXPIRED": Actor(SYSTEM, "system")}.get(self.status)
        return Event(
            event_type=event_type,
            occurred_at=time,
            source=self.source,
            subject=owner,
            actor=actor or Actor(decider or UNKNOWN),
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
