"""PostgreSQL: removes passwords from the texts of a record. The server logs statements as they were typed."""

from __future__ import annotations

import re
from typing import Any

MARK = "<REDACTED>"
"""What pgaudit itself writes in the place of a password."""
_TEXTS = ("message", "detail", "hint", "statement", "internal_query", "context")
_SPACE = r"(?:\s|/\*.{0,1000}?\*/|--[^\n]*\n)*+"
"""White space and comments. It takes all there is and tries nothing else: senders choose the text."""
_STRING = (
    r"(?:[eE]'(?:[^'\\]|''|\\.)*+(?:'|\\?$)"
    r"|(?:[uU]&|[bBxXnN])?'(?:[^']|'')*+(?:'|$)"
    r"|\$(?P<tag>\w{0,63})\$.*?(?:\$(?P=tag)\$|$))"
)
_PATTERNS = (
    # PASSWORD 'x', also of a user mapping, with comments between.
    (re.compile(rf"(\bpassword\b{_SPACE}(?:=|:)?{_SPACE}){_STRING}", re.IGNORECASE | re.DOTALL), rf"\1{MARK}"),
    # password=x in a connection string, which may be in quotes itself.
    (re.compile(r"(\bpassword\s*=\s*)(?!<REDACTED>)[^\s'\"&;,)]+", re.IGNORECASE), rf"\1{MARK}"),
    (
        re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@']{1,200}:)(?!<REDACTED>)[^\s@/']+(?=@)", re.IGNORECASE),
        rf"\1{MARK}",
    ),
)


def redacted(text: str) -> str:
    """Return a text without passwords."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def without_passwords(values: dict[str, Any]) -> dict[str, Any] | None:
    """Return a record without passwords, or None if it contains none."""
    changed = {
        name: clean
        for name in _TEXTS
        if isinstance(text := values.get(name), str) and (clean := redacted(text)) != text
    }
    return {**values, **changed} if changed else None
