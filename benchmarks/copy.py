"""The baseline: a plain copy from Kafka to ClickHouse. The same clients, decoding and inserts; nothing is sealed.

Run as a process of its own: ``python -m benchmarks.copy BOOTSTRAP FOLDER EVENTS``; prints one JSON line.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition

from grantledger.kafka.cluster import Cluster
from grantledger.kafka.options import reader_options
from grantledger.schemas.arrow import DECODED_SCHEMA, MICROS, decode_values
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.event import ACTIVITY_TOPIC
from grantledger.schemas.evidence import EVIDENCE_SCHEMA, HASH, MILLIS
from grantledger.sinks.arrow_insert import insert_rows
from grantledger.sinks.clickhouse import StoreAddress, connect, private_temp
from grantledger.sinks.evidence import SYNCHRONOUS
from grantledger.sinks.migrate import migrate
from grantledger.sinks.rows import needed_columns

BLOCK = 20_000
"""Rows of an insert: about what the pipeline inserts at a time under this load, two batches of 4 MiB."""


def main() -> None:
    """Copy every partition's events."""
    servers, folder, events = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    private_temp(folder)
    client = connect(StoreAddress(folder))
    migrate(client)
    consumer = Consumer(reader_options(Cluster({"bootstrap.servers": servers}), "benchmark-copy"))
    partitions = sorted(consumer.list_topics(ACTIVITY_TOPIC, 30).topics[ACTIVITY_TOPIC].partitions)
    catalog = SchemaCatalog((event_schema(),))
    consumer.assign([TopicPartition(ACTIVITY_TOPIC, partition, 0) for partition in partitions])
    held: dict[int, list] = {partition: [] for partition in partitions}
    stored = dict.fromkeys(partitions, 0)
    done = first = 0
    started = cpu_before = 0.0
    worker = ThreadPoolExecutor(1)
    under_way: Future | None = None
    while done < events:
        for message in consumer.consume(1000, 0.5):
            held[message.partition()].append(message)
        taken = sum(map(len, held.values())) + done
        for partition in partitions:
            while len(held[partition]) >= BLOCK or (held[partition] and taken >= events):
                block, held[partition] = held[partition][:BLOCK], held[partition][BLOCK:]
                table = _table(partition, stored[partition], block, catalog)
                if under_way is not None:
                    under_way.result()
                    if not first:  # start the clock when events flow, as for the pipeline
                        first, started, cpu_before = done, time.monotonic(), _cpu()
                token = f"{partition}:{stored[partition]}"
                settings = SYNCHRONOUS | {"insert_deduplication_token": token}
                under_way = worker.submit(insert_rows, client, "entries", table, settings)
                stored[partition] += len(block)
                done += len(block)
    if under_way is not None:
        under_way.result()
    seconds = time.monotonic() - started
    rows = int(client.query("SELECT count() FROM entries").result_rows[0][0])
    if rows != events:
        raise RuntimeError(f"{rows} rows instead of {events}")
    print(json.dumps({"events": events - first, "seconds": seconds, "cpu_seconds": _cpu() - cpu_before}), flush=True)
    worker.shutdown()
    consumer.close()
    client.close()


def _table(partition: int, first: int, block: list, catalog: SchemaCatalog) -> pa.Table:
    count = len(block)
    values = pa.array([message.value() for message in block], pa.binary())
    times = [message.timestamp()[1] for message in block]
    decoded = decode_values(values, times, catalog)
    zeros = pa.Array.from_buffers(HASH, count, [None, pa.py_buffer(bytes(32 * count))])
    evidence = [
        pa.repeat(pa.scalar(f"copy/{ACTIVITY_TOPIC}/{partition}/0"), count),
        pa.array(np.arange(first, first + count, dtype=np.uint64)),
        pa.array([message.offset() for message in block], pa.uint64()),
        pa.array(times, pa.int64()).cast(MILLIS),
        pa.array(np.ones(count, dtype=np.uint8)),
        zeros,
        zeros,
        zeros,
        pa.array([message.key() for message in block], pa.binary()),
        values,
        pa.repeat(pa.scalar(b"\0\0\0\0", pa.binary()), count),
        pa.repeat(pa.scalar(datetime.now(UTC), MICROS), count),
        pa.repeat(pa.scalar(""), count),
        pa.nulls(count, MICROS),
    ]
    table = pa.table(evidence + decoded.columns, names=EVIDENCE_SCHEMA.names + DECODED_SCHEMA.names)
    needed = needed_columns(table)
    return table.select([name for name in table.schema.names if name in needed])


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
