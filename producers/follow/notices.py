"""Log lines about what is read: each kind of problem once per file."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping

import structlog

from ..adapters import EVENT
from ..importer import Failure, ImportReport
from . import metrics

MOST = 10_000
"""Notices that are remembered. After more, one may be repeated."""
_SHOWN_PER_FILE = 20

log = structlog.get_logger("grantledger.follow")


class Notices:
    """The notices about one tool."""

    def __init__(self, name: str, tool: str) -> None:
        self._name = name
        self._tool = tool
        self._known: OrderedDict[Hashable, int] = OrderedDict()
        self._problems: dict[str, str] = {}

    def report(self, report: ImportReport) -> None:
        """Count the records of a report, and log what was not understood."""
        metrics.RECORDS.labels(self._name, "mapped").inc(report.mapped)
        metrics.RECORDS.labels(self._name, "failed").inc(report.failed)
        for reason, count in report.skipped.items():
            metrics.SKIPPED.labels(self._name, reason).inc(count)
        for failure in report.failures:
            self._failure(failure)
        for file, other in report.of_other_tools:
            if self._count((file, "of", other)) == 1:
                use = "grantledger emit" if other == EVENT else f"tool {other}"
                log.warning("records_of_another_tool", tool=self._name, file=file, looks_like=other, use=use)

    def problems(self, problems: Mapping[str, str]) -> None:
        """Log what cannot be read, and what can be read again."""
        for path, problem in problems.items():
            if self._problems.get(path) != problem:
                log.warning("cannot_read", tool=self._name, file=path, problem=f"{path}: {problem}")
        for path in self._problems.keys() - problems.keys():
            log.info("reads_again", tool=self._name, file=path)
        self._problems = dict(problems)
        metrics.UNREADABLE.labels(self._name).set(len(problems))

    def _failure(self, failure: Failure) -> None:
        file = failure.location.file
        if self._count((file, failure.looks_like)) > (1 if failure.looks_like else _SHOWN_PER_FILE):
            return
        looks = {"looks_like": failure.looks_like} if failure.looks_like else {}
        log.warning("not_understood", tool=self._name, place=str(failure.location), problem=failure.problem, **looks)

    def _count(self, key: Hashable) -> int:
        count = self._known.pop(key, 0) + 1
        self._known[key] = count
        if len(self._known) > MOST:
            self._known.popitem(last=False)
        return count
