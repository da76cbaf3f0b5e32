"""The results of revocations, lookups and findings in the history of a grant, as text."""

from __future__ import annotations

import json
from typing import Any

from ..schemas.finding_event import PERSON_REQUEST
from ..schemas.finding_rules import FINDING_RULES
from .output import Row

EVIDENCE = """
SELECT origin, `index`, finding_evidence
FROM entries
WHERE grant_id = {id:String} AND event_type IN (
    'finding.resolved', 'lookup.answered', 'revoke.attempted', 'revoke.confirmed', 'revoke.failed',
    'revoke.dry_run'
)
ORDER BY append_time, origin, `index`
LIMIT {limit:UInt32}
"""


def finding_text(event: Row) -> str:
    """Return what an event with a finding reports, not yet escaped. Any sender may have written it."""
    rule, text = event["finding_rule"], _TEXTS.get(event["event_type"])
    if text is not None:
        return text(event, _evidence(event))
    if rule == PERSON_REQUEST:
        return ""
    return f"{rule}: {FINDING_RULES[rule].summary}" if rule in FINDING_RULES else rule


def _evidence(event: Row) -> dict[str, Any]:
    try:
        found = json.loads(event["finding_evidence"])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _attempted(event: Row, evidence: dict[str, Any]) -> str:
    attempt = " ".join(["attempt", *([str(evidence["attempt"])] if "attempt" in evidence else [])]) + _at(evidence)
    if event["outcome"] == "pending":
        return f"{attempt} begins"
    if event["outcome"] != "success":
        return f"{attempt} failed{_observed(evidence)}"  # the event's error has the answer
    return f"{attempt} was accepted{_colon(evidence.get('answer'))}{_observed(evidence)}"


def _confirmed(event: Row, evidence: dict[str, Any]) -> str:
    number = evidence.get("attempt")
    when = " before any attempt" if number == 0 else f" after attempt {number}" if number else ""
    return f"the access is gone{when}, as read back{_at(evidence)}{_colon(evidence.get('observed'))}"


def _failed(event: Row, evidence: dict[str, Any]) -> str:
    number = evidence.get("attempt")
    return f"given up{f' after attempt {number}' if number else ''}{_at(evidence)}"


def _rehearsed(_event: Row, evidence: dict[str, Any]) -> str:
    obstacle = evidence.get("obstacle")
    return f"dry run: would not revoke{_colon(obstacle)}" if obstacle else f"dry run: would revoke{_at(evidence)}"


def _answered(event: Row, evidence: dict[str, Any]) -> str:
    if event["outcome"] != "success":
        return f"no answer{_at(evidence)}"  # the event's error has the reason
    found = "is gone" if event["removal_evidence"] == "confirmed" else "exists"
    return f"the access {found}, as read back{_at(evidence)}{_colon(evidence.get('observed'))}"


def _resolved(event: Row, evidence: dict[str, Any]) -> str:
    rule, removal = event["finding_rule"], evidence.get("removal", "not reported")
    why = "its condition no longer holds" if removal == "not reported" else f"a removal is on record ({removal})"
    return f"{rule} is resolved: {why}"


_TEXTS = {
    "finding.resolved": _resolved,
    "lookup.answered": _answered,
    "revoke.attempted": _attempted,
    "revoke.confirmed": _confirmed,
    "revoke.failed": _failed,
    "revoke.dry_run": _rehearsed,
}


def _at(evidence: dict[str, Any]) -> str:
    return f" at the target {evidence['target']}" if evidence.get("target") else ""


def _colon(text: object) -> str:
    return f": {text}" if text else ""


def _observed(evidence: dict[str, Any]) -> str:
    return f"; read back: {evidence['observed']}" if evidence.get("observed") else ""
