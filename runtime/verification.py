"""Verification end to end: rows out of ClickHouse or batches out of Kafka, through the verifier, to a report."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
from clickhouse_connect.driver.client import Client
from confluent_kafka.admin import AdminClient

from ..ledger import batch as batches
from ..ledger.anchor import Anchor, decode_anchor
from ..ledger.batch import BatchError
from ..ledger.entry import Genesis
from ..ledger.verify import (
    CheckedChunk,
    Chunk,
    OriginVerifier,
    Problem,
    check_chunk,
    check_covered,
    verify_anchors,
)
from ..ledger.verify_columns import COLUMNS, ChunkTask, check_rows
from ..schemas import kafka
from ..schemas.catalog import SchemaCatalog, SchemaConflictError
from ..schemas.event import FINDINGS_TOPIC
from ..schemas.topics import ANCHORS_TOPIC, SEALED_TOPICS
from ..sinks.evidence import ARROW, read_catalog
from ..sinks.file_target import read_anchor_file

CHUNK = 1 << 16
"""Rows a chunk: a power of two, so that the tree over a chunk is a subtree of the log's."""
PARALLEL_FROM = 4 * CHUNK
"""With fewer rows than this, starting processes costs more than it saves."""


@dataclass(slots=True)
class Report:
    """What a verification found. ``sound`` is false with the first problem."""

    source: str
    logs: int = 0
    entries: int = 0
    checkpoints: int = 0
    anchors: int = 0
    outside_anchors: int = 0
    seconds: float = 0.0
    problems: list[Problem] = field(default_factory=list)
    heads: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Whether everything that was read is as it was signed."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs."""
        return {"sound": self.sound} | asdict(self)


@dataclass(frozen=True, slots=True)
class StoredOrigin:
    """One log as ClickHouse has it: what its genesis binds, and how many entries there are by the highest index."""

    genesis: Genesis
    size: int


class VerificationError(Exception):
    """The verification could not be carried out; nothing is said about the ledger."""


def verify_store(
    client: Client,
    deployment: str,
    public_key: bytes,
    *,
    anchor_file: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    workers: int | None = None,
) -> Report:
    """Check everything that ClickHouse holds of a deployment.

    Args:
        anchor_file: what the target ``file`` wrote: anchors from outside the store, which show when its end is cut off.
        on_progress: called with entries done and entries in all.
        workers: processes that hash; None for as many as there are processors.
    """
    started = time.monotonic()
    report = Report("clickhouse")
    # Anchors first: the sink stores an anchor only after the entries it covers, so the entries read next reach them.
    anchors = list(_read_anchors(client))
    outside = list(read_anchor_file(anchor_file)) if anchor_file is not None else []
    logs, problems = _read_origins(client, deployment)
    report.problems += problems
    catalog = _catalog(client, deployment, report)
    total = sum(log.size for log in logs)
    verifiers = {log.genesis.origin: OriginVerifier(log.genesis, public_key) for log in logs}
    erasures: Mapping[str, frozenset[int]] = _erasures(client, deployment)
    with _pool(total, workers, catalog) as pool:
        for checked in _check_all(client, logs, catalog, erasures, pool):
            verifiers[checked.origin].add(checked)
            report.entries += checked.count
            on_progress(report.entries, total)
    _conclude(report, verifiers)
    _check_anchors(report, anchors, outside, public_key, verifiers)
    report.seconds = time.monotonic() - started
    return report


def _conclude(report: Report, verifiers: dict[str, OriginVerifier]) -> None:
    for origin, verifier in verifiers.items():
        verifier.finish()
        report.logs += 1
        report.checkpoints += verifier.checkpoints
        if verifier.problem is not None:
            report.problems.append(verifier.problem)
        else:
            report.heads[origin] = (verifier.frontier.size, verifier.frontier.root().hex())


def _check_anchors(
    report: Report, anchors: list[Anchor], outside: list[Anchor], key: bytes, verifiers: dict[str, OriginVerifier]
) -> None:
    roots = {origin: verifier.roots for origin, verifier in verifiers.items()}
    skip = frozenset(origin for origin, verifier in verifiers.items() if verifier.problem is not None)
    report.anchors, problem = verify_anchors(anchors, key, roots, skip)
    if problem is not None:
        report.problems.append(problem)
    inside = {anchor.index: anchor for anchor in anchors}
    for anchor in outside:
        known = inside.get(anchor.index)
        if known is not None:
            if known.note != anchor.note:
                message = f"anchor {anchor.index} written outside is not the one stored: two histories"
                report.problems.append(Problem(anchor.origin, anchor.index, "anchor", message))
                return
        else:
            problem = check_covered(anchor, roots, skip)
            if problem is not None:
                report.problems.append(problem)
                return
        report.outside_anchors += 1


