"""Sends the records of a tool's files through its adapter, and counts the result of every record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ..schemas.event import Action, Event
from ..schemas.rules import InvalidEventError
from .adapters import EVENT_UNKNOWN, Adapter, Location, RecordError, Skipped, recognise
from .client import EventTooLargeError
from .envelopes import Envelopes, ToolRecord
from .envelopes.looks import looks_like
from .input_files import InputFile
from .redaction.marks import MARK_START, rules_in
from .source_reports import RecordCounts, ReportedSource

MAX_RECORD_BYTES = 1024 * 1024
"""A longer record is rejected before parsing, so that no file can exhaust the memory."""
KEPT_FAILURES = 20
MOST_RESOURCES = 100_000
KEPT_TEXT, KEPT_ARGUMENT, KEPT_ARGUMENTS = 65_536, 1024, 100
"""Limits of an action that does not fit into one Kafka record: characters of a text and of an argument, arguments."""


@dataclass(slots=True)
class Failure:
    """A record that could not be read, or the first of the records of a file that no adapter reads and that look alike.

    Attributes:
        looks_like: the kind of such records, or an empty string if the record is one of the tool.
        count: the number of such records in the file.
    """

    location: Location
    problem: str
    looks_like: str = ""
    count: int = 1


@dataclass(slots=True)
class ImportReport:
    """The results of an import. Every record counts once, as mapped, skipped (by reason) or failed.

    Attributes:
        without_raw: events that were sent without ``raw`` because they were too large.
        failures: the first ``KEPT_FAILURES`` failed records, without those of another tool. Records that no adapter
            reads and that look alike are one failure per file.
        unwrapped: the number of records by envelope.
        redacted: the number of records by rule of redaction.
        of_other_tools: the number of failed records that look like another tool's, by file and tool.
        kept: the number of failed records that were reported one by one.
        resources: the first ``MOST_RESOURCES`` resources, and whether a record names the environment of each.
        without_instance: events whose records name no installation of the tool; they bear the tool's name instead.
        newest: the latest time of an event.
    """

    mapped: int = 0
    events: int = 0
    without_raw: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)
    of_other_tools: Counter[tuple[str, str]] = field(default_factory=Counter)
    unwrapped: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    redacted: Counter[str] = field(default_factory=Counter)
    resources: dict[tuple[str, str], bool] = field(default_factory=dict)
    without_instance: int = 0
    newest: datetime | None = None

    def add_event(self, event: Event) -> None:
        """Count an event that was sent."""
        self.events += 1
        self.without_instance += event.source.instance == event.source.system
        if self.newest is None or event.occurred_at > self.newest:
            self.newest = event.occurred_at
        self._add_resource(event)

    def _add_resource(self, event: Event) -> None:
        if event.resource is not None and event.resource.id:
            name = event.resource.kind, event.resource.id
            if name in self.resources or len(self.resources) < MOST_RESOURCES:
                self.resources[name] = bool(event.resource.environment) or self.resources.get(name, False)

    @property
    def records(self) -> int:
        """The number of records read."""
        return self.mapped + self.skipped.total() + self.failed

    def fail(self, failure: Failure) -> None:
        """Count failed records that are not those of another tool, and keep the first of those that look alike."""
        self.failed += failure.count
        if failure.looks_like:
            for known in self.failures:
                if (known.location.file, known.looks_like) == (failure.location.file, failure.looks_like):
                    known.count += failure.count
                    return
        if len(self.failures) < KEPT_FAILURES:
            self.failures.append(failure)

    def add(self, other: ImportReport) -> None:
        """Add the results of another report, which is not used any more."""
        self.mapped += other.mapped
        self.events += other.events
        self.without_raw += other.without_raw
        self.without_instance += other.without_instance
        self.newest = max(filter(None, (self.newest, other.newest)), default=None)
        self.skipped += other.skipped
        self.of_other_tools += other.of_other_tools
        self.unwrapped += other.unwrapped
        self.kept += other.kept
        self.redacted += other.redacted
        for name, named_environment in other.resources.items():
            if name in self.resources or len(self.resources) < MOST_RESOURCES:
                self.resources[name] = named_environment or self.resources.get(name, False)
        named = sum(failure.count for failure in other.failures)
        self.failed += other.failed - named
        for failure in other.failures:
            self.fail(failure)


class Importer:
    """Feeds files to an adapter, and its events to ``send``. Keeps one record in memory at a time.

    Args:
        send: receives each event, usually ``Client.send``. Any error except InvalidEventError ends the import.
        reject: receives the bytes of every failed record, in pieces; each record ends with a line end.
        progress: called from time to time with the number of bytes read from the file.
        keep: receives a report about each well-formed record of the tool that cannot be mapped, with the record.
        way: the way in, for these reports.
    """

    def __init__(
        self,
        adapter: Adapter,
        send: Callable[[Event], object],
        *,
        reject: Callable[[bytes], object] | None = None,
        progress: Callable[[int], object] | None = None,
        max_record_bytes: int = MAX_RECORD_BYTES,
        keep: Callable[[Event], object] | None = None,
        way: str = "import",
    ) -> None:
        self._adapter = adapter
        self._keep = keep
        self.source = ReportedSource(adapter.SYSTEM, adapter.instance, way, adapter.tenant, adapter.mapping)
        self._send = send
        self._reject = reject or (lambda piece: None)
        self._progress = progress or (lambda position: None)
        self.envelopes = Envelopes(self._is_own, limit=max_record_bytes, reject=self._reject, lines=adapter)
        self.report = ImportReport()
        self.counts = RecordCounts()
        """What to report about the source."""

    def run(self, file: InputFile) -> None:
        """Import one file; ``report`` is updated with every record.

        Raises:
            InputError: the file is damaged. The records before the damage were imported.
        """
        for number, record in enumerate(file.records(self.envelopes), 1):
            self.take(record)
            if number % 500 == 0:
                self._progress(file.position())
        self._progress(file.position())

    def take(self, record: ToolRecord) -> None:
        """Import one record; ``report`` is updated."""
        if record.envelopes:
            self.report.unwrapped[" > ".join(record.envelopes)] += 1
        if record.skipped:
            self._skip("collector_message")
        elif record.problem:
            self._fail(record.location, record.problem)
        else:
            self._import(record)

    def _is_own(self, values: dict[str, Any]) -> bool:
        return self._adapter.owns(values) or recognise(values) is not None

    def _import(self, record: ToolRecord) -> None:
        location = record.location
        try:
            mapped = self._adapter.read(record.raw, location, record.values)
            if isinstance(mapped, Skipped):
                kept = mapped.reason == EVENT_UNKNOWN and self._is_kept(record, "skipped", mapped.reason)
                self._skip(mapped.reason, kept=kept)
                return
            for event in mapped:
                self._send_event(event)
        except (RecordError, InvalidEventError) as error:
            problem = f"{error.field}: {error.problem}" if error.field else error.problem
            tool = recognise(record.values or {})
            if tool is not None and tool != self._adapter.SYSTEM:
                self.report.failed += 1
                self.counts.failed += 1
                self.report.of_other_tools[location.file, tool] += 1
            elif record.values is not None and self._adapter.owns(record.values):
                self._fail(location, problem, kept=self._is_kept(record, "failed", problem))
            else:
                self._fail(location, problem, looks_like(record))
            self._reject(record.raw + b"\n")
        else:
            self.report.mapped += 1
            self.counts.add_mapped(mapped[0].source.instance)
            if MARK_START.encode() in (raw := mapped[0].raw or b""):
                self.report.redacted.update(set(rules_in(raw.decode("utf-8", "replace"))))

    def _is_kept(self, record: ToolRecord, result: str, reason: str) -> bool:
        """Report a well-formed record that is not mapped, with the record. Return whether that was possible."""
        if self._keep is None or record.values is None:
            return False
        kept = self._adapter.kept(record.raw, record.location, record.values)
        if kept is None:
            return False
        try:
            self._keep(self.source.kept(kept, result, reason))
        except InvalidEventError:  # it is too large, or its text is none
            return False
        return True

    def _skip(self, reason: str, *, kept: bool = False) -> None:
        self.report.skipped[reason] += 1
        if not kept:
            self.counts.skipped[reason] += 1

    def _send_event(self, event: Event) -> None:
        try:
            self._send(event)
        except EventTooLargeError:
            self.report.without_raw += 1
            try:
                # raw may be left out: its digest remains.
                self._send(replace(event, raw=None))
            except EventTooLargeError:
                self._send(replace(event, raw=None, action=_truncated(event.action)))
        self.report.add_event(event)

    def _fail(self, location: Location, problem: str, kind: str = "", *, kept: bool = False) -> None:
        self.report.fail(Failure(location, problem, kind))
        self.report.kept += kept
        self.counts.failed += not kept


def _truncated(action: Action | None) -> Action | None:
    """Return an action that fits into one Kafka record."""
    if action is None:
        return None
    return replace(
        action,
        command=action.command and action.command[:KEPT_TEXT],
        args=tuple(arg[:KEPT_ARGUMENT] for arg in action.args[:KEPT_ARGUMENTS]),
        query=action.query and action.query[:KEPT_TEXT],
        truncated=True,
    )
