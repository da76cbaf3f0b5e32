"""What became of the records of a source, as events: counts once in a while, and each record that nobody could map.

A way in reports about the source of its events, with the same credentials. The view ``source_health`` adds the counts,
and ``unmapped_records`` has the records that are kept.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256

from ..schemas.event import DEFAULT_TENANT, SOURCE_REPORT, Actor, Event, EventSource, Mapping, Report, Subject

REPORT_SECONDS = 60.0
"""Counts are reported this often. A process that is killed loses those that it has not reported."""
UNKNOWN_INSTANCE = "unknown"
"""Of records that name no installation, where nothing else tells it either."""
MOST_INSTANCES = 1_000
"""Installations that are counted apart: records may name any."""
MOST_REASON = 200
"""Characters of a reason. A problem may quote the record."""


@dataclass(frozen=True, slots=True)
class ReportedSource:
    """The source that reports are about, and who makes them.

    Attributes:
        instance: None if the records name it.
        way: ``import``, ``follow`` or ``gateway``.
    """

    system: str
    instance: str | None
    way: str
    tenant: str = DEFAULT_TENANT
    mapping: Mapping | None = None

    def kept(self, record: bytes, result: str, reason: str) -> Event:
        """Return the report about one record that could not be mapped, with the record. Its id is always the same."""
        native_id = f"sha256:{sha256(record).hexdigest()}"
        return self._event(EventSource(self.system, self.instance or UNKNOWN_INSTANCE, native_id, "record"),
                           Report(result, 1, reason[:MOST_REASON]), record)  # fmt: skip

    def counted(self, instance: str, native_id: str, report: Report) -> Event:
        """Return the report about several records."""
        return self._event(EventSource(self.system, instance, native_id, "count"), report, None)

    def _event(self, source: EventSource, report: Report, raw: bytes | None) -> Event:
        return Event(
            event_type=SOURCE_REPORT,
            occurred_at=datetime.now(UTC),
            source=source,
            tenant=self.tenant,
            mapping=self.mapping,
            subject=Subject(f"{source.system}/{source.instance}", "system"),
            actor=Actor(f"grantledger {self.way}", "system"),
            outcome="success",
            report=report,
            raw=raw,
        )


@dataclass(slots=True)
class RecordCounts:
    """How many records had one result, without those that were reported one by one.

    Attributes:
        mapped: by the installation that their events name.
        skipped: by reason.
    """

    mapped: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    failed: int = 0

    def add_mapped(self, instance: str, count: int = 1) -> None:
        """Count mapped records of an installation."""
        known = instance in self.mapped or len(self.mapped) < MOST_INSTANCES
        self.mapped[instance if known else UNKNOWN_INSTANCE] += count

    def add(self, other: RecordCounts) -> None:
        """Add other counts."""
        for instance, count in other.mapped.items():
            self.add_mapped(instance, count)
        self.skipped += other.skipped
        self.failed += other.failed


class SourceReports:
    """Counts what became of the records of one source until it is reported."""

    def __init__(self, source: ReportedSource) -> None:
        self._source = source
        self._counts = RecordCounts()
        self._seen: set[str] = set()
        """Installations that records named; more than one if there are several."""
        self._run, self._number = secrets.token_hex(8), 0

    def add(self, counts: RecordCounts) -> None:
        """Count more records."""
        self._counts.add(counts)
        for instance in counts.mapped:
            if len(self._seen) < 2:
                self._seen.add(instance)

    def take(self, *, last: bool = False) -> list[Event]:
        """Return the reports about what was counted since the last call.

        What was skipped or failed names no installation. It is reported about the one that is given, or that all other
        records name. Before any record named one, it waits, but not at the ``last`` call.
        """
        counts, instance = self._counts, self._source.instance
        if instance is None and len(self._seen) == 1:
            [instance] = self._seen
        waits = instance is None and not self._seen and not last
        self._counts = RecordCounts(skipped=counts.skipped, failed=counts.failed) if waits else RecordCounts()
        about = [(one, Report("mapped", count)) for one, count in counts.mapped.items()]
        if not waits:
            about += [(instance or UNKNOWN_INSTANCE, report) for report in _unmapped(counts)]
        return [self._source.counted(one, self._next_id(), report) for one, report in about]

    def _next_id(self) -> str:
        self._number += 1
        return f"{self._run}:{self._number}"


def _unmapped(counts: RecordCounts) -> Iterator[Report]:
    for reason, count in counts.skipped.items():
        yield Report("skipped", count, reason)
    if counts.failed:
        yield Report("failed", counts.failed)
