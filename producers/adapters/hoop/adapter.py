"""hoop.dev: the events that its gateway publishes, its webhooks and its reviews, one JSON object a line.

After the gateway's catalogue of events, the schemas of its webhooks and "Reviews" in the description of its API.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ....schemas.event import Event
from ..contract import Adapter, Mapped, Skipped
from ..reading import Fields
from .record import SYSTEM, HoopRecord
from .reviews import is_review, map_decision, map_review
from .sessions import map_session

_CLOSE_OF_SESSION = "session.guardrail_violation"


class HoopAdapter(Adapter):
    """Maps hoop's records: ``{"event_type", "payload"}``, the payload alone, or a review as the API returns it.

    Three facts of hoop shape it. An approval is published for every kind of review and names no end, so it is an
    approval and no grant. A review of type ``jit`` gets its ``revoke_at`` when it is approved: that is the planned end
    of the access and nobody's revocation. Webhooks hold no time: without one around them they cannot be placed.
    """

    SYSTEM: ClassVar[str] = SYSTEM
    SKIP_REASONS: ClassVar[dict[str, str]] = {
        "assessment": "what hoop thinks of a session: data found or masked in it, its risk, its tags",
        "blank_line": "an empty line",
        "chat_message": "a card rendered for a chat, without a time",
        "event_unknown": "a type that this version does not know",
        "hook_input": "what a hook of a runbook is given, without a time",
        "no_time": "nothing in the record says when it happened, and no time is made up",
        "review_ran": "the session under a review runs or ran; sessions have records of their own",
    }

    def map(self, record: Fields) -> Mapped | Skipped:
        """Return the events of one record; see the contract."""
        if is_review(record):
            return map_review(record, self.instance)
        found = HoopRecord(record, self.instance)
        skipped = _skipped(found.event_type)
        if skipped is not None:
            return Skipped(skipped, found.event_type)
        if found.event_type in ("access.jit_approved", "access.jit_denied"):
            return map_decision(found)
        if found.event_type == _CLOSE_OF_SESSION:
            return (_violation(found),)
        return map_session(found) or Skipped("event_unknown", found.event_type)


def _skipped(event_type: str) -> str | None:
    if event_type.startswith("alert.") or event_type in ("session.anomaly_detected", "session.pci_scope_entered"):
        return "assessment"
    if event_type.startswith("microsoftteams."):
        return "chat_message"
    return "hook_input" if event_type == "runbook_hook" else None


def _violation(found: HoopRecord) -> Event:
    """A rule that stopped something in a session. It is published at the close, with the words that matched."""
    rule = found.payload.required_text("rule")
    session = found.payload.required_text("session_id")
    common: dict[str, Any] = found.common(f"{session}:{rule}")
    return Event(
        event_type="session.denied",
        subject=found.subject,
        resource=found.connection,
        session_id=session,
        outcome="denied",
        error=rule,
        action=found.excerpt(),
        **common,
    )
