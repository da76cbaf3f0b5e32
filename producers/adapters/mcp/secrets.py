"""MCP: secrets in the arguments and answers of calls are removed before a record is hashed, stored or mapped."""

from __future__ import annotations

from typing import Any

from ...json_fields import Fields
from ..kubernetes.secrets import MOST_DEPTH, REDACTED, without_secrets

__all__ = ["REDACTED", "record_without_secrets"]

_CARRIERS = frozenset({"data", "error", "message", "params", "request", "response", "result"})
"""Members whose content the agent or the server chose."""


def record_without_secrets(record: Fields) -> Fields | None:
    """Return a record without secrets; None if it contains none."""
    changed = {name: _cleaned(value, 0) for name, value in record.values.items() if name in _CARRIERS}
    values = {**record.values, **changed}
    return None if values == record.values else Fields(values, record.location)


def _cleaned(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return without_secrets(value)
    if depth > MOST_DEPTH:
        return REDACTED
    if isinstance(value, list):
        return [_cleaned(one, depth + 1) for one in value]
    if isinstance(value, dict):
        return {name: _member(name, one, depth + 1) for name, one in value.items()}
    return value


def _member(name: str, value: Any, depth: int) -> Any:
    """Return the value of an argument: nothing of it, if its name is one of a secret."""
    secret = isinstance(value, (str, int, float)) and not isinstance(value, bool) and value != ""
    return REDACTED if secret and _is_secret(name) else _cleaned(value, depth)


def _is_secret(name: str) -> bool:
    return name != "jsonrpc" and without_secrets(f"{name}=x") != f"{name}=x"
