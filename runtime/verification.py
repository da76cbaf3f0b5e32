"""Verification end to end: rows out of ClickHouse or batches out of Kafka, through the verifier, to a report."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
from clickhouse_connect.driver.client import Client
from confluent_kafka.admin import AdminClient

from ..ledger import batch as batches
from ..ledger.anchor import Anchor, AnchorError, anchor_origin, check_anchor, decode_anchor
from ..ledger.batch import BatchError
from ..ledger.entry import Genesis
from ..ledger.note import Checkpoint, NoteError
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
    outside_only: int = 0
    """Anchors written outside that the store does not have (yet): it gets an anchor last of all."""
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
    """One log as ClickHouse has it: what its genesis binds, its entries by the highest index, and its rows."""

    genesis: Genesis
    size: int
    rows: int


class VerificationError(Exception):
    """The verification could not be carried out; nothing is said about the ledger."""


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
    _conclude(report, verifiers)
    _check_anchors(report, anchors, outside, public_key, verifiers, origin=anchor_origin(deployment))
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
    report: Report,
    anchors: list[Anchor],
    outside: list[Anchor],
    key: bytes,
    verifiers: dict[str, OriginVerifier],
    *,
    origin: str,
    complete: bool = False,
) -> None:
    """Check the anchors here, then that those outside say the same.

    Args:
        origin: name of the anchor log.
        complete: every anchor outside must be here as well.
    """
    roots = {log: verifier.roots for log, verifier in verifiers.items()}
    skip = frozenset(log for log, verifier in verifiers.items() if verifier.problem is not None)
    report.anchors, problem = verify_anchors(anchors, key, roots, skip, origin)
    if problem is not None:
        report.problems.append(problem)
    inside = {anchor.index: anchor for anchor in anchors if anchor.origin == origin}
    for anchor in outside:
        known = inside.get(anchor.index)
        problem = _check_outside(anchor, known, origin, key) or check_covered(anchor, roots, skip)
        if problem is None and known is None and complete:
            message = f"anchor {anchor.index}, which was written outside, is missing"
            problem = Problem(origin, anchor.index, "anchor_index", message)
        if problem is not None:
            if problem not in report.problems:
                report.problems.append(problem)
            return
        report.outside_anchors += 1
        report.outside_only += known is None


def _check_outside(anchor: Anchor, known: Anchor | None, origin: str, key: bytes) -> Problem | None:
    try:
        check_anchor(anchor, key)
    except AnchorError as error:
        return Problem(origin, anchor.index, "outside_anchor", f"in the file written outside, {error}")
    if anchor.origin != origin:
        return Problem(origin, anchor.index, "outside_anchor", f"the anchor written outside is one of {anchor.origin}")
    if known is not None and known != anchor:
        message = f"anchor {anchor.index} written outside is not the one here: two histories"
        return Problem(origin, anchor.index, "anchor", message)
    return None


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
    admin = AdminClient(dict(options))
    # What is outside was in Kafka before, and what an anchor covers before the anchor: so this order.
    outside = list(read_anchor_file(anchor_file)) if anchor_file is not None else []
    anchors = list(_whole(options, admin, ANCHORS_TOPIC, 0))
    partitions = [
        (topic, partition)
        for topic, identity in kafka.identify_topics(admin, SEALED_TOPICS).items()
        for partition in range(identity.partitions)
    ]
    batches_found = (found for partition in partitions for found in _whole(options, admin, *partition))
    report = verify_records(batches_found, anchors, public_key, outside=outside, on_progress=on_progress)
    report.seconds = time.monotonic() - started
    return report


KafkaRecord = tuple[str, bytes]
"""Where a record stands, as ``<topic>/<partition> offset <offset>``, and its value."""


def verify_records(
    sealed: Iterable[KafkaRecord],
    anchors: Iterable[KafkaRecord],
    public_key: bytes,
    *,
    outside: list[Anchor],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Check sealed batches and anchors as they came out of Kafka."""
    report = Report("kafka")
    verifiers: dict[str, OriginVerifier] = {}
    for where, value in sealed:
        _add_batch(where, value, verifiers, public_key, report)
        on_progress(report.entries, 0)
    _conclude(report, verifiers)
    read = []
    for where, value in anchors:
        try:
            read.append(decode_anchor(value))
        except AnchorError as error:
            report.problems.append(Problem(where, None, "anchor", str(error)))
    name = next((anchor.origin for anchor in read + outside), "")
    _check_anchors(report, read, outside, public_key, verifiers, origin=name, complete=True)
    return report


def _whole(options: Mapping[str, Any], admin: AdminClient, topic: str, partition: int) -> Iterator[KafkaRecord]:
    begin, end = kafka.first_offset(admin, topic, partition), kafka.end_offset(admin, topic, partition)
    for message in kafka.read_range(options, topic, partition, begin, end):
        yield f"{topic}/{partition} offset {message.offset()}", message.value() or b""


def _add_batch(
    where: str, value: bytes, verifiers: dict[str, OriginVerifier], public_key: bytes, report: Report
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
        head = (verifier.frontier.size, verifier.frontier.pack(), verifier.last_leaf)
        if (batch.size, batch.frontier, batch.previous_leaf_hash) != head:
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
