"""What a request became: the records to store, and the answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ...schemas.event import Event
from ..kafka_record import KafkaRecord, KafkaRecords, RecordSigner
from ..source_reports import RecordCounts

MOST_SHOWN = 1_000
"""Refused records that an answer names; it has the number of all."""


@dataclass(slots=True)
class Outcome:
    """The records of a request, and what happened to them.

    Attributes:
        given: the number of records in the request.
        refused: the first ``MOST_SHOWN`` refused records.
        event_ids: by index in the request; None where refused.
        skipped: the number of records skipped on purpose, by reason.
        reports: about records that are well-formed and could not be mapped, with the record.
        kept: the number of refused records among these.
        counts: the numbers for a report about the source.
    """

    records: list[KafkaRecord] = field(default_factory=list)
    reports: list[KafkaRecord] = field(default_factory=list)
    kept: int = 0
    counts: RecordCounts = field(default_factory=RecordCounts)
    given: int = 0
    refused: list[dict[str, Any]] = field(default_factory=list)
    refused_count: int = 0
    event_ids: list[str | None] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def refuse(self, shown: dict[str, Any]) -> None:
        """Count a refused record."""
        self.refused_count += 1
        if len(self.refused) < MOST_SHOWN:
            self.refused.append(shown)

    @property
    def is_refused(self) -> bool:
        """Whether nothing of the request was accepted or kept."""
        return 0 < self.refused_count == self.given and not self.kept


@dataclass(frozen=True, slots=True)
class Stamp:
    """Makes the records of a request: when it was received, and by whom they are signed."""

    records: KafkaRecords
    signer: RecordSigner | None
    received_at: datetime

    def record(self, event: Event) -> KafkaRecord:
        """Return the record of an event. Errors as of :meth:`KafkaRecords.of`."""
        if event.received_at is not self.received_at:
            event = replace(event, received_at=self.received_at)
        return self.records.of(event, self.signer)


def own_events_answer(outcome: Outcome, where: str) -> dict[str, Any]:
    """Return the answer to our own events."""
    return {
        "accepted": outcome.given - outcome.refused_count,
        "stored": where,
        "event_ids": outcome.event_ids,
        "refused": outcome.refused,
    }


def tool_records_answer(outcome: Outcome, where: str) -> dict[str, Any]:
    """Return the answer to a tool's records."""
    return {
        "records": outcome.given,
        "events": len(outcome.records),
        "stored": where,
        "skipped": dict(outcome.skipped),
        "refused_count": outcome.refused_count,
        "kept": outcome.kept,
        "refused": outcome.refused,
    }
