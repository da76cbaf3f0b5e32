"""What ``/openapi.json`` says about each route."""

from __future__ import annotations

from typing import Any

from ...schemas.event import ACCESS_TYPES
from ..adapters import ADAPTERS
from .own_events import BATCH, LINES, STRUCTURED
from .problems import MEDIA_TYPE

DESCRIPTION = """Takes events and the audit records of tools, and stores them durably before it answers 2xx.

Errors are `application/problem+json`. After 429 and 503, send the same again; Retry-After says when."""

_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}
_REFUSED = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["index", "problem"],
        "properties": {
            "index": {"type": "integer"},
            "line": {"type": "integer"},
            "looks_like": {"type": "string"},
            "field": {"type": "string"},
            "problem": {"type": "string"},
            "more": {
                "type": "array",
                "description": "Further problems of the same event",
                "items": {
                    "type": "object",
                    "required": ["problem"],
                    "properties": {"field": {"type": "string"}, "problem": {"type": "string"}},
                },
            },
        },
    },
}
_STORED = {"type": "string", "enum": ["kafka", "spool"]}
_TEXT = {"type": "string"}
_TIME = {"type": "string", "format": "date-time"}
_PERSON = {
    "oneOf": [_TEXT, {"type": "object", "required": ["id"], "properties": {"id": _TEXT, "kind": _TEXT}}],
}
_EVENT = {
    "type": "object",
    "description": "An event, as `grantledger emit --stdin` takes it. The credential decides source.system, "
    "source.instance and tenant. Give source.native_id, your own id of the event, so that it counts once if you send "
    "it again.",
    "required": ["event_type", "subject"],
    "properties": {
        "event_type": {"type": "string", "enum": list(ACCESS_TYPES)},
        "subject": _PERSON,
        "actor": _PERSON,
        "occurred_at": _TIME,
        "resource": {
            "type": "object",
            "required": ["kind", "id"],
            "properties": {"kind": _TEXT, "id": _TEXT, "environment": _TEXT},
        },
        "action": {
            "type": "object",
            "properties": {"command": _TEXT, "query": _TEXT, "args": {"type": "array", "items": _TEXT}},
        },
        "source": {"type": "object", "properties": {"native_id": _TEXT}},
        "starts_at": _TIME,
        "expires_at": _TIME,
        "requested_seconds": {"type": "integer"},
        **dict.fromkeys(
            ("entitlement", "grant_id", "request_id", "session_id", "reason", "ticket", "error", "outcome",
             "removal_evidence", "client_ip"),
            _TEXT,
        ),
    },
}  # fmt: skip
_CLOUD_EVENT = {
    "type": "object",
    "description": "CloudEvents 1.0, JSON format, with an event as its data.",
    "required": ["specversion", "id", "source", "type", "data"],
    "properties": {
        "specversion": {"type": "string", "enum": ["1.0"]},
        "id": _TEXT,
        "source": _TEXT,
        "type": _TEXT,
        "time": _TIME,
        "data": _EVENT,
    },
}
_ANY_VALUE = {
    "type": "object",
    "properties": {
        "stringValue": _TEXT,
        "kvlistValue": {"type": "object", "properties": {"values": {"type": "array", "items": {"type": "object"}}}},
    },
}
_EVENTS_ANSWER = {
    "type": "object",
    "required": ["accepted", "stored", "event_ids", "refused"],
    "properties": {
        "accepted": {"type": "integer"},
        "stored": _STORED,
        "event_ids": {"type": "array", "items": {"type": ["string", "null"]}},
        "refused": _REFUSED,
    },
}
_RECORDS_ANSWER = {
    "type": "object",
    "required": ["records", "events", "stored", "skipped", "refused_count", "kept", "refused"],
    "properties": {
        "records": {"type": "integer"},
        "events": {"type": "integer"},
        "stored": _STORED,
        "skipped": {"type": "object", "additionalProperties": {"type": "integer"}},
        "refused_count": {"type": "integer"},
        "kept": {"type": "integer", "description": "refused records that are in the ledger as unmapped records"},
        "refused": _REFUSED,
    },
}
_PROBLEMS = {
    400: "The body is damaged.",
    401: "There is no valid credential.",
    403: "The credential is for another route.",
    413: "The body is too large.",
    415: "The media type or the encoding is not known.",
    422: "Nothing in the body is accepted; `errors` says why.",
    429: "The source sends too many requests.",
    503: "Nothing can be stored now, or the body came too slowly.",
}
_SECURITY: dict[str, Any] = {
    "security": [{"token": []}, {"basic": []}],
}


