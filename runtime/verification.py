"""Verification of what ClickHouse stores: rows in chunks, shared out over processes, joined log by log."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
from clickhouse_connect.driver.client import Client

from ..ledger.anchor import Anchor, anchor_origin
from ..ledger.entry import Genesis
from ..ledger.note import Checkpoint, NoteError
from ..ledger.verify import (
    CheckedChunk,
    OriginVerifier,
    Problem,
)
from ..ledger.verify_columns import COLUMNS, ChunkTask, check_rows
from ..schemas.catalog import SchemaCatalog, SchemaConflictError
from ..schemas.event import FINDINGS_TOPIC
from ..sinks.evidence import ARROW, read_catalog
from ..sinks.file_target import read_anchor_file
from .verification_report import Report, check_anchors, conclude

CHUNK = 1 << 16
"""Rows a chunk: a power of two, so that the tree over a chunk is a subtree of the log's."""
PARALLEL_FROM = 4 * CHUNK
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
        patience: seconds that a store which is being written to may be behind the anchors outside.
        on_progress: called with entries done and entries in all.
        workers: processes that hash; None for as many as there are processors.
    """
    started = time.monotonic()
    report = Report("clickhouse")
    # Anchors first: the sink stores an anchor only after the entries it covers, so the entries read next reach them.
    outside = list(read_anchor_file(anchor_file)) if anchor_file is not None else []
    anchors = list(_read_anchors(client))
    _await_covered(client, outside, patience)
    logs, report.problems = _read_origins(client, deployment)
    catalog = _catalog(client, deployment, report)
    total = sum(log.rows for log in logs)
    verifiers = {log.genesis.origin: OriginVerifier(log.genesis, public_key) for log in logs}
    erasures: Mapping[str, frozenset[int]] = _erasures(client, deployment)
    # The findings first: where the schemas on record are not sound, decoded columns cannot be judged.
    prefix = f"{deployment}/{FINDINGS_TOPIC}/"
    findings = [log for log in logs if log.genesis.origin.startswith(prefix)]
    others = [log for log in logs if log not in findings]
    with _pool(total, workers, catalog) as pool:
        for some in (findings, others):
            decoded = not any(problem.origin.startswith(prefix) for problem in _problems(report, verifiers))
            for checked in _check_all(client, some, verifiers, erasures, pool, decoded=decoded):
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


def _await_covered(client: Client, outside: list[Anchor], patience: float) -> None:
    """Give a running sink the time to store what the anchors outside cover already."""
    covered = {c.origin: c.size for anchor in outside[-1:] for c in _checkpoints(anchor)}
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if all(_sizes(client).get(origin, (0, 0))[0] >= size for origin, size in covered.items()):
            return
        time.sleep(0.2)


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


_catalog_here = SchemaCatalog()


def _prepare(catalog: SchemaCatalog) -> None:
    global _catalog_here  # noqa: PLW0603 - one a process: sent once to each worker, not with every chunk
    _catalog_here = catalog


def _check_serialized(task: ChunkTask, buffer: bytes) -> CheckedChunk:
    return check_rows(task, pa.ipc.open_stream(buffer).read_all(), _catalog_here)


class _Inline(Executor):
    """Runs on the spot, for ledgers too small to share out."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


def _pool(total: int, workers: int | None, catalog: SchemaCatalog) -> Executor:
    count = workers if workers is not None else os.cpu_count() or 1
    if count <= 1 or total < PARALLEL_FROM:
        _prepare(catalog)
        return _Inline()
    # Spawned, not forked: the embedded engine's threads do not survive a fork.
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_prepare, initargs=(catalog,))


def _check_all(
    client: Client,
    logs: list[StoredOrigin],
    verifiers: Mapping[str, OriginVerifier],
    erasures: Mapping[str, frozenset[int]],
    pool: Executor,
    *,
    decoded: bool,
) -> Iterator[CheckedChunk]:
    """Yield the checked chunks of every log in order; a few are under way at a time, so memory stays flat.

    What comes after a log's first problem is not read: an index out of all proportion could keep us here for ever.
    """
    waiting: deque[Future[CheckedChunk]] = deque()
    for log in logs:
        origin = log.genesis.origin
        erased = erasures.get(origin, frozenset())
        for first in range(0, log.size, CHUNK):
            if verifiers[origin].problem is not None:
                break
            task = ChunkTask(origin, first, min(CHUNK, log.size - first), erased, decoded=decoded)
            waiting.append(pool.submit(_check_serialized, task, _read_chunk(client, task)))
            while len(waiting) > 3:
                yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read_chunk(client: Client, task: ChunkTask) -> bytes:
    """Read rows as an Arrow stream, which goes to whoever checks it as it is."""
    names = ", ".join(f"`{name}`" for name in COLUMNS)
    body = client.raw_query(
        f"SELECT {names} FROM entries WHERE origin = {{origin:String}} AND index >= {{first:UInt64}} "  # noqa: S608 - our names
        "AND index < {end:UInt64} ORDER BY index",
        parameters={"origin": task.origin, "first": task.first_index, "end": task.first_index + task.expected},
        settings=ARROW,
        fmt="ArrowStream",
    )
    return bytes(body) if not isinstance(body, bytes) else body
