"""Strings in SQL: passwords of accounts, and all literals."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .numbers import Span

_SPACE = r"(?:\s|/\*.{0,200}?\*/|--[^\n]{0,200}\n)*+"
"""White space and comments. It takes all there is and tries nothing else: senders choose the text."""
_STRING = (
    r"(?:[eE]'(?P<escaped>(?:[^'\\]|''|\\.)*+)(?:'|\\?$)"
    r"|(?:[uU]&|[bBxXnN])?'(?P<plain>(?:[^']|'')*+)(?:'|$)"
    r"|\$(?P<tag>\w{0,63})\$(?P<dollar>.*?)(?:\$(?P=tag)\$|$))"
)
_PASSWORD = re.compile(
    rf"\b(?:password|identified{_SPACE}(?:with{_SPACE}[\w.'`\"]{{1,64}}{_SPACE})?(?:by|as))\b{_SPACE}"
    rf"(?:for\b[^=;]{{0,300}}={_SPACE})?(?:=|:)?{_SPACE}(?:values{_SPACE})?(?:password{_SPACE})?(?:\({_SPACE})?"
    rf"(?:{_STRING}|(?<=[\s=(:])\"(?P<double>[^\"\n]{{1,4096}})\")",
    re.IGNORECASE | re.DOTALL,
)
_BARE = re.compile(r"\bidentified\s{1,8}by\s{1,8}(?P<word>[^\s;'\"(,]{1,256})", re.IGNORECASE)
_UNQUOTED = re.compile(r"\bpassword\s{1,8}(?P<word>(?![/-])[^\s;'\"(,$]{1,256})(?=[\s;]|\Z)", re.IGNORECASE)
_OF_ROLE = re.compile(r"\b(?:create|alter)\s+(?:role|user|group)\b[^;]*\Z", re.IGNORECASE)
_LOOKED_AT = 200
"""Characters before a password without quotes in which its statement begins."""
_NEXT = re.compile(r"--|/\*|['\"]|\$(?:[^\W\d]\w{0,62})?\$")
_UNTIL = re.compile(r"\bvalid\s{1,8}until\s{0,8}\Z", re.IGNORECASE)
_ESCAPED = re.compile(r"(?:[^'\\]|''|\\.)*+", re.DOTALL)
_ESCAPE = re.compile(r"(?<!\w)[eE]'\Z")
_PLAIN = re.compile(r"(?:[^']|'')*+")
_PARTS = ("escaped", "plain", "dollar", "double")


def passwords(text: str) -> Iterator[Span]:
    """Yield where passwords of accounts are, without their quotes: ``PASSWORD 'x'``, ``IDENTIFIED BY 'x'``."""
    for found in _PASSWORD.finditer(text):
        part = next(one for one in _PARTS if found[one] is not None)
        begin, end = found.span(part)
        if part == "plain" and text[begin:end].endswith("\\"):
            # In MySQL this quote goes on; in PostgreSQL it ended.
            end = begin + len(_ESCAPED.match(text, begin)[0])  # type: ignore[index]
        yield begin, end
    for found in _BARE.finditer(text):
        if found["word"].lower() not in ("password", "values", "random", "global", "externally"):
            yield found.span("word")
    # ALTER ROLE … PASSWORD x is a mistake, and servers log statements that have one.
    for found in _UNQUOTED.finditer(text):
        if _OF_ROLE.search(text, max(0, found.start() - _LOOKED_AT), found.start()):
            yield found.span("word")


def literals(text: str) -> Iterator[Span]:
    """Yield where the string literals of a statement are, without their quotes. One that never ends ends the text.

    The end of an account (``VALID UNTIL``) is a deadline, and is not among them.
    """
    place = 0
    while (found := _NEXT.search(text, place)) is not None:
        begin, place = found.end(), found.end()
        if found[0] == "--":
            place = _after(text, "\n", begin) or len(text)
        elif found[0] == "/*":
            place = _after(text, "*/", begin) or len(text)
        elif found[0] == '"':
            place = _after(text, '"', begin) or begin
        elif found[0] == "'":
            string = (_ESCAPED if _ESCAPE.search(text, max(0, begin - 3), begin) else _PLAIN).match(text, begin)
            end = string.end() if string is not None else begin
            if text[end - 1 : end] == "\\":
                # In MySQL this quote goes on, in PostgreSQL it ended: nothing after it is certain.
                end = len(text)
            if _UNTIL.search(text, max(0, begin - 32), begin - 1) is None:
                yield begin, end
            place = end + 1
        else:
            end = text.find(found[0], begin)
            end = len(text) if end < 0 else end
            yield begin, end
            place = end + len(found[0])


def _after(text: str, end: str, begin: int) -> int:
    """Return the place after the next ``end``; 0 if there is none."""
    at = text.find(end, begin)
    return at + len(end) if at >= 0 else 0
