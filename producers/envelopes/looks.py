"""Names what a record looks like that no adapter reads, so that a person recognizes it."""

from __future__ import annotations

import re

from .member_envelopes import envelopes_of
from .reader import ToolRecord

_SHOWN_MEMBERS = 5
_SHOWN_CHARACTERS = 40
_BEGINNINGS = (
    (re.compile(rb"PK\x03\x04"), "a ZIP archive"),
    (re.compile(rb"PAR1"), "Parquet"),
    (re.compile(rb"Obj\x01"), "Avro"),
    (re.compile(rb"BZh\d"), "bzip2"),
    (re.compile(rb"\xfd7zXZ"), "xz"),
    (re.compile(rb"SQLite format"), "a SQLite database"),
    (re.compile(rb"CEF:\d"), "CEF (ArcSight)"),
    (re.compile(rb"LEEF:\d"), "LEEF (QRadar)"),
    (re.compile(rb"\s*<[?\w]"), "XML"),
    (re.compile(rb"\s*\["), "a list, or text in brackets"),
    (re.compile(rb'\s*"'), "a JSON string, or quoted text"),
    (re.compile(rb"<\d{1,3}>|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d "), "a syslog message without a record"),
    (re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d"), "a line of text with a time"),
    (re.compile(rb"\w+=\S"), "key=value pairs"),
)


def looks_like(record: ToolRecord) -> str:
    """Return a description of one line: the envelopes that were opened, and what they contain.

    It is empty for a damaged JSON object, which is probably a record of the tool.
    """
    if record.values is None and record.raw.startswith(b"{"):
        return ""
    content = _object(record) if record.values is not None else _text(record.raw)
    return " containing ".join([*record.envelopes, content])


def _object(record: ToolRecord) -> str:
    values = record.values or {}
    for envelope, value in envelopes_of(values):
        kind = "text" if isinstance(value, str) else "something else"
        return f"{envelope.kind} ({'.'.join(envelope.path)!r}) with {kind} instead of a record"
    names = [repr(name[:_SHOWN_CHARACTERS]) for name in list(values)[:_SHOWN_MEMBERS]]
    more = ", …" if len(values) > _SHOWN_MEMBERS else ""
    return f"a JSON object with {', '.join(names)}{more}" if names else "an empty JSON object"


def _text(raw: bytes) -> str:
    for pattern, kind in _BEGINNINGS:
        if pattern.match(raw):
            return kind
    return "binary data" if b"\0" in raw[:1024] else "text"
