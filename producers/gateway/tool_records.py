"""The records of a tool in a request, through the envelopes and the adapter that ``import`` and ``follow`` use."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from ..adapters import Adapter
from ..envelopes import ToolRecord
from ..importer import Importer, ImportReport
from .answers import Outcome, Stamp
from .problems import ProblemError
from .source import WAY

MOST_RECORDS = 10_000
"""In one request."""
PLACE = "body"
"""The name of the body in locations."""
_MSGPACK = ("application/msgpack", "application/x-msgpack", "application/vnd.msgpack")


def check_media_type(content_type: str) -> None:
    """Raise ProblemError (415) for a format that is not text. Otherwise senders name all kinds of types."""
    if content_type.partition(";")[0].strip().lower() in _MSGPACK:
        raise ProblemError(
            415, "MessagePack is not supported: let the sender use JSON (Fluent Bit: `format json_lines`)"
        )


class RequestMapper:
    """Maps the records of one request."""

    def __init__(self, adapter: Adapter, stamp: Stamp) -> None:
        self.outcome = Outcome()
        self._importer = Importer(
            adapter,
            lambda event: self.outcome.records.append(stamp.record(event)),
            keep=lambda event: self.outcome.reports.append(stamp.record(event)),
            way=WAY,
        )
        self._importer.counts = self.outcome.counts

    def read(self, text: bytes) -> Outcome:
        """Map everything in a decoded body.

        Raises:
            ProblemError: 413, there are too many records.
        """
        self.take(self._importer.envelopes.stream(PLACE).records(io.BytesIO(text).read))
        return self.outcome

    def read_each(self, texts: Iterable[bytes]) -> Outcome:
        """Map the records in each of several texts, as of log records. Errors as of :meth:`read`."""
        for text in texts:
            self.read(text)
        return self.outcome

    def take(self, records: Iterable[ToolRecord]) -> None:
        """Map records. Errors as of :meth:`read`."""
        outcome, importer = self.outcome, self._importer
        for record in records:
            if outcome.given >= MOST_RECORDS:
                raise ProblemError(413, f"more than {MOST_RECORDS} records in one request: send less at once")
            importer.report = ImportReport()
            importer.take(record)
            report = importer.report
            if report.skipped.get("blank_line"):
                continue
            outcome.skipped += report.skipped
            outcome.kept += report.kept
            if report.failed:
                outcome.refuse(_refused(outcome.given, report))
            outcome.given += 1


def _refused(index: int, report: ImportReport) -> dict[str, Any]:
    """Return what is wrong with the one record of a report."""
    for failure in report.failures:
        place = {"line": failure.location.line}
        looks = {"looks_like": failure.looks_like} if failure.looks_like else {}
        return {"index": index, **place, "problem": failure.problem, **looks}
    [tool] = [tool for _, tool in report.of_other_tools] or ["another tool"]
    return {"index": index, "problem": f"this is a record of {tool}: send it with the credential of such a source"}
