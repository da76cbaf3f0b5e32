"""PostgreSQL: the message of a pgaudit record.

Source: the README of pgaudit, "Format".
"""

from __future__ import annotations

import csv
from dataclasses import dataclass

PREFIX = "AUDIT: "
_ABSENT = frozenset({"<not logged>", "<none>", "<previously logged>", ""})


@dataclass(frozen=True, slots=True)
class Audit:
    """What pgaudit says. ``statement`` and ``parameters``: None if they are left out. ``cut``: the end is missing."""

    audit_type: str
    statement_id: str
    substatement_id: str
    audit_class: str
    command: str
    object_type: str | None
    object_name: str | None
    statement: str | None
    parameters: str | None
    cut: bool


def parse_audit(message: str) -> Audit | None:
    """Return what a message says; None if it is not one of pgaudit."""
    if not message.startswith(PREFIX):
        return None
    text = message[len(PREFIX) :]
    cut = False
    try:
        [cells] = csv.reader([text], strict=True)
    except (csv.Error, ValueError):
        # A line of a longer message: the statement has no closing quote.
        cells = text.split(",", 7)
        cut = True
        if len(cells) == 8:
            cells[7] = cells[7].removeprefix('"').replace('""', '"')
    if len(cells) < 8 or cells[0] not in ("SESSION", "OBJECT") or not cells[4]:
        return None
    kind, number, part, audit_class, command, object_type, object_name, statement = cells[:8]
    parameters = cells[8] if len(cells) > 8 and not cut else ""
    return Audit(
        kind,
        number,
        part,
        audit_class,
        command,
        object_type or None,
        object_name or None,
        None if statement in _ABSENT else statement,
        None if parameters in _ABSENT else parameters,
        cut,
    )
