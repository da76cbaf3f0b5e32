"""Kubernetes: secrets that only this adapter finds, because they are encoded or have no name of their own.

They are in the commands of ``exec`` (in the URI), in the environment of containers, and in objects of kind Secret.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from ...redaction.redactor import MOST_DEPTH, Redaction
from ...redaction.rules import rule_of_member

SECRET, ENVIRONMENT = "kubernetes_secret", "environment_variable"
"""The names of the rules."""
_URIS = frozenset({"requestURI", "RequestUri"})
_OBJECTS = frozenset({"requestObject", "responseObject", "RequestObject", "ResponseObject", "request", "response"})
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def record_without_secrets(values: dict[str, Any], redaction: Redaction) -> dict[str, Any]:
    """Return an audit record of any form without such secrets."""
    payload = values.get("protoPayload")
    if isinstance(payload, dict):
        return {**values, "protoPayload": _cleaned(payload, redaction)}
    return _cleaned(values, redaction)


def uri_without_secrets(uri: str, redaction: Redaction) -> str:
    """Return a URI whose ``command`` parameters, and parameters named like secrets, contain none."""
    try:
        parts = urlsplit(uri)
        pairs = parse_qsl(parts.query, keep_blank_values=True, errors="surrogateescape")
        commands = iter(redaction.words([value for name, value in pairs if name == "command"]))
        cleaned = [
            (name, next(commands) if name == "command" else redaction.mark(rule, value) if rule else value)
            for name, value in pairs
            for rule in (rule_of_member(name),)
        ]
        if cleaned == pairs:
            return uri
        query = "&".join(f"{quote(name, safe='')}={quote(value, safe='[]:', errors='surrogateescape')}"
                         for name, value in cleaned)  # fmt: skip
        return urlunsplit(parts._replace(query=query))
    except ValueError:
        return uri


def _cleaned(values: dict[str, Any], redaction: Redaction) -> dict[str, Any]:
    changed = dict(values)
    for name in _URIS & values.keys():
        uri = values[name]
        if isinstance(uri, str) and "?" in uri and ("exec" in uri or "proxy" in uri):
            changed[name] = uri_without_secrets(uri, redaction)
    for name in _OBJECTS & values.keys():
        found = values[name]
        if isinstance(found, (dict, list)):
            secret = _is_secret(values, found)
            changed[name] = redaction.mark(SECRET, "of an object") if secret else _without_secrets(found, redaction, 0)
    return changed


def _is_secret(values: dict[str, Any], found: Any) -> bool:
    """Return whether an object is a Secret, or a list of them."""
    kind = found.get("kind") if isinstance(found, dict) else None
    reference = values.get("objectRef", values.get("ObjectRef"))
    resource = reference.get("resource") if isinstance(reference, dict) else values.get("resourceName")
    named = isinstance(resource, str) and "secrets" in resource.split("/")
    return kind in ("Secret", "SecretList") or (named and kind != "Status")


def _without_secrets(value: Any, redaction: Redaction, depth: int) -> Any:
    """Return a JSON value in which environment variables have no values. What is too deep is removed afterwards."""
    if depth > MOST_DEPTH:
        return value
    if isinstance(value, list):
        return [_without_secrets(one, redaction, depth + 1) for one in value]
    if not isinstance(value, dict):
        return value
    return {name: _member(name, one, redaction, depth + 1) for name, one in value.items()}


def _member(name: str, value: Any, redaction: Redaction, depth: int) -> Any:
    if name == "env" and isinstance(value, list):
        return [
            {**one, "value": redaction.mark(ENVIRONMENT, one["value"])}
            if isinstance(one, dict) and one.get("value")
            else one
            for one in value
        ]
    if name == _LAST_APPLIED and isinstance(value, str) and ("env" in value or "command" in value or "args" in value):
        return redaction.mark(SECRET, value)
    return _without_secrets(value, redaction, depth)
