"""The roles of the SQL endpoint: analysts, auditors, and our own readers. None can take the places of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from ..sinks.server_roles import COMPUTED, QUERY_LOG
from .execution import QUERY_LIMITS


@dataclass(frozen=True)
class Role:
    """What users of one kind may use.

    Attributes:
        user: the user name.
        reads_tables: whether all tables can be read, or only views.
        hidden_views: views that cannot be read.
        logged: whether each statement is recorded in the ledger, or only counted.
        limits: settings for every query.
        ceilings: the highest values that a request may ask for in place of a limit; without one, the limit itself.
        places: queries at a time. Others wait in a queue.
    """

    user: str
    reads_tables: bool
    hidden_views: frozenset[str]
    logged: bool
    limits: Mapping[str, str]
    ceilings: Mapping[str, str]
    places: int


ANALYST: Final = Role(
    user="analyst",
    reads_tables=False,
    hidden_views=COMPUTED | {QUERY_LOG},
    logged=True,
    limits={**QUERY_LIMITS, "max_execution_time": "30"},
    ceilings={"max_execution_time": "300"},
    places=3,
)
AUDITOR: Final = replace(ANALYST, user="auditor", hidden_views=COMPUTED, places=2)
# For verify, status, sweep, grants, findings and erase.
READER: Final = Role(
    user="reader",
    reads_tables=True,
    hidden_views=frozenset(),
    logged=False,
    limits=QUERY_LIMITS,
    ceilings={},
    places=2,
)
