"""When the reports about something were received, and when it happened: late reports are history."""

from __future__ import annotations

from typing import NamedTuple

from ...access import NEVER, in_micros
from .facts import Fact


class ReportTimes(NamedTuple):
    """Of the reports about something without a deadline: when the first was received, and the newest time in them."""

    first: int = NEVER
    newest: int = 0
    imported: bool = False
    """Whether the first report was marked as an import of history."""

    def with_fact(self, fact: Fact) -> ReportTimes:
        """Return the times with the next fact."""
        imported = fact.imported if fact.received < self.first else self.imported
        newest = max(self.newest, min(fact.occurred, fact.append))
        return ReportTimes(min(self.first, fact.received), newest, imported)

    def is_historical(self, history_after_seconds: float) -> bool:
        """Whether nothing was received until long after all of it."""
        return self.first < NEVER and self.first >= self.newest + in_micros(history_after_seconds)


NOT_REPORTED = ReportTimes()