def _read_origins(client: Client, deployment: str) -> tuple[list[StoredOrigin], list[Problem]]:
    """Return the logs and what is wrong with their list."""
    table = client.query_arrow(
        "SELECT origin, topic_id, first_offset, previous_size, previous_root, genesis_hash FROM origins ORDER BY origin",
        settings=ARROW,
    )
    sizes = {
        row[0]: int(row[1])
        for row in client.query("SELECT origin, max(index) + 1 FROM entries GROUP BY origin").result_rows
    }
    logs: list[StoredOrigin] = []
    problems = []
    for row in table.to_pylist():
        origin = row["origin"].decode("utf-8", "replace")
        if any(log.genesis.origin == origin for log in logs):
            problems.append(Problem(origin, None, "genesis", "the log stands in origins more than once"))
            continue
        genesis = Genesis(origin, row["topic_id"], row["first_offset"], row["previous_size"], row["previous_root"])
        if genesis.hash() != row["genesis_hash"]:
            problems.append(Problem(origin, None, "genesis", "the genesis hash is not that of the row in origins"))
        logs.append(StoredOrigin(genesis, sizes.pop(origin, 0)))
    for origin in sizes:
        problems.append(Problem(origin, 0, "origin", "entries are stored of a log that origins does not have"))
    if deployment:
        for log in logs:
            if not log.genesis.origin.startswith(deployment + "/"):
                problems.append(
                    Problem(log.genesis.origin, None, "origin", f"the log is not of deployment {deployment}")
                )
    return logs, problems


def _catalog(client: Client, deployment: str, report: Report) -> SchemaCatalog:
    prefix = f"{deployment}/{FINDINGS_TOPIC}/0/"
    try:
        return read_catalog(client, prefix)
    except SchemaConflictError as error:
        report.problems.append(Problem(prefix, None, "schema", str(error)))
        return SchemaCatalog()


def _erasures(client: Client, deployment: str) -> dict[str, frozenset[int]]:
    """Return the indices whose erasure is on record, by origin; the subject of the event names them."""
    rows = client.query(
        "SELECT subject_id FROM entries WHERE startsWith(origin, {p:String}) AND event_type = 'payload.erased'",
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
    global _catalog_here
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
    catalog: SchemaCatalog,
    erasures: Mapping[str, frozenset[int]],
    pool: Executor,
) -> Iterator[CheckedChunk]:
    """Yield the checked chunks of every log in order; a few are under way at a time, so memory stays flat."""
    del catalog
    waiting: deque[Future[CheckedChunk]] = deque()
    for log in logs:
        for first in range(0, log.size, CHUNK):
            origin = log.genesis.origin
            task = ChunkTask(origin, first, min(CHUNK, log.size - first), erasures.get(origin, frozenset()))
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


def verify_kafka(
    options: Mapping[str, Any],
    public_key: bytes,
    *,
    anchor_file: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Check everything that the sealed topics and the anchor topic hold.

    Raises:
        KafkaUnavailableError: the brokers do not answer.
    """
    started = time.monotonic()
    report = Report("kafka")
    admin = AdminClient(dict(options))
    anchors = [decode_anchor(m.value() or b"") for m in _whole(options, admin, ANCHORS_TOPIC, 0)]
    outside = list(read_anchor_file(anchor_file)) if anchor_file is not None else []
    verifiers: dict[str, OriginVerifier] = {}
    for topic, identity in kafka.identify_topics(admin, SEALED_TOPICS).items():
        for partition in range(identity.partitions):
            for message in _whole(options, admin, topic, partition):
                _add_batch(message.value() or b"", f"{topic}/{partition}", verifiers, public_key, report)
                on_progress(report.entries, 0)
    _conclude(report, verifiers)
    _check_anchors(report, anchors, outside, public_key, verifiers)
    report.seconds = time.monotonic() - started
    return report


def _whole(options: Mapping[str, Any], admin: AdminClient, topic: str, partition: int) -> Iterator[Any]:
    begin, end = kafka.first_offset(admin, topic, partition), kafka.end_offset(admin, topic, partition)
    return kafka.read_range(options, topic, partition, begin, end)


def _add_batch(
    value: bytes, where: str, verifiers: dict[str, OriginVerifier], public_key: bytes, report: Report
) -> None:
    try:
        batch = batches.decode(value)
        batch.head(public_key)
        records = batch.records()
    except BatchError as error:
        report.problems.append(Problem(where, None, "batch", str(error)))
        return
    verifier = verifiers.setdefault(batch.origin, OriginVerifier(batch.genesis, public_key))
    if verifier.problem is not None:
        return
    if batch.genesis != verifier.genesis:
        verifier.problem = Problem(batch.origin, batch.first_index, "genesis", "the batch names another genesis")
        return
    if batch.count == 0:
        if batch.size != verifier.frontier.size or batch.frontier != verifier.frontier.pack():
            verifier.problem = Problem(batch.origin, batch.size, "checkpoint", "the restated head is not the head")
        return
    checked = check_chunk(
        Chunk(
            origin=batch.origin,
            first_index=batch.first_index,
            indices=range(batch.first_index, batch.size),
            flags=records.flags,
            offsets=records.offsets,
            append_times=records.append_times,
            keys=records.keys,
            values=records.values,
            headers=records.headers,
            payload_hashes=batch.payload_hashes,
            previous_leaf_hashes=batch.previous_leaf_hash + batch.leaf_hashes[:-32],
            leaf_hashes=batch.leaf_hashes,
            sealed_at=[batches.micros_of(batch.sealed_at)] * batch.count,
            notes=((batch.count - 1, batch.note),),
        ),
        batch.count,
        base=verifier.frontier,
    )
    verifier.add(checked)
    report.entries += checked.count
