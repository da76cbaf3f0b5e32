"""Follows everything of one tool: its files, a pipe and journald units, through one adapter."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from ...schemas.event import Event
from ..adapters import DEFAULT_REDACTOR, make_adapter
from ..envelopes import ToolRecord
from ..importer import Importer, ImportReport
from ..redaction.redactor import Redactor
from ..source_reports import REPORT_SECONDS, RecordCounts, SourceReports
from . import metrics
from .config import FollowedTool
from .followed_files import FollowedFiles
from .notices import Notices
from .state_file import ToolState
from .streams import JOURNALD, PIPE, RESTART_SECONDS, JournalReader, StreamReader

TURN_RECORDS = 1_000
"""Read from a file before the next one has its turn."""


class ToolFollower:
    """Follows one tool.

    Args:
        state: what was kept of it; None before the first start.
        send: receives each event.
        once: read to the ends and stop there.
        redactor: removes secrets from records.
    """

    def __init__(
        self,
        tool: FollowedTool,
        state: ToolState | None,
        send: Callable[[Event], object],
        *,
        once: bool,
        redactor: Redactor | None = DEFAULT_REDACTOR,
    ) -> None:
        self.report = ImportReport()
        """What was read; only with ``once``."""
        self.name = tool.name
        self._once = once
        self._state = state if state is not None else ToolState(since=time.time_ns())
        adapter = make_adapter(
            tool.tool, instance=tool.instance, tenant=tool.tenant, mapping=tool.mapping, redactor=redactor
        )
        self._send = send
        self._importer = Importer(adapter, send, keep=send, way="follow")
        self._reports = SourceReports(self._importer.source)
        self._report_at = 0.0
        self._known = Importer(adapter, lambda _event: None)
        self._notices = Notices(self.name, tool.tool)
        self._files = FollowedFiles(
            self.name,
            tool.paths,
            self._importer.envelopes,
            self._take,
            remember=adapter.REMEMBERS,
            since=self._state.since,
            positions=self._state.positions,
        )
        self._streams: dict[str, StreamReader] = {}
        self._begin_at = dict.fromkeys(tool.units, 0.0)
        """When journalctl is started, by unit."""
        self._stream_problems: dict[str, str] = {}
        if PIPE in tool.files:
            self._streams[PIPE] = StreamReader("standard input", sys.stdin.fileno(), self._importer.envelopes)
        self._cursor_moved = False
        self._only_pipe = not tool.paths and not tool.units

    def look(self, now: float) -> None:
        """Find the files, and start what has ended."""
        self._files.look(now)
        for unit, begin in self._begin_at.items():
            if JOURNALD + unit in self._streams or now < begin:
                continue
            cursor = self._state.cursors.get(unit)
            try:
                reader = JournalReader(unit, self._importer.envelopes, cursor, once=self._once)
            except OSError as error:
                self._end_of_unit(unit, f"journalctl cannot be run ({error.strerror})", now)
            else:
                self._streams[JOURNALD + unit] = reader

    def turn(self, now: float) -> bool:
        """Read a portion of everything; return whether there may be more."""
        busy = self._files.turn(TURN_RECORDS, now, final=self._once)
        for name, reader in list(self._streams.items()):
            before = reader.lines
            records = reader.take(TURN_RECORDS)
            for record in records:
                self._take(record, False)
            metrics.LINES.labels(self.name).inc(reader.lines - before)
            busy |= bool(records) or (self._once and not reader.ended)
            if reader.ended and isinstance(reader, JournalReader):
                self._cursor_moved |= self._note_cursor(name.removeprefix(JOURNALD), reader)
                del self._streams[name]
                self._end_of_unit(name.removeprefix(JOURNALD), reader.failure(), now)
                reader.close()
            elif reader.problem:
                self._stream_problems[reader.name] = reader.problem
        report, self._importer.report = self._importer.report, ImportReport()
        self._notices.report(report)
        counts, self._importer.counts = self._importer.counts, RecordCounts()
        self._reports.add(counts)
        if now >= self._report_at:
            self._report_at = now + REPORT_SECONDS
            self.send_reports()
        self._notices.problems(self._files.problems | self._stream_problems)
        if self._once:
            self.report.add(report)
        return busy

    def send_reports(self, *, last: bool = False) -> None:
        """Send what was counted since the last report."""
        for event in self._reports.take(last=last):
            self._send(event)

    @property
    def ended(self) -> bool:
        """Whether nothing can come any more: it was a pipe only, and that has ended."""
        return self._only_pipe and all(reader.ended for reader in self._streams.values())

    @property
    def problems(self) -> list[str]:
        """What cannot be read, one sentence each."""
        problems = self._files.problems | self._stream_problems
        return [f"{path}: {problem}" for path, problem in problems.items()]

    def advance(self, now: float) -> bool:
        """Move the positions, as everything read is acknowledged; return whether one moved."""
        moved, self._cursor_moved = self._files.advance(now) or self._cursor_moved, False
        for name, reader in self._streams.items():
            if isinstance(reader, JournalReader):
                moved |= self._note_cursor(name.removeprefix(JOURNALD), reader)
        return moved

    def state(self) -> ToolState:
        """Return what is kept."""
        return ToolState(since=self._state.since, positions=self._files.positions(), cursors=self._state.cursors)

    def close(self) -> None:
        """Close everything."""
        self._files.close()
        for reader in self._streams.values():
            reader.close()

    def _take(self, record: ToolRecord, known: bool) -> None:
        (self._known if known else self._importer).take(record)
        if known:
            self._known.report = ImportReport()

    def _note_cursor(self, unit: str, reader: JournalReader) -> bool:
        cursor = reader.cursor()
        if cursor is not None:
            self._state.cursors[unit] = cursor
        return cursor is not None

    def _end_of_unit(self, unit: str, problem: str, now: float) -> None:
        self._begin_at[unit] = float("inf") if self._once else now + RESTART_SECONDS
        if problem:
            self._stream_problems[JOURNALD + unit] = problem
        else:
            self._stream_problems.pop(JOURNALD + unit, None)
