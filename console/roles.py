"""The roles of the SQL endpoint: analysts, and our own readers with places that analysts cannot take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .execution import QUERY_LIMITS


@dataclass(frozen=True)
class Role:
    """What users of one kind may use.

    Attributes:
        user: the user name; each start of the endpoint makes a new password.
        reads_tables: whether all tables can be read, or only views.
        limits: settings for every query.
        ceilings: the highest values that a request may ask for in place of a limit; without one, the limit itself.
        places: queries at a time. Others wait in a queue.
    """

    user: str
    reads_tables: bool
    limits: Mapping[str, str]
    ceilings: Mapping[str, str]
    places: int


ANALYST: Final = Role(
    user="analyst",
    reads_tables=False,
    limits={**QUERY_LIMITS, "max_execution_time": "30"},
    ceilings={"max_execution_time": "300"},
    places=3,
)
# For verify, status, sweep, grants, findings and erase.
READER: Final = Role(
    user="reader",
    reads_tables=True,
    limits=QUERY_LIMITS,
    ceilings={},
    places=2,
)
