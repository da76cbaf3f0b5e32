"""The FORMAT clause at the end of a statement. Apart from the gate: commands that ask the endpoint need only this."""

from __future__ import annotations

from .errors import QueryRefusedError
from .lexer import Token, tokenize

# After these words, FORMAT is the name of a table or column, not a clause.
_BEFORE_NAME = frozenset({"FROM", "JOIN", "AS", "IN", "TABLE", "DESCRIBE", "EXISTS", "SELECT", "BY", "VIEW"})


def split_format(sql: str) -> tuple[str, str | None]:
    """Return a statement without its FORMAT clause, and the format; None without one, or for a text that is no SQL."""
    try:
        text, _tokens, output_format = take_format(*statement_tokens(sql))
    except QueryRefusedError:
        return sql, None
    return (text.rstrip(), output_format) if output_format else (sql, None)


def statement_tokens(sql: str) -> tuple[str, list[Token]]:
    """Return a text and its tokens without final semicolons."""
    text, tokens = tokenize(sql)
    while tokens and tokens[-1].text == ";":
        text = text[: tokens.pop().start]
    return text, tokens


def take_format(text: str, tokens: list[Token]) -> tuple[str, list[Token], str | None]:
    """Return a statement and its tokens without its FORMAT clause, and the format; None without one."""
    if len(tokens) < 3 or tokens[-2].keyword != "FORMAT" or tokens[-1].name is None:
        return text, tokens, None
    before = tokens[-3]
    described = before.keyword == "DESC" and len(tokens) == 3  # elsewhere DESC is a sort order
    if described or before.keyword in _BEFORE_NAME or before.text in {".", ","}:
        return text, tokens, None
    return text[: tokens[-2].start], tokens[:-2], tokens[-1].name
