"""The findings that the watch must report for a fault, derived from the written records and their arrival times.

Nothing of the watch is used here: its findings are compared with these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from .lifecycle import StepKind
from .policy import GRACE, SECOND
from .records.writer import RecordWriter


class ExpectedFinding(NamedTuple):
    """A finding that the watch must report under the policy in ``policy.py``. Times are microseconds since 1970.

    Attributes:
        rule: the rule of the finding.
        key: the grant, session, source or event that it concerns.
        deadline: the deadline concerned. Rule, key and deadline identify the finding.
        opens: when the condition starts; the watch must report it at its next check.
        ends: when the condition ends, or None if it never does.
        late: how many seconds the access outlived its deadline, for ``overdue`` access that was removed.
        fault: the name of the fault that causes it.
    """

    rule: str
    key: str
    deadline: int
    opens: int
    ends: int | None = None
    late: float | None = None
    fault: str = ""

    @property
    def identity(self) -> tuple[str, str, int]:
        """Rule, key and deadline."""
        return self.rule, self.key, self.deadline


class RecordTimes(NamedTuple):
    """The times of one record: the time in the record, and the broker's append time."""

    kind: StepKind
    occurred: int
    append: int

    @property
    def ahead(self) -> int:
        """By how much the writer's clock was ahead of the broker's."""
        return max(0, self.occurred - self.append)


@dataclass(slots=True)
class Trace:
    """A lifecycle as it was written, with the times of its records in the order of writing."""

    writer: RecordWriter
    records: list[RecordTimes] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The grant's id."""
        return self.writer.grant_id

    @property
    def session(self) -> str:
        """The session's id."""
        return self.writer.session_id

    @property
    def deadline(self) -> int:
        """The end of the access according to the records."""
        return self.writer.until

    def find(self, kind: StepKind) -> RecordTimes | None:
        """Return the last record of a kind: if a tool writes two, the second one counts. None without a record."""
        return next((times for times in reversed(self.records) if times.kind is kind), None)

    def last(self, kind: StepKind) -> RecordTimes:
        """Return the last record of a kind, which must exist."""
        return next(times for times in reversed(self.records) if times.kind is kind)

    def arrived(self, kind: StepKind) -> int:
        """Return the append time of the last record of a kind."""
        return self.last(kind).append

    def arrived_if_any(self, kind: StepKind) -> int | None:
        """Return the append time of the last record of a kind, or None without a record."""
        found = self.find(kind)
        return found and found.append


def overdue(key: str, deadline: int, known: int, removal: RecordTimes | None) -> ExpectedFinding:
    """Return the finding for access that outlived its deadline.

    ``known`` is the append time of the grant; ``removal`` is the record that proves the removal, if there is one.
    """
    opens = max(deadline, known) + GRACE
    if removal is None:
        return ExpectedFinding("overdue", key, deadline, opens)
    late = (min(removal.occurred, removal.append) - deadline) / SECOND
    return ExpectedFinding("overdue", key, deadline, opens, removal.append, late)
