"""The places in an event that become columns in the store, and the kind of each.

docs/ledger.md, "Schemas and decoded columns", lists them. A writer schema is usable only if each of these places that
it has is of its kind, so that no datum can be valid and still not fit its column.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from .resolved import MICROS, non_null

Kind = Literal["text", "time", "number", "boolean", "texts", "approvals", "hash"]
APPROVAL: MappingProxyType[str, Kind] = MappingProxyType(
    {"reviewer": "text", "group": "text", "decision": "text", "at": "time", "reason": "text", "forced": "boolean"}
)
"""The fields of an approval."""
_TEXT = ("string", "bytes")


@dataclass(frozen=True, slots=True)
class Place:
    """One place: its column's name, its path in the datum and its kind. Null text reads as empty.

    ``nullable``: whether the store can hold null where text would be empty; if not, a missing time reads as 1970 and a
    missing truth value as false.
    """

    name: str
    path: tuple[str, ...]
    kind: Kind
    nullable: bool = True


def _place(path: str, kind: Kind = "text", name: str | None = None, *, nullable: bool = True) -> Place:
    return Place(name or path.replace(".", "_"), tuple(path.split(".")), kind, nullable)


PLACES: tuple[Place, ...] = (
    _place("event_id"),
    _place("event_type"),
    _place("occurred_at", "time", nullable=False),
    _place("source.system"),
    _place("source.instance"),
    _place("source.native_id", name="native_id"),
    _place("source.native_type", name="native_type"),
    _place("source.seq", "number"),
    _place("source.sender"),
    _place("mapping.adapter"),
    _place("mapping.version"),
    _place("grant_source.system"),
    _place("grant_source.instance"),
    _place("request_source.system"),
    _place("request_source.instance"),
    _place("session_source.system"),
    _place("session_source.instance"),
    _place("tenant"),
    _place("subject.id"),
    _place("subject.kind"),
    _place("subject.email"),
    _place("actor.id"),
    _place("actor.kind"),
    _place("actor.on_behalf_of"),
    _place("resource.kind"),
    _place("resource.id"),
    _place("resource.environment"),
    _place("entitlement"),
    _place("grant_id"),
    _place("grant_id_kind"),
    _place("request_id"),
    _place("session_id"),
    _place("approvals", "approvals"),
    _place("starts_at", "time"),
    _place("expires_at", "time"),
    _place("requested_seconds", "number"),
    _place("expiry_source"),
    _place("ends_by_itself", "boolean"),
    _place("removal_evidence"),
    _place("reason"),
    _place("ticket"),
    _place("customer"),
    _place("outcome"),
    _place("error"),
    _place("client_ip"),
    _place("action.command", name="command"),
    _place("action.args", "texts", name="args"),
    _place("action.query", name="query"),
    _place("action.exit_code", "number", name="exit_code"),
    _place("action.redacted", "boolean", name="redacted", nullable=False),
    _place("action.truncated", "boolean", name="truncated", nullable=False),
    _place("executed_query.rows", "number", name="query_rows"),
    _place("executed_query.duration_ms", "number", name="query_duration_ms"),
    _place("report.result"),
    _place("report.reason"),
    _place("report.records", "number"),
    _place("registered_source.tenant"),
    _place("registered_source.removed", "boolean"),
    _place("finding.rule"),
    _place("finding.key"),
    _place("finding.severity"),
    _place("finding.deadline", "time"),
    _place("finding.evidence"),
    _place("finding.accept_index", "number"),
    _place("received_at", "time"),
    _place("raw"),
    _place("raw_sha256", "hash"),
)
"""In the order of the columns."""


def misfit(schema: dict[str, Any]) -> str | None:
    """Return the name of a column that a resolved schema cannot fill, or None if it fits all. Places may be missing."""
    return next((place.name for place in PLACES if not _fits(schema, place.path, place.kind)), None)


def _fits(node: Any, path: tuple[str, ...], kind: Kind) -> bool:
    node = non_null(node)
    if not path:
        return _is(node, kind)
    if not isinstance(node, dict) or node["type"] != "record":
        return False
    found = [field["type"] for field in node["fields"] if field["name"] == path[0]]
    return len(found) < 2 and all(_fits(one, path[1:], kind) for one in found)


def _is(node: Any, kind: Kind) -> bool:
    if kind == "text":
        return bool(node in _TEXT) or (isinstance(node, dict) and node["type"] == "enum")
    if kind == "time":
        return bool(node == MICROS)
    if kind == "number":
        return bool(node in ("int", "long", MICROS))
    if kind == "boolean":
        return bool(node == "boolean")
    if not isinstance(node, dict):
        return False
    if kind == "hash":
        return bool(node == {"type": "fixed", "size": 32})
    if node["type"] != "array":
        return False
    items = node["items"]
    if kind == "texts":
        return bool(items in _TEXT)
    if not isinstance(items, dict) or items["type"] != "record":
        return False
    return all(_fits(items, (name,), part) for name, part in APPROVAL.items())
