"""Events, and records that are not events."""

from __future__ import annotations

import ctypes
import io
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import confluent_kafka
import fastavro
import pytest
from confluent_kafka import Producer

from grantledger.kafka.cluster import Cluster
from grantledger.producers import Action, Actor, Approval, Event, EventSource, Resource, Subject
from grantledger.schemas.catalog import event_schema

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def event(event_type: str, number: int, **fields: Any) -> Event:
    """Return an event with every field that its type may have; each number gives a different event."""
    given: dict[str, Any] = {
        "event_type": event_type,
        "occurred_at": NOON + timedelta(seconds=number),
        "source": EventSource("bot", "eu-1", f"{event_type}-{number}", "record", seq=number),
        "subject": Subject(f"alice-{number}", "human", "alice@example.com"),
        "actor": Actor("bob", "human"),
        "tenant": "blue",
        "resource": Resource("database", "orders", "production"),
        "entitlement": "readwrite",
        "grant_id": f"grant-{number}",
        "grant_id_kind": "native",
        "request_id": f"request-{number}",
        "session_id": f"session-{number}",
        "approvals": (
            Approval("carol", "approved", "owners", NOON, "because", forced=True),
            Approval("dave", "pending"),
        ),
        "starts_at": NOON,
        "expires_at": NOON + timedelta(hours=1),
        "requested_seconds": 3600,
        "expiry_source": "native",
        "removal_evidence": "none",
        "reason": "incident",
        "ticket": "INC-1",
        "outcome": "success",
        "error": "none",
        "client_ip": "192.0.2.1",
        "action": Action("psql", ("-c", "select 1"), "select 1", 0, redacted=True, truncated=True),
        "raw": b'{"n": %d}' % number,
    }
    return Event(**(given | fields))


@cache
def _parsed(schema: str) -> Any:
    return fastavro.parse_schema(json.loads(schema))


def written(datum: Any, schema: Any, prefix: bytes) -> bytes:
    """Return a datum as a framed value with any prefix."""
    out = io.BytesIO()
    out.write(prefix)
    fastavro.schemaless_writer(out, _parsed(json.dumps(schema)), datum)
    return out.getvalue()


def read_datum(value: bytes) -> dict[str, Any]:
    """Return the datum of a value in single-object encoding."""
    schema = event_schema()
    datum: Any = fastavro.schemaless_reader(io.BytesIO(value[len(schema.prefix) :]), _parsed(schema.text), None)
    result: dict[str, Any] = datum
    return result


def produce(cluster: Cluster, topic: str, records: Iterable[dict[str, Any]]) -> int:
    """Append records to a topic without the client library, which would reject them; return how many."""
    producer = Producer({**cluster.options, "enable.idempotence": True, "queue.buffering.max.messages": 1_000_000})
    name, failures = cluster.physical(topic), list[str]()
    count = 0
    for record in records:
        producer.produce(name, **record, on_delivery=lambda error, _: failures.append(str(error)) if error else None)
        producer.poll(0)
        count += 1
    producer.flush(60.0)
    assert not failures, failures[:3]
    return count


def produce_raw_header(servers: str, topic: str, name: bytes, value: bytes, key: bytes) -> None:
    """Produce one record with any bytes as header name, which only librdkafka itself can do."""
    folder = Path(confluent_kafka.__file__).parent
    found = sorted(folder.with_name(f"{folder.name}.libs").glob("librdkafka*.so*"))
    if not found:
        pytest.skip("confluent-kafka was not installed from a wheel: librdkafka is elsewhere")
    library = ctypes.CDLL(str(found[0]))
    for function in ("conf_new", "new", "topic_new", "headers_new"):
        getattr(library, f"rd_kafka_{function}").restype = ctypes.c_void_p
    problem = ctypes.create_string_buffer(512)
    conf = ctypes.c_void_p(library.rd_kafka_conf_new())
    library.rd_kafka_conf_set(conf, b"bootstrap.servers", servers.encode(), problem, ctypes.c_size_t(512))
    producer = ctypes.c_void_p(library.rd_kafka_new(0, conf, problem, ctypes.c_size_t(512)))
    handle = ctypes.c_void_p(library.rd_kafka_topic_new(producer, topic.encode(), None))
    headers = ctypes.c_void_p(library.rd_kafka_headers_new(ctypes.c_size_t(1)))
    library.rd_kafka_header_add(headers, name, ctypes.c_ssize_t(len(name)), b"v", ctypes.c_ssize_t(1))
    # enum rd_kafka_vtype_t of rdkafka.h: 0 END, 2 RKT, 4 VALUE, 5 KEY, 10 HEADERS
    tags = {kind: ctypes.c_int(kind) for kind in (0, 2, 4, 5, 10)}
    error = library.rd_kafka_producev(
        producer, tags[2], handle, tags[4], value, ctypes.c_size_t(len(value)), tags[5], key, ctypes.c_size_t(len(key)),
        tags[10], headers, tags[0],
    )  # fmt: skip
    assert error == 0
    assert library.rd_kafka_flush(producer, 30_000) == 0
    library.rd_kafka_topic_destroy(handle)
    library.rd_kafka_destroy(producer)
