"""PostgreSQL: removes the parameters of statements, which only this adapter tells from other texts."""

from __future__ import annotations

import re
from typing import Any

from ...redaction.marks import mark_of
from ...redaction.redactor import Redaction
from ...redaction.rules import SQL_PARAMETERS
from .audit import PREFIX

MARK = "<REDACTED>"
"""What pgaudit itself writes in the place of a password."""
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
