"""Verification of what ClickHouse stores: rows in chunks, shared out over processes, joined log by log."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from clickhouse_connect.driver.client import Client

from ..ledger.anchor import Anchor, anchor_origin
from ..ledger.entry import Genesis
from ..ledger.note import Checkpoint, NoteError
from ..schemas.catalog import SchemaCatalog, SchemaConflictError
from ..schemas.event import FINDINGS_TOPIC
from ..sinks.clickhouse import is_embedded
from ..sinks.evidence import ARROW, read_catalog
from ..sinks.file_target import read_anchor_file
from .columns import COLUMNS, ChunkTask
from .logs import CheckedChunk, OriginVerifier, Problem
from .report import Report, check_anchors, conclude
from .workers import check_file, pool

READ = 1 << 16
"""Rows read at a time: a multiple of the rows that are checked at a time."""
READ_SETTINGS = ARROW | {
    "output_format_arrow_low_cardinality_as_dictionary": 1,
    "output_format_arrow_compression_method": "none",
}
"""What is read a moment later on the same machine is not worth compressing."""
PARALLEL_FROM = 4 * READ
"""With fewer rows than this, starting processes costs more than it saves."""


@dataclass(frozen=True, slots=True)
class StoredOrigin:
    """One log as ClickHouse has it: what its genesis binds, its entries by the highest index, and its rows."""

    genesis: Genesis
    size: int
    rows: int


def verify_store(
    client: Client,
    deployment: str,
    public_key: bytes,
    *,
    anchor_file: Path | None = None,
    patience: float = 0.0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    workers: int | None = None,
) -> Report:
    """Check everything that ClickHouse holds of a deployment.

    Args:
        anchor_file: what the target ``file`` wrote: anchors from outside the store, which show when its end is cut off.
        patience: seconds that a store which is being written to may be behind the anchors outside and take nothing in.
        on_progress: called with entries done and entries in all.
        workers: processes that hash; None for as many as there are processors.
    """
    started = time.monotonic()
    report = Report("clickhouse")
    # Anchors first: the sink stores an anchor only after the entries it covers, so the entries read next reach them.
    outside = list(read_anchor_file(anchor_file)) if anchor_file is not None else []
    anchors = list(_read_anchors(client))
    report.behind = await_covered(partial(_sizes, client), outside, patience) if patience else 0
    logs, report.problems = _read_origins(client, deployment)
    catalog = _catalog(client, deployment, report)
    total = sum(log.rows for log in logs)
    verifiers = {log.genesis.origin: OriginVerifier(log.genesis, public_key) for log in logs}
    erasures: Mapping[str, frozenset[int]] = _erasures(client, deployment)
    # The findings first: where the schemas on record are not sound, decoded columns cannot be judged.
    prefix = f"{deployment}/{FINDINGS_TOPIC}/"
    findings = [log for log in logs if log.genesis.origin.startswith(prefix)]
    others = [log for log in logs if log not in findings]
    processes = workers if workers is not None else os.cpu_count() or 1
    with (
        TemporaryDirectory(prefix="grantledger-verify-") as folder,
        pool(processes if total >= PARALLEL_FROM else 1, catalog) as workplace,
    ):
        for some in (findings, others):
            decoded = not any(problem.origin.startswith(prefix) for problem in _problems(report, verifiers))
            tasks = _tasks(some, verifiers, erasures, decoded=decoded)
            for checked in _check_all(partial(_read, client), tasks, workplace, Path(folder)):
                verifiers[checked.origin].add(checked)
                report.entries += checked.count
                on_progress(report.entries, total)
    conclude(report, verifiers)
    check_anchors(report, anchors, outside, public_key, verifiers, origin=anchor_origin(deployment))
    report.seconds = time.monotonic() - started
    return report


def _problems(report: Report, verifiers: Mapping[str, OriginVerifier]) -> list[Problem]:
    """Return everything that is known to be wrong so far."""
    return report.problems + [found for verifier in verifiers.values() if (found := verifier.problem) is not None]


def await_covered(
    sizes: Callable[[], Mapping[str, tuple[int, int]]], outside: list[Anchor], patience: float, pause: float = 0.2
) -> int:
    """Give a running sink the time to store what the anchors outside cover already, for as long as it takes more in.

    Args:
        sizes: what is stored of each log now: entries by the highest index, and rows.
        patience: seconds without progress after which it is given up.

    Returns:
        how many entries are still missing at the end of the logs.
    """
    covered = {c.origin: c.size for anchor in outside[-1:] for c in _checkpoints(anchor)}
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


def _checkpoints(anchor: Anchor) -> list[Checkpoint]:
    try:
        return anchor.checkpoints()
    except NoteError:  # told when the anchor is checked
        return []


def _read_origins(client: Client, deployment: str) -> tuple[list[StoredOrigin], list[Problem]]:
    """Return the logs and what is wrong with their list."""
    table = client.query_arrow(
        "SELECT origin, topic_id, first_offset, previous_size, previous_root, genesis_hash FROM origins "
        "ORDER BY origin",
        settings=ARROW,
    )
    sizes = _sizes(client)
    logs: list[StoredOrigin] = []
    problems = []
    for row in table.to_pylist():
        origin = row["origin"].decode("utf-8", "replace")
        if any(log.genesis.origin == origin for log in logs):
            problems.append(Problem(origin, None, "genesis", "the log stands in origins more than once"))
            continue
        try:
            genesis = Genesis(origin, row["topic_id"], row["first_offset"], row["previous_size"], row["previous_root"])
        except ValueError as error:
            problems.append(Problem(origin, None, "origin", str(error)))
            continue
        if genesis.hash() != row["genesis_hash"]:
            problems.append(Problem(origin, None, "genesis", "the genesis hash is not that of the row in origins"))
        logs.append(StoredOrigin(genesis, *sizes.pop(origin, (0, 0))))
    for origin in sizes:
        problems.append(Problem(origin, 0, "origin", "entries are stored of a log that origins does not have"))
    if deployment:
        for log in logs:
            if not log.genesis.origin.startswith(deployment + "/"):
                problems.append(
                    Problem(log.genesis.origin, None, "origin", f"the log is not of deployment {deployment}")
                )
    return logs, problems


def _sizes(client: Client) -> dict[str, tuple[int, int]]:
    """Return of each log how many entries it has by its highest index, and how many rows."""
    table = client.query_arrow(
        "SELECT origin, max(index) AS last, count() AS entries FROM entries GROUP BY origin", settings=ARROW
    )
    rows = table.to_pylist()
    return {row["origin"].decode("utf-8", "replace"): (row["last"] + 1, row["entries"]) for row in rows}


def _catalog(client: Client, deployment: str, report: Report) -> SchemaCatalog:
    prefix = f"{deployment}/{FINDINGS_TOPIC}/0/"
    try:
        return read_catalog(client, prefix)
    except SchemaConflictError as error:
        report.problems.append(Problem(prefix, None, "schema", str(error)))
        return SchemaCatalog()


def _erasures(client: Client, deployment: str) -> dict[str, frozenset[int]]:
    """Return the indices whose erasure is on record, by origin; the subject of the event names them.

    A record that is itself erased says nothing: its columns cannot be checked any more.
    """
    rows = client.query(
        "SELECT subject_id FROM entries "
        "WHERE startsWith(origin, {p:String}) AND event_type = 'payload.erased' AND erased_at IS NULL",
        parameters={"p": f"{deployment}/{FINDINGS_TOPIC}/0/"},
    ).result_rows
    found: dict[str, set[int]] = {}
    for (name,) in rows:
        origin, _, index = str(name).rpartition("#")
        if index.isdigit():
            found.setdefault(origin, set()).add(int(index))
    return {origin: frozenset(indices) for origin, indices in found.items()}


def _read_anchors(client: Client) -> Iterator[Anchor]:
    table = client.query_arrow(
        "SELECT origin, index, time, bodies, entry, frontier, note FROM anchors ORDER BY origin, index", settings=ARROW
    )
    times = table.column("time").cast(pa.int64()).to_pylist()
    for row, time_ms in zip(table.to_pylist(), times, strict=True):
        bodies = tuple(body.decode("utf-8", "replace") for body in row["bodies"])
        note = row["note"].decode("utf-8", "replace")
        origin = row["origin"].decode("utf-8", "replace")
        yield Anchor(origin, row["index"], time_ms, bodies, row["entry"], row["frontier"], note)


def _check_all(
    read: Callable[[ChunkTask, Path], None],
    tasks: Iterable[ChunkTask],
    workplace: Executor,
    folder: Path,
) -> Iterator[CheckedChunk]:
    """Yield the checked chunks of every log in order; a few are under way at a time, so memory stays flat."""
    waiting: deque[Future[list[CheckedChunk]]] = deque()
    for number, task in enumerate(tasks):
        path = folder / str(number)
        read(task, path)
        waiting.append(workplace.submit(check_file, task, path))
        while len(waiting) > 3:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def _tasks(
    logs: list[StoredOrigin],
    verifiers: Mapping[str, OriginVerifier],
    erasures: Mapping[str, frozenset[int]],
    *,
    decoded: bool,
) -> Iterator[ChunkTask]:
    """Yield what there is to check of each log.

    What comes after a log's first problem is left out: an index out of all proportion could keep us here for ever.
    """
    for log in logs:
        origin = log.genesis.origin
        erased = erasures.get(origin, frozenset())
        for first in range(0, log.size, READ):
            if verifiers[origin].problem is not None:
                break
            yield ChunkTask(origin, first, min(READ, log.size - first), erased, decoded=decoded)


def _read(client: Client, task: ChunkTask, path: Path) -> None:
    """Write rows as an Arrow stream to a file, which goes to whoever checks it as it is.

    The embedded engine writes the file itself: half the price of taking the bytes from it.
    """
    names = ", ".join(f"`{name}`" for name in COLUMNS)
    embedded = is_embedded(client)
    quoted = str(path).replace("\\", "\\\\").replace("'", "\\'")
    body = client.raw_query(
        f"SELECT {names} FROM entries WHERE origin = {{origin:String}} AND index >= {{first:UInt64}} "  # noqa: S608 - our names
        "AND index < {end:UInt64} ORDER BY index" + (f" INTO OUTFILE '{quoted}'" if embedded else ""),
        parameters={"origin": task.origin, "first": task.first_index, "end": task.first_index + task.expected},
        settings=READ_SETTINGS,
        fmt="ArrowStream",
    )
    if not embedded:
        path.write_bytes(body)
