"""Values that several adapters derive from records in the same way."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from datetime import datetime, timedelta
from typing import Any

from ..redaction.marks import MARK_START

UNKNOWN = "unknown"
"""For a required field that the record does not contain."""


SYNTHESIZED = "synthesized:"
"""The beginning of every id that the tool did not issue."""


def synthesized(kind: str, *parts: str) -> str:
    """Return an id for something that the tool left without one. The same parts give the same id."""
    name = "\x1f".join(parts).encode()
    return f"{SYNTHESIZED}{kind}:{hashlib.sha256(name).hexdigest()[:32]}"


def grant_ids(native: str | None, kind: str, *parts: str) -> dict[str, Any]:
    """Return ``grant_id`` and ``grant_id_kind``: the tool's own id, or an id made from ``kind`` and ``parts``.

    A secret that was removed, such as the token itself, is no id: others look the same.
    """
    if native and MARK_START not in native:
        return {"grant_id": native, "grant_id_kind": "native"}
    return {"grant_id": synthesized(kind, *parts), "grant_id_kind": "synthesized"}


def ordinal_of(grant_id: str | None) -> int:
    """Return an ordinal that depends only on the grant, for a record that concerns any number of grants."""
    return 1 + int.from_bytes(hashlib.sha256((grant_id or "").encode()).digest()[:6], "big")


def record_id(values: dict[str, Any]) -> str:
    """Return an id made from the content of a record without an id: reading it again gives the same id."""
    return synthesized("record", json.dumps(values, sort_keys=True, ensure_ascii=True))


def email_in(name: str | None) -> str | None:
    """Return a user name if it is an email address."""
    return name if name and "@" in name else None


def ip_address_in(text: str | None) -> str | None:
    """Return an IP address in canonical form, or None if the text is not one."""
    try:
        return str(ipaddress.ip_address(text)) if text else None
    except ValueError:
        return None


def customer_in(*named: dict[str, Any]) -> str | None:
    """Return the customer in the first of several sets of labels, tags or attributes that names one.

    The name is ``customer``, in any case; the value a text, or a list of texts with one element.
    """
    for labels in named:
        for name, value in labels.items():
            if name.lower() == "customer":
                only = value[0] if isinstance(value, list) and len(value) == 1 else value
                if isinstance(only, str) and only and only.isprintable():
                    return only
    return None


def time_after(start: datetime, seconds: int | None) -> datetime | None:
    """Return the time some seconds after a start; None without seconds, or if the calendar cannot represent it."""
    try:
        return start + timedelta(seconds=seconds) if seconds else None
    except OverflowError:
        return None
