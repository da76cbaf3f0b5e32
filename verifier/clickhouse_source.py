"""Evidence in ClickHouse: the tables ``entries``, ``origins`` and ``anchors``. Rows are hashed here, never there."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from clickhouse_connect.driver.client import Client

from ..ledger.anchor import Anchor
from ..ledger.entry import Genesis, split_entry_name
from ..ledger.keys import LogKeys
from ..ledger.source_keys import SourceKeys
from ..schemas.catalog import SchemaCatalog, SchemaConflictError
from ..schemas.event import FINDINGS_TOPIC
from ..schemas.evidence import ORIGINS_SCHEMA
from ..sinks.evidence import ARROW, read_catalog, read_key_changes
from .chunks import CheckedChunk, ChunkTask
from .definitions import check_definitions, read_definitions
from .logs import ChunkJoiner, VerifiedLog, VerifiedRoots
from .procedure import Progress
from .report import VerifyReport
from .row_reader import READ_LIMITS, ReadLimits, RowReader
from .scratch import Scratch
from .since import LogHead, Since
from .steps import Problem
from .tables import AnchorRows, read_rows, text_of
from .workers import check_file

UNDER_WAY = 4  # chunks read but not yet joined, so that memory use stays constant

Sizes = Mapping[str, tuple[int, int]]
"""By origin: entries according to the highest index, and rows."""


@dataclass(frozen=True, slots=True)
class ClickHouseEvidence:
    """The stored evidence of one deployment.

    Attributes:
        patience: seconds without progress after which a running store no longer counts as catching up with the anchors
            from outside; 0 if no store is running.
        server: whether the store is a server, which has row policies.
        workers: number of checking threads; None for one per processor.
        since: where to go on; None to verify everything.
    """

    client: Client
    deployment: str
    patience: float = 0.0
    server: bool = False
    workers: int | None = None
    limits: ReadLimits = READ_LIMITS
    since: Since | None = None
    name: ClassVar[str] = "clickhouse"
    complete_epochs: ClassVar[bool] = True
    complete_anchors: ClassVar[bool] = False

    def read_anchors(self, report: VerifyReport) -> Iterable[Anchor]:
        """Check that the tables are tables, and return the anchors that the table ``anchors`` has now."""
        # Step 1, Format: the tables of evidence are tables.
        for problem in read_definitions(self.client, server=self.server).unreadable():
            report.add(problem)
        return AnchorRows(self.client, self.deployment, report, self.since)

    def verify_logs(
        self, keys: LogKeys, covered: Mapping[str, int], scratch: Scratch, report: VerifyReport, progress: Progress
    ) -> Mapping[str, VerifiedLog]:
        """Check the definitions and all rows."""
        # Step 1, Format: the tables, and the views that analysts read, are those of the migrations. Meanwhile, rows are
        # read: an engine has to start and to make all definitions.
        definitions = read_definitions(self.client, server=self.server)
        with ThreadPoolExecutor(1) as aside:
            differences = aside.submit(lambda: list(check_definitions(definitions)))
            logs = self._verify_rows(keys, covered, scratch, report, progress)
            for difference in differences.result():
                if isinstance(difference, Problem):
                    report.add(difference)
                else:
                    report.unchecked.append(difference)
        for problem in read_definitions(self.client, server=self.server).unreadable():  # also not exchanged meanwhile
            report.add(problem)
        return logs

    def _verify_rows(
        self, keys: LogKeys, covered: Mapping[str, int], scratch: Scratch, report: VerifyReport, progress: Progress
    ) -> Mapping[str, VerifiedLog]:
        """Check all rows in chunks, in several threads, and join them log by log."""
        if self.patience:
            report.behind = await_covered(self._sizes, covered, self.patience)
        sizes = self._sizes()
        # Step 2, Genesis: one row per log in origins, and its hash is right.
        logs = self._read_logs(sizes, scratch, report)
        if (other := self._other_deployment(logs.keys() | sizes.keys())) is not None:
            report.add(other)
            return {}
        # Step 9, Schemas: the writer schemas on record do not contradict one another.
        prefix = f"{self.deployment}/{FINDINGS_TOPIC}/"
        sources = SourceKeys(self.deployment)
        try:
            catalog = read_catalog(self.client, prefix, sources)
        except SchemaConflictError as error:
            report.add(Problem(prefix, None, "schema", str(error)))
            catalog = SchemaCatalog()
        joiners = {
            origin: ChunkJoiner(log, keys, scratch.last_covered.get(origin, 0), self._since(log, sizes, prefix))
            for origin, log in logs.items()
        }
        report.not_read = sum(log.roots.first for log in logs.values())
        total = sum(sizes[origin][1] for origin in logs if origin in sizes) - report.not_read
        # The findings first: they contain the schemas. If these are not sound, decoded columns cannot be judged.
        for of_findings in (True, False):
            group = {o: log for o, log in logs.items() if o.startswith(prefix) is of_findings}
            found = report.problems + [log.problem for log in logs.values() if log.problem is not None]
            decoded = not any(problem.origin.startswith(prefix) for problem in found)
            report.schemas = len(catalog) if decoded else None
            executor = ThreadPoolExecutor(self.workers or os.cpu_count() or 1)
            with TemporaryDirectory(prefix="grantledger-verify-") as folder, executor:
                reader = RowReader(self.client, Path(folder), self.limits)
                parts = self._parts(reader, group, sizes, decoded=decoded)

                def check(task: ChunkTask, path: Path) -> Future[list[CheckedChunk]]:
                    return executor.submit(check_file, task, path, catalog, sources)  # noqa: B023 - used in this turn

                for checked in _check_all(parts, check, reader):
                    joiners[checked.origin].add(checked)
                    report.erased += [f"{checked.origin}#{index}" for index in checked.erased]
                    report.entries += checked.count
                    progress(report.entries, total)
        for joiner in joiners.values():
            joiner.finish()
        for change in read_key_changes(self.client, prefix, sources):
            if change.origin in logs:
                logs[change.origin].key_changes.append(change)
        return logs

    def _other_deployment(self, origins: Set[str]) -> Problem | None:
        """Return a problem if everything stored belongs to other deployments: the caller has the wrong name."""
        if not origins or any(origin.startswith(self.deployment + "/") for origin in origins):
            return None
        names = ", ".join(sorted({origin.partition("/")[0] for origin in origins})[:3])
        message = f"nothing of deployment {self.deployment} is stored, only of {names}"
        return Problem(self.deployment, None, "origin", message, "deployment")

    def _sizes(self) -> Sizes:
        table = self.client.query_arrow(
            "SELECT origin, max(index) AS last, count() AS entries FROM entries GROUP BY origin", settings=ARROW
        )
        return {text_of(row["origin"]): (row["last"] + 1, row["entries"]) for row in table.to_pylist()}

    def _read_logs(self, sizes: Sizes, scratch: Scratch, report: VerifyReport) -> dict[str, VerifiedLog]:
        """Read the table ``origins`` and compare it with the logs that have entries."""
        logs: dict[str, VerifiedLog] = {}
        listed = set()
        rows, problem = read_rows(self.client, "origins", ORIGINS_SCHEMA, "ORDER BY origin")
        if problem:
            report.add(Problem(self.deployment, None, "format", problem))
        for row in rows:
            origin, genesis_hash = text_of(row["origin"]), row.pop("genesis_hash")
            if origin in listed:
                report.add(Problem(origin, None, "genesis", "the log is in the table origins more than once"))
                continue
            listed.add(origin)
            try:
                genesis = Genesis(**row | {"origin": origin})
            except ValueError as error:
                report.add(Problem(origin, None, "origin", str(error)))
                continue
            if genesis.hash() != genesis_hash:
                report.add(Problem(origin, None, "genesis", "the genesis hash is not that of the row in origins"))
            if not origin.startswith(self.deployment + "/"):
                message = f"the log is not of deployment {self.deployment}"
                report.add(Problem(origin, None, "origin", message, "deployment"))
            logs[origin] = VerifiedLog(genesis, VerifiedRoots(scratch.roots_of(origin)))
        for origin in sizes.keys() - listed:
            report.add(Problem(origin, 0, "origin", "entries are stored of a log that is not in the table origins"))
        return logs

    def _parts(
        self, reader: RowReader, logs: Mapping[str, VerifiedLog], sizes: Sizes, *, decoded: bool
    ) -> Iterator[tuple[ChunkTask, Path]]:
        """Read each log up to its first problem: a forged index may be as large as 2**64 - 1."""
        erasures = self._erasures()
        for origin, log in logs.items():
            size, erased = sizes.get(origin, (0, 0))[0], erasures.get(origin, frozenset())
            first = log.roots.first
            while first < size and log.problem is None:
                window = ChunkTask(origin, first, min(self.limits.rows, size - first), erased, decoded)
                yield from reader.parts(window)
                first += window.expected

    def _since(self, log: VerifiedLog, sizes: Sizes, findings: str) -> LogHead | None:
        """Return the head where the verification of a log goes on; None to verify it from the beginning.

        That is so if it is not the log of the earlier verification, or has lost or gained rows: their places are found.
        """
        origin = log.genesis.origin
        head = self.since.logs.get(origin) if self.since is not None and not origin.startswith(findings) else None
        size, rows = sizes.get(origin, (0, 0))
        if head is None or head.genesis != log.genesis.hash() or rows != size or size < head.size:
            return None
        return head

    def _erasures(self) -> dict[str, frozenset[int]]:
        """Return the indices whose erasure is on record, by origin.

        Records of erasures that are themselves erased do not count: nothing can be checked about them.
        """
        rows = self.client.query(
            "SELECT subject_id FROM entries "
            "WHERE startsWith(origin, {p:String}) AND event_type = 'payload.erased' AND erased_at IS NULL "
            "AND decode_error = '' AND signature NOT IN ('missing', 'invalid')",
            parameters={"p": f"{self.deployment}/{FINDINGS_TOPIC}/0/"},
        ).result_rows
        found: dict[str, set[int]] = {}
        for (subject,) in rows:
            with suppress(ValueError):  # anyone who may publish can write nonsense
                origin, index = split_entry_name(str(subject))
                found.setdefault(origin, set()).add(index)
        return {origin: frozenset(indices) for origin, indices in found.items()}


def await_covered(sizes: Callable[[], Sizes], covered: Mapping[str, int], patience: float, pause: float = 0.2) -> int:
    """Wait for a running store to reach the sizes that outside anchors cover, as long as it makes progress.

    Returns:
        The number of entries still missing after ``patience`` seconds without progress.
    """
    least: int | None = None
    deadline = 0.0
    while True:
        stored = sizes()
        missing = sum(max(0, size - stored.get(origin, (0, 0))[0]) for origin, size in covered.items())
        if least is None or missing < least:
            least, deadline = missing, time.monotonic() + patience
        if not missing or time.monotonic() >= deadline:
            return missing
        time.sleep(pause)


def _check_all(
    parts: Iterable[tuple[ChunkTask, Path]],
    check: Callable[[ChunkTask, Path], Future[list[CheckedChunk]]],
    reader: RowReader,
) -> Iterator[CheckedChunk]:
    """Yield the checked chunks of every log in order."""
    waiting: deque[tuple[ChunkTask, Future[list[CheckedChunk]]]] = deque()

    def finished() -> Iterator[CheckedChunk]:
        task, future = waiting.popleft()
        checked = future.result()
        if checked[-1].lacking:
            checked = []
            for whole, path in reader.parts(task, whole=True):
                checked += check(whole, path).result()
        if task.decoded:
            reader.saw(task.origin, frozenset().union(*(chunk.filled for chunk in checked)))
        yield from checked

    for task, path in parts:
        waiting.append((task, check(task, path)))
        while len(waiting) >= UNDER_WAY:
            yield from finished()
    while waiting:
        yield from finished()
