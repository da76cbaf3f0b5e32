"""Tokenize SQL with an unambiguous subset of ClickHouse's lexical rules.

Ambiguous input is rejected: heredocs, typographic quotes, nested comments, and backslashes or control characters
outside quotes. Spaces replace comments, so the engine never receives a comment and error positions stay the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from .errors import ErrorCode, QueryRefusedError

Kind = Literal["word", "string", "quoted", "mark"]

_WIDE_SPACE = "\u00a0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"
_TOKEN = re.compile(
    rf"""
      (?P<space>[ \t\n\r\f\v{_WIDE_SPACE}]+)
    | (?P<comment>(?:--|//|\#[ !])[^\n]*)
    | (?P<block>/\*)
    | (?P<word>[A-Za-z0-9_]+)
    | (?P<string>'(?:[^'\\]++|\\.|'')*+')
    | (?P<quoted>"(?:[^"\\]++|\\.|"")*+"|`(?:[^`\\]++|\\.|``)*+`)
    | (?P<mark>[()\[\]{{}},.;:+\-*/%=<>!?|&^~@])
    """,
    re.VERBOSE | re.DOTALL,
)
_NOT_NEWLINE = re.compile(r"[^\n]")
_HEX = re.compile(r"'[0-9A-Fa-f]*'")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")
_REASONS = {
    "$": "'$': heredoc strings and names with '$' are not supported, use plain quotes",
    "\\": "a backslash outside quotes",
    "\x00": "a zero byte",
}


@dataclass(frozen=True, slots=True)
class Token:
    """One token. ``start`` is its position in characters, from 0."""

    kind: Kind
    text: str
    start: int

    @property
    def end(self) -> int:
        """The position after its last character."""
        return self.start + len(self.text)

    @property
    def keyword(self) -> str:
        """The word in upper case; empty for other kinds: a quoted name is never a keyword."""
        return self.text.upper() if self.kind == "word" else ""

    @property
    def name(self) -> str | None:
        """The name in a word or quoted identifier; None for strings and marks."""
        if self.kind == "word":
            return self.text
        if self.kind == "quoted":
            quote = self.text[0]
            return self.text[1:-1].replace(quote * 2, quote)
        return None


def tokenize(sql: str) -> tuple[str, list[Token]]:
    """Return the SQL with comments blanked, at the same length and lines, and its tokens.

    Raises:
        QueryRefusedError: the text is outside the subset (code 62). The message gives the position.
    """
    parts: list[str] = []
    tokens: list[Token] = []
    position = 0
    while position < len(sql):
        match = _TOKEN.match(sql, position)
        if match is None:
            raise _unreadable(position, _reason(sql[position]))
        text, end = match[0], match.end()
        match match.lastgroup:
            case "space" | "comment":
                parts.append(_NOT_NEWLINE.sub(" ", text))
            case "block":
                end = _end_of_comment(sql, position)
                parts.append(_NOT_NEWLINE.sub(" ", sql[position:end]))
            case "word" | "string" | "quoted" | "mark" as kind:
                token = Token(kind, text, position)
                _check(sql, token)
                tokens.append(token)
                parts.append(text)
        position = end
    return "".join(parts), tokens


def _end_of_comment(sql: str, start: int) -> int:
    end = sql.find("*/", start + 2)
    if end < 0:
        raise _unreadable(start, "an unclosed comment")
    # ClickHouse nests comments; most other parsers do not.
    if "/*" in sql[start + 2 : end + 1]:
        raise _unreadable(start, "a comment inside a comment")
    return end + 2


def _check(sql: str, token: Token) -> None:
    if token.kind == "quoted" and (found := _CONTROL.search(token.text)):
        # The engine does not escape names in its syntax tree, where a line break would look like another node.
        raise _unreadable(
            token.start, f"{found[0]!r} in a quoted name: names cannot contain backslashes or control characters"
        )
    # x'…' and b'…' have no escapes, so they may end at a different quote than a plain string would.
    opens_literal = token.kind == "word" and token.text[-1] in "xXbB" and sql.startswith("'", token.end)
    if opens_literal and _HEX.match(sql, token.end) is None:
        raise _unreadable(token.start, "a malformed hex or binary literal")


def _reason(character: str) -> str:
    if character in "'\"`":
        return "an unclosed quote"
    if character in "‘’“”":
        return f"{character!r}: a typographic quote, use ' or \" instead"
    return _REASONS.get(character, repr(character))


def _unreadable(position: int, reason: str) -> QueryRefusedError:
    return QueryRefusedError(ErrorCode.SYNTAX_ERROR, f"Syntax error at position {position + 1}: {reason}.")
