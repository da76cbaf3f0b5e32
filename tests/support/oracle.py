"""Invariants that hold after any fault, checked with a plain consumer, plain SQL and the verifier."""

from __future__ import annotations

import hashlib
import struct
from collections import defaultdict
from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaError

from grantledger.kafka.cluster import Cluster
from grantledger.schemas.topics import INPUT_TOPICS

from .fork_server import STATELESS
from .load import Sent
from .pipeline import Pipeline
from .waiting import wait_for

Row = tuple[int, str | None, str | None]
"""Offset, key and value in hex."""


def committed_records(cluster: Cluster, topics: Iterable[str]) -> dict[tuple[str, int], list[Row]]:
    """Return all committed records of topics."""
    consumer = Consumer(
        {
            **cluster.options, "group.id": "oracle", "isolation.level": "read_committed",
            "enable.auto.commit": False, "enable.partition.eof": True, "auto.offset.reset": "earliest", "log_level": 0,
        }
    )  # fmt: skip
    metadata = consumer.list_topics(timeout=30).topics
    partitions = [
        cluster.partition(topic, p, 0) for topic in topics for p in metadata[cluster.physical(topic)].partitions
    ]
    found: dict[tuple[str, int], list[Row]] = {(cluster.logical(p.topic), p.partition): [] for p in partitions}
    consumer.assign(partitions)
    open_ones = set(found)
    while open_ones:
        for message in consumer.consume(1000, 1.0):
            where = (cluster.logical(message.topic()), message.partition() or 0)
            error = message.error()
            if error is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error.str()
                open_ones.discard(where)
            else:
                found[where].append((message.offset() or 0, _hex(message.key()), _hex(message.value())))
    consumer.close()
    return found


def _hex(data: object) -> str | None:
    return data.hex() if isinstance(data, bytes) else None


def wait_until_stored(pipeline: Pipeline, limit: float = 120.0, *, watch: bool = False, shown: bool = False) -> int:
    """Wait until ClickHouse holds as many entries as Kafka has committed records; return how many.

    The pipeline may itself add findings meanwhile, so both sides are asked each time.

    Args:
        watch: restart processes that end meanwhile, as the supervisor does.
        shown: wait also until the views of grants and findings contain them.
    """

    counted = -1.0

    def stored() -> int:
        nonlocal counted
        store = pipeline.children["store"]
        if watch:
            pipeline.restart_failed()
        elif not store.alive():
            raise AssertionError(f"the store ended with {store.exit_code}: {store.last_error()}")
        before, counted = counted, pipeline.metric("store", "grantledger_stored_log_size_entries")
        if counted == 0 or counted != before:  # not started, or still storing: counting the records is expensive
            return 0
        wanted = sum(map(len, committed_records(pipeline.cluster, INPUT_TOPICS).values()))
        return wanted if counted >= wanted else 0

    entries = wait_for(stored, "everything committed is stored", limit=limit, pause=0.3)
    if shown:
        pipeline.wait_shown()
    return entries


def assert_exactly_once(pipeline: Pipeline, sent: Iterable[Sent] = (), *, verified: bool = True) -> int:
    """Compare the input topics with ``entries`` row by row, and verify ClickHouse and Kafka if ``verified``.

    Returns:
        The number of entries.
    """
    inputs = committed_records(pipeline.cluster, INPUT_TOPICS)
    _assert_acknowledged(inputs, sent)
    stored: dict[tuple[str, int], list[Row]] = defaultdict(list)
    indices: dict[tuple[str, int], list[int]] = defaultdict(list)
    rows = pipeline.query(
        "SELECT origin, toUInt32(index) AS i, toUInt32(offset) AS o, isNull(key) AS no_key, isNull(value) AS no_value, "
        "hex(ifNull(key, '')) AS k, hex(ifNull(value, '')) AS v FROM entries ORDER BY origin, index, offset"
    )
    for row in rows:
        _deployment, topic, partition, _epoch = row["origin"].split("/")
        where = (topic, int(partition))
        key = None if row["no_key"] else row["k"].lower()
        value = None if row["no_value"] else row["v"].lower()
        stored[where].append((row["o"], key, value))
        indices[where].append(row["i"])
    for where, records in inputs.items():
        assert indices[where] == list(range(len(records))), f"{where}: indices are not dense"
        assert stored[where] == records, f"{where}: {_difference(records, stored[where])}"
    assert sum(map(len, stored.values())) == sum(map(len, inputs.values())), "entries of no input record"
    if verified:
        assert_sound(pipeline)
    return len(rows)


