"""Verification of the sealed topics and the anchor topic, batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient

from ..kafka import brokers as kafka
from ..ledger import batch as batches
from ..ledger.anchor import Anchor, AnchorError, decode_anchor
from ..ledger.batch import BatchError
from ..schemas.topics import ANCHORS_TOPIC, SEALED_TOPICS
from ..sinks.file_target import read_anchor_file
from .logs import Chunk, OriginVerifier, Problem, check_chunk
from .report import Report, check_anchors, conclude


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
    conclude(report, verifiers)
    read = []
    for where, value in anchors:
        try:
            read.append(decode_anchor(value))
        except AnchorError as error:
            report.problems.append(Problem(where, None, "anchor", str(error)))
    name = next((anchor.origin for anchor in read + outside), "")
    check_anchors(report, read, outside, public_key, verifiers, origin=name, complete=True)
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
