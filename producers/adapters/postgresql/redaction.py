"""PostgreSQL: removes what only this adapter finds: parameters of statements, and passwords that errors quote."""

from __future__ import annotations

import re
from typing import Any

from ...redaction.marks import mark_of
from ...redaction.redactor import Redaction
from ...redaction.rules import SQL_PARAMETERS
from ...redaction.sql import passwords
from .audit import PREFIX

MARK = "<REDACTED>"
"""What pgaudit itself writes in the place of a password."""
_QUOTING = ("message", "detail", "hint", "context")
_FOUND_BY = "sql_password"
_DETAIL = re.compile(r"(parameters: ).*", re.DOTALL | re.IGNORECASE)
_AFTER_STATEMENT = re.compile(r'(,"(?:[^"]|"")*+",|,[^",]*+,)(?P<parameters>(?!<none>|<not logged>).+)\Z', re.DOTALL)


def without_parameters(values: dict[str, Any], redaction: Redaction) -> dict[str, Any]:
    """Return a record without the values of parameters, at the level strict: the server logs them as they came."""
    if not redaction.strict:
        return values
    changed: dict[str, Any] = {}
    detail, message = values.get("detail"), values.get("message")
    if isinstance(detail, str) and _DETAIL.match(detail):
        changed["detail"] = _DETAIL.sub(rf"\1{mark_of(SQL_PARAMETERS)}", detail, count=1)
    if isinstance(message, str) and message.startswith(PREFIX):
        changed["message"] = _without_logged(message)
    return {**values, **changed} if changed else values


def without_quoted_passwords(values: dict[str, Any]) -> dict[str, Any]:
    """Return a record whose messages do not quote a password of its statement.

    An error of the parser quotes the place where it stopped.
    """
    statement = values.get("statement")
    if not isinstance(statement, str):
        return values
    secrets = sorted({statement[begin:end] for begin, end in passwords(statement)}, key=len, reverse=True)
    changed: dict[str, Any] = {}
    for name in _QUOTING:
        text = values.get(name)
        if not isinstance(text, str):
            continue
        for secret in secrets:
            if secret and secret in text:
                text = changed[name] = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", mark_of(_FOUND_BY), text)
    return {**values, **changed} if changed else values


def _without_logged(message: str) -> str:
    """Return a message of pgaudit without the cells after the statement (``pgaudit.log_parameter``)."""
    place = len(PREFIX)
    for _ in range(7):  # up to the statement
        place = message.find(",", place) + 1
        if not place:
            return message
    found = _AFTER_STATEMENT.match(message, place - 1)
    if found is None:
        return message
    return message[: found.start("parameters")] + mark_of(SQL_PARAMETERS)
