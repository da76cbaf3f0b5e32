"""Evidence in ClickHouse: the tables ``entries``, ``origins`` and ``anchors``. Rows are hashed here, never there."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from concurrent.futures import Executor, Future, ThreadPoolExecutor
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
from ..sinks.clickhouse import is_embedded
from ..sinks.evidence import ARROW, read_catalog, read_key_changes
from .chunks import COLUMNS, VARIABLE_COLUMNS, CheckedChunk, ChunkTask
from .definitions import check_definitions, read_definitions
from .logs import ChunkJoiner, VerifiedLog, VerifiedRoots
from .procedure import Progress
from .report import VerifyReport
from .scratch import Scratch
from .steps import Problem
from .tables import AnchorRows, read_rows, text_of
from .workers import check_file, pool

READ = 1 << 16
"""Most rows per query."""
READ_BYTES = 64 << 20
"""Most bytes of texts and lists per query, beyond a group of rows: a record can have 4 MiB, so rows do not bound the
memory."""
GROUP = 16
"""Rows whose bytes are counted together."""
READ_SETTINGS = ARROW | {
    "output_format_arrow_low_cardinality_as_dictionary": 1,
    "output_format_arrow_compression_method": "none",
}
"""Uncompressed, because the rows are read at once on the same machine."""
PARALLEL_FROM = 4 * READ  # with fewer rows, starting processes costs more than it saves
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
        workers: number of hashing processes; None for one per processor.
    """

    client: Client
    deployment: str
    patience: float = 0.0
    server: bool = False
    workers: int | None = None
    name: ClassVar[str] = "clickhouse"
    complete_epochs: ClassVar[bool] = True
    complete_anchors: ClassVar[bool] = False

    def read_anchors(self, report: VerifyReport) -> Iterable[Anchor]:
        """Check that the tables are tables, and return the anchors that the table ``anchors`` has now."""
        # Step 1, Format: the tables of evidence are tables.
        for problem in read_definitions(self.client, server=self.server).unreadable():
            report.add(problem)
        return AnchorRows(self.client, self.deployment, report)

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
        """Check all rows in chunks, in several processes, and join them log by log."""
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
        joiners = {origin: ChunkJoiner(log, keys) for origin, log in logs.items()}
        total = _rows_of(logs, sizes)
        # The findings first: they contain the schemas. If these are not sound, decoded columns cannot be judged.
        for of_findings in (True, False):
            group = {o: log for o, log in logs.items() if o.startswith(prefix) is of_findings}
            found = report.problems + [log.problem for log in logs.values() if log.problem is not None]
            decoded = not any(problem.origin.startswith(prefix) for problem in found)
            report.schemas = len(catalog) if decoded else None
            tasks = self._tasks(group, sizes, decoded=decoded)
            processes = 1 if _rows_of(group, sizes) < PARALLEL_FROM else self.workers or os.cpu_count() or 1
            executor = pool(processes, catalog, sources)
            with TemporaryDirectory(prefix="grantledger-verify-") as folder, executor:
                for checked in _check_all(self.client, tasks, executor, Path(folder)):
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

    def _tasks(self, logs: Mapping[str, VerifiedLog], sizes: Sizes, *, decoded: bool) -> Iterator[ChunkTask]:
        """Yield the chunks of each log up to its first problem: a forged index may be as large as 2**64 - 1."""
        erasures = self._erasures()
        for origin, log in logs.items():
            size, erased = sizes.get(origin, (0, 0))[0], erasures.get(origin, frozenset())
            first = 0
            while first < size and log.problem is None:
                for expected in cut_by_bytes(self._group_bytes(origin, first), min(READ, size - first), READ_BYTES):
                    yield ChunkTask(origin, first, expected, erased, decoded)
                    first += expected

    def _group_bytes(self, origin: str, first: int) -> Mapping[int, int]:
        """Return the bytes of each group of rows of the next :data:`READ` rows."""
        columns = ", ".join(f"`{name}`" for name in VARIABLE_COLUMNS)
        rows = self.client.query(
            f"SELECT intDiv(index - {{first:UInt64}}, {GROUP}) AS g, sum(byteSize({columns})) FROM entries "  # noqa: S608 - our names
            f"WHERE origin = {{origin:String}} AND index >= {{first:UInt64}} AND index - {{first:UInt64}} < {READ} "
            "GROUP BY g",
            parameters={"origin": origin, "first": first},
        ).result_rows
        return {int(group): int(size) for group, size in rows}

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


def _rows_of(logs: Iterable[str], sizes: Sizes) -> int:
    return sum(sizes[origin][1] for origin in logs if origin in sizes)


def cut_by_bytes(sizes: Mapping[int, int], rows: int, limit: int) -> Iterator[int]:
    """Cut rows into parts of at most ``limit`` bytes each, or one group of rows; yield the number of rows of each.

    Args:
        sizes: bytes of each group of :data:`GROUP` rows; a missing group is empty.
    """
    count = size = 0
    for group in range(-(-rows // GROUP)):
        added = min(GROUP, rows - group * GROUP)
        if count and size + sizes.get(group, 0) > limit:
            yield count
            count = size = 0
        count, size = count + added, size + sizes.get(group, 0)
    if count:
        yield count


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


def _check_all(client: Client, tasks: Iterable[ChunkTask], executor: Executor, folder: Path) -> Iterator[CheckedChunk]:
    """Yield the checked chunks of every log in order."""
    waiting: deque[Future[list[CheckedChunk]]] = deque()
    for number, task in enumerate(tasks):
        path = folder / str(number)
        _read(client, task, path)
        waiting.append(executor.submit(check_file, task, path))
        while len(waiting) >= UNDER_WAY:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def _read(client: Client, task: ChunkTask, path: Path) -> None:
    """Write rows to a file as an Arrow stream, for whichever process checks them.

    The embedded engine writes the file itself, which costs half as much as passing the bytes through Python. One row
    more than expected is enough to find duplicates.
    """
    names, first = ", ".join(f"`{name}`" for name in COLUMNS), task.first_index
    embedded = is_embedded(client)
    quoted = str(path).replace("\\", "\\\\").replace("'", "\\'")
    body = client.raw_query(
        f"SELECT {names} FROM entries WHERE origin = {{origin:String}} AND index >= {{first:UInt64}} "  # noqa: S608 - our names
        "AND index < {end:UInt64} ORDER BY index LIMIT {limit:UInt64}"
        + (f" INTO OUTFILE '{quoted}'" if embedded else ""),
        parameters={"origin": task.origin, "first": first, "end": first + task.expected, "limit": task.expected + 1},
        settings=READ_SETTINGS,
        fmt="ArrowStream",
    )
    if not embedded:
        path.write_bytes(body)
