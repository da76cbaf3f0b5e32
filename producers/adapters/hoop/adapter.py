"""hoop.dev: the gateway's events, its webhooks and its reviews, one JSON object per line.

Sources: the gateway's event catalog, the webhook schemas, and "Reviews" in the API description.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ....schemas.event import Event
from ...json_fields import Fields
from ...redaction.redactor import Redaction
from ..contract import Adapter, Mapped, Skipped
from .mcp import Agents, is_mcp_event, map_mcp_event
from .record import SYSTEM, HoopRecord
from .reviews import is_review, map_decision, map_review
from .sessions import map_session, without_secrets_in_input

_GUARDRAIL_VIOLATION = "session.guardrail_violation"


class HoopAdapter(Adapter):
    """Maps hoop's records: ``{"event_type", "payload"}``, a payload alone, or a review as the API returns it.

    Three properties of hoop determine the mapping. hoop publishes an approval for every kind of review, without an
    end, so an approval is not a grant. A review of type ``jit`` gets its ``revoke_at`` at the approval: it is the
    planned end, not a revocation. Webhooks contain no time; the program that stores them must add one.
    """

    SYSTEM: ClassVar[str] = SYSTEM
    VERSION: ClassVar[str] = "2"
    COVERS: ClassVar[tuple[str, ...]] = (
        "reviews: requests, approvals, denials, and grants of type jit",
        "sessions with their input, and violated guardrails",
        "tool calls of AI agents (MCP) on behalf of a person, held and refused calls",
    )
    DOES_NOT_SAY: ClassVar[tuple[str, ...]] = (
        "that a jit review has ended: its grant ends at revoke_at by the plan only",
        "earlier states of a review: export it while it is approved",
        "the arguments of a tool call: it records their size and digest",
    )
    MARKS: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"event_type"}), frozenset({"review_owner"}))
    REMEMBERS: ClassVar[bool] = True
    HIDES: ClassVar[tuple[bytes, ...]] = (b'"input"',)
    SKIP_REASONS: ClassVar[dict[str, str]] = {
        "assessment": "hoop's assessment of a session: detected or masked data, risk, tags",
        "call_result": "the answer to a tool call that succeeded; the call is mapped",
        "chat_message": "a chat message, without a time",
        "event_unknown": "an unknown type",
        "hook_input": "the input of a runbook hook, without a time",
        "mcp_notice": "what hoop notes beside tool calls: lists and changes of tools, budgets, guardrails, redactions",
        "no_time": "a record without a time",
        "review_ran": "a review whose session runs or ran; sessions have their own records",
    }

    def __init__(self, *, instance: str | None = None, tenant: str = "default") -> None:
        super().__init__(instance=instance, tenant=tenant)
        self._agents = Agents()

    @classmethod
    def owns(cls, record: dict[str, Any]) -> bool:
        """Return whether this is a record of hoop, or of mcpproxy in it."""
        return super().owns(record) or is_mcp_event(record)

    def redact(self, values: dict[str, Any], redaction: Redaction) -> dict[str, Any]:
        """Return a record without the secrets in the input of a session, which is in Base64."""
        return without_secrets_in_input(values, redaction)

    def map(self, record: Fields) -> Mapped | Skipped:
        """Return the events of one record, or the reason to skip it."""
        if is_mcp_event(record.values):
            return map_mcp_event(record, self.instance, self._agents)
        if is_review(record):
            return map_review(record, self.instance)
        hoop = HoopRecord(record, self.instance)
        skipped = _skipped(hoop.event_type)
        if skipped is not None:
            return Skipped(skipped, hoop.event_type)
        if hoop.event_type in ("access.jit_approved", "access.jit_denied"):
            return map_decision(hoop)
        if hoop.event_type == _GUARDRAIL_VIOLATION:
            return (_violation(hoop),)
        return map_session(hoop) or Skipped("event_unknown", hoop.event_type)


def _skipped(event_type: str) -> str | None:
    if event_type.startswith("alert.") or event_type in ("session.anomaly_detected", "session.pci_scope_entered"):
        return "assessment"
    if event_type.startswith("microsoftteams."):
        return "chat_message"
    return "hook_input" if event_type == "runbook_hook" else None


def _violation(hoop: HoopRecord) -> Event:
    """Map a guardrail that blocked an action. hoop publishes it when the session closes."""
    rule = hoop.payload.required_text("rule")
    session = hoop.payload.required_text("session_id")
    denied = {"outcome": "denied", "error": rule, "action": hoop.excerpt()}
    return hoop.event("session.denied", f"{session}:{rule}", session_id=session, **denied)