def _assert_acknowledged(inputs: dict[tuple[str, int], list[Row]], sent: Iterable[Sent]) -> None:
    by_offset = {where: {row[0]: row for row in records} for where, records in inputs.items()}
    for record in sent:
        found = by_offset[record.topic, record.partition].get(record.offset)
        assert found is not None, f"lost although acknowledged: {record}"
        assert (found[1] or None, found[2] or None) == (_hex(record.key), _hex(record.value)), f"changed: {record}"


def _difference(wanted: list[Row], found: list[Row]) -> str:
    missing = sorted({row[0] for row in wanted} - {row[0] for row in found})
    extra = sorted({row[0] for row in found} - {row[0] for row in wanted})
    doubled = len(found) - len({row[0] for row in found})
    return f"{len(missing)} lost (first {missing[:3]}), {len(extra)} invented (first {extra[:3]}), {doubled} duplicated"


def assert_sound(pipeline: Pipeline) -> None:
    """Both verifications succeed with the same heads: ClickHouse and Kafka store one history."""
    heads = []
    states = () if STATELESS in pipeline.environment else ("--states",)
    for source in ("clickhouse", "kafka"):
        code, report = pipeline.verify("--from", source, *states)
        assert code in (0, 4), (source, report["problems"], report["unchecked"])  # 4: there may be no anchor yet
        assert report["sound"] and report["problems"] == []
        heads.append({origin: tuple(head) for origin, head in report["heads"].items() if head[0]})
    assert heads[0] == heads[1], f"the heads differ between ClickHouse and Kafka: {heads[0].items() ^ heads[1].items()}"
    for (topic, partition), records in committed_records(pipeline.cluster, INPUT_TOPICS).items():
        size, _root = heads[0].get(pipeline.origin(topic, partition), (0, ""))
        assert size == len(records)


def chain_by_hand(pipeline: Pipeline, topic: str, partition: int) -> str:
    """Recompute the last leaf hash of a log from its input records and its genesis (docs/ledger.md, "Entries").

    This is an independent implementation that shares no code with ``ledger``.
    """
    [genesis] = pipeline.query(
        f"SELECT hex(genesis_hash) AS g FROM origins WHERE origin = '{pipeline.origin(topic, partition)}'"
    )
    rows = pipeline.query(
        "SELECT flags, toUInt32(offset) AS o, toInt64(toUnixTimestamp64Milli(append_time)) AS t, isNull(key) AS nk, "
        "isNull(value) AS nv, hex(ifNull(key, '')) AS k, hex(ifNull(value, '')) AS v, hex(headers) AS h FROM entries "
        f"WHERE origin = '{pipeline.origin(topic, partition)}' ORDER BY index"
    )
    leaf = bytes.fromhex(genesis["g"])

    def blob(data: bytes | None) -> bytes:
        return b"\xff\xff\xff\xff" if data is None else struct.pack(">I", len(data)) + data

    for row in rows:
        key = None if row["nk"] else bytes.fromhex(row["k"])
        value = None if row["nv"] else bytes.fromhex(row["v"])
        payload = hashlib.sha256(b"GLP1" + blob(key) + blob(value) + bytes.fromhex(row["h"])).digest()
        data = b"GLE1" + struct.pack(">B32sQq32s", row["flags"], leaf, row["o"], int(row["t"]), payload)
        leaf = hashlib.sha256(b"\x00" + data).digest()
    return leaf.hex()