def _problems(*more: str) -> dict[int | str, dict[str, Any]]:
    """Return the errors; ``more``: media types without a schema that they may also have."""
    content = {MEDIA_TYPE: {"schema": _PROBLEM}, **{one: {"schema": {"type": "string"}} for one in more}}
    return {status: {"description": text, "content": content} for status, text in _PROBLEMS.items()}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _listed(**members: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "object", "properties": members}}


EVENTS: dict[str, Any] = {
    "summary": "Send our own events.",
    "responses": {
        200: _json("All events are stored.", _EVENTS_ANSWER),
        207: _json("Some events are stored; `refused` names the others.", _EVENTS_ANSWER),
        **_problems(),
    },
    "openapi_extra": {
        **_SECURITY,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"oneOf": [_EVENT, {"type": "array", "items": _EVENT}]}},
                **{one: {"schema": {"type": "string"}} for one in LINES},
                STRUCTURED: {"schema": _CLOUD_EVENT},
                BATCH: {"schema": {"type": "array", "items": _CLOUD_EVENT}},
            },
        },
    },
}
INGEST: dict[str, Any] = {
    "summary": "Send the records of a tool as they are.",
    "responses": {
        200: _json("What is right is stored; `refused` names the rest.", _RECORDS_ANSWER),
        404: {"description": "There is no such tool.", "content": {MEDIA_TYPE: {"schema": _PROBLEM}}},
        **_problems(),
    },
    "openapi_extra": {
        **_SECURITY,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {}},
                "application/x-ndjson": {"schema": {"type": "string"}},
                "text/plain": {"schema": {"type": "string"}},
            },
        },
    },
}
VERIFY: dict[str, Any] = {
    "summary": "Answer the verification of an Okta event hook.",
    "responses": {
        200: _json("The challenge.", {"type": "object", "properties": {"verification": {"type": "string"}}}),
        404: {"description": "There is no such tool.", "content": {MEDIA_TYPE: {"schema": _PROBLEM}}},
        **_problems(),
    },
    "openapi_extra": _SECURITY,
}
LOGS: dict[str, Any] = {
    "summary": "Send OTLP logs whose bodies are the records of a tool.",
    "responses": {
        200: {
            "description": "An ExportLogsServiceResponse. What it counts as rejected must not be sent again.",
            "content": {
                "application/json": {"schema": {"type": "object"}},
                "application/x-protobuf": {"schema": {"type": "string", "format": "binary"}},
            },
        },
        **_problems("application/x-protobuf"),
    },
    "openapi_extra": {
        **_SECURITY,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {"resourceLogs": _listed(scopeLogs=_listed(logRecords=_listed(body=_ANY_VALUE)))},
                    }
                },
                "application/x-protobuf": {"schema": {"type": "string", "format": "binary"}},
            },
        },
    },
}
LIVEZ: dict[str, Any] = {
    "summary": "Whether the process serves requests.",
    "responses": {200: {"description": "It does.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
}
READYZ: dict[str, Any] = {
    "summary": "Whether events are accepted, and where they go.",
    "responses": {
        200: {"description": "They are.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        503: {"description": "They are not.", "content": {"text/plain": {"schema": {"type": "string"}}}},
    },
}
SECURITY_SCHEMES: dict[str, Any] = {
    "token": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic"},
}


def complete(document: dict[str, Any]) -> None:
    """Add to the document what the routes cannot say: the tools, and the credentials."""
    for method in ("get", "post"):
        [tool] = document["paths"]["/ingest/{tool}"][method]["parameters"]
        tool["schema"]["examples"] = sorted(ADAPTERS)  # and the tools of mapping files
    components = document.setdefault("components", {})
    components["securitySchemes"] = SECURITY_SCHEMES
    components.pop("schemas", None)  # of errors that this program answers in another form
