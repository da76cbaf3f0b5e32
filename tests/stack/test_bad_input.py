"""Records that are not events: they are sealed, stored and shown with a reason, and affect no event."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from grantledger.kafka.cluster import Cluster
from grantledger.ledger.anchor import Receipt, encode_receipt
from grantledger.ledger.entry import encode_headers
from grantledger.processors.notices import schema_key, schema_registered
from grantledger.processors.seal import UNREADABLE_HEADERS
from grantledger.producers import Event
from grantledger.schemas.catalog import WriterSchema, event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.framing import confluent_prefix
from support.events import NOON, event, produce, produce_raw_header, read_datum, written
from support.pipeline import WITHOUT_STATES, Pipeline, samples
from support.shared_broker import RunningBroker
from support.waiting import wait_for

SCHEMA = event_schema()
ENCODER = EventEncoder()
TOPICS = ("access.lifecycle", "access.activity")
LATER_ID = 4711
"""Registry id of a schema that is registered only after the first values with it."""


TYPE_IN = {"access.lifecycle": "grant.activated", "access.activity": "session.command"}
"""A type that is valid in a topic."""


def good(number: int, **fields: Any) -> bytes:
    return ENCODER.encode(event("grant.activated", number, **fields))


def valid_in(topic: str, value: bytes | None) -> bytes | None:
    """Return a value with the type that is valid in a topic; both types are equally long."""
    return value and value.replace(b"grant.activated", TYPE_IN[topic].encode())


def datum_of(number: int, **fields: Any) -> bytes:
    """Return an event that our client would not write, with fields as plain Avro values."""
    return written(read_datum(good(number)) | fields, SCHEMA.definition, SCHEMA.prefix)


def with_bad_text() -> bytes:
    """Return an event whose reason is not UTF-8."""
    return good(1, reason="XXXXXXXX").replace(b"XXXXXXXX", b"\xff\xfe\xfd\xfc\xc3\x28\x80\x80")


FINDING = {
    "rule": "overdue",
    "key": "g",
    "severity": "critical",
    "deadline": None,
    "evidence": "{}",
    "accept_index": None,
}
BAD: dict[str, tuple[bytes | None, str]] = {
    "text": (b"no event at all", "framing_unknown"),
    "json": (b'{"event_type":"grant.activated"}', "framing_unknown"),
    "empty": (b"", "framing_empty"),
    "null": (None, "value_null"),
    "cut-prefix": (SCHEMA.prefix[:5], "framing_truncated"),
    "cut-id": (b"\x00\x00\x01", "framing_truncated"),
    "unknown-schema": (b"\xc3\x01" + b"\x55" * 8 + good(1)[10:], "schema_unknown"),
    "unknown-id": (confluent_prefix(99) + good(1)[10:], "schema_unknown"),
    "no-datum": (bytes(SCHEMA.prefix), "datum_invalid"),
    "cut-datum": (good(1)[:-20], "datum_invalid"),
    "other-type": (
        bytes(SCHEMA.prefix) + encode_receipt(Receipt("a/anchors/0/0", 1, "file", NOON, b"r"))[10:],
        "datum_invalid",
    ),
    "large": (b"x" * 900_000, "framing_unknown"),
    "large-datum": (bytes(SCHEMA.prefix) + b"\xfe" * 900_000, "datum_invalid"),
    "huge-length": (bytes(SCHEMA.prefix) + b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01" + b"x" * 50, "datum_invalid"),
    "negative-length": (bytes(SCHEMA.prefix) + b"\x03" + b"x" * 50, "datum_invalid"),
}
"""By record key: the value, and the code of its rejection."""

YEAR = 31_556_952_000_000
ODD: dict[str, bytes] = {
    "zero-bytes": datum_of(1, reason="a\0b", subject={"id": "\0", "kind": "human", "email": None}),
    "large-event": good(1, raw=bytes(900_000)),
    "bad-text": with_bad_text(),
    "bytes-after-it": good(1) + b"\x00and more",
}
"""Strange values that are events by the schema."""
INVALID: dict[str, tuple[bytes, str]] = {
    "million-years": (
        datum_of(1, occurred_at=290_000 * YEAR, expires_at=290_000 * YEAR, starts_at=-290_000 * YEAR),
        "occurred_at",
    ),
    "long-ago": (datum_of(1, occurred_at=-(2**63), expires_at=-(2**63)), "occurred_at"),
    "end-of-time": (
        datum_of(1, occurred_at=2**63 - 1, expires_at=2**63 - 1, starts_at=2**63 - 1),
        "occurred_at",
    ),
    "year-10000": (datum_of(1, expires_at=8040 * YEAR), "expires_at"),
    "unknown-type": (datum_of(1, event_type="coffee.brewed"), "event_type"),
    "unknown-outcome": (datum_of(1, outcome="perhaps"), "outcome"),
    "numbers": (datum_of(1, requested_seconds=-(2**63)), "requested_seconds"),
    "no-ids": (datum_of(1, grant_id=None, request_id=None, session_id=None, approvals=[]), "grant_id"),
    "finding.resolved": (datum_of(1, event_type="finding.resolved", finding=FINDING), "event_type"),
    "revoke.confirmed": (datum_of(1, event_type="revoke.confirmed", finding=FINDING), "event_type"),
    "query.executed": (datum_of(1, event_type="query.executed"), "event_type"),
    "wrong-topic": (datum_of(1, event_type="session.command", session_id="s"), "event_type"),
}
"""Values that the schema allows and a rule forbids, each with the wrong field. They are sent to access.lifecycle."""


@dataclass
class Sent:
    """The records sent to the topics, without the pipeline's own findings."""

    pipeline: Pipeline
    entries: int = 0
    good: list[str] = field(default_factory=list)
    bad: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Rejected entries by topic and code."""

    def add(self, topic: str, records: Sequence[dict[str, Any]]) -> None:
        self.entries += produce(self.pipeline.cluster, topic, records)

    def good_events(self, topic: str, tag: str, count: int = 1) -> list[dict[str, Any]]:
        """Return events to send around bad records."""
        keys = [f"good-{tag}-{topic}-{number}" for number in range(count)]
        self.good += keys
        return [{"key": key.encode(), "value": valid_in(topic, good(number))} for number, key in enumerate(keys)]

    def settle(self) -> None:
        self.pipeline.wait_stored(self.entries, limit=180.0)

    def rejected(self) -> Counter[tuple[str, str]]:
        """Return the store's count of rejected entries, by topic and code."""
        found: Counter[tuple[str, str]] = Counter()
        for (name, labels), value in samples(self.pipeline.children["store"]).items():
            if name == "grantledger_rejected_entries_total":
                parts = dict(part.split("=") for part in labels.split(","))
                found[parts["topic"], parts["code"]] = int(value)
        return found


@pytest.fixture(scope="module")
def sent(broker: RunningBroker, make_pipeline: Callable[..., Pipeline]) -> Sent:
    """All bad values in both topics, each between two good events, stored when the tests begin."""
    pipeline = make_pipeline(broker.bootstrap_servers, WITHOUT_STATES)
    pipeline.start()
    everything = Sent(pipeline)
    for topic in TOPICS:
        records = everything.good_events(topic, "first", 8)
        for name, (value, code) in BAD.items():
            records.append({"key": name.encode(), "value": valid_in(topic, value)})
            records += everything.good_events(topic, f"after-{name}")
            everything.bad[topic, code] += 1
        for name, value in ODD.items():
            records.append({"key": name.encode(), "value": valid_in(topic, value)})
            records += everything.good_events(topic, f"after-{name}")
        everything.add(topic, records)
    for name, (value, _) in INVALID.items():
        everything.add("access.lifecycle", [{"key": name.encode(), "value": value}])
        everything.bad["access.lifecycle", "event_invalid"] += 1
    everything.settle()
    return everything


@pytest.fixture(scope="module")
def stored(sent: Sent) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of the first records, by topic and key."""
    found = sent.pipeline.query(
        "SELECT splitByChar('/', origin)[2] AS topic, key, decode_error, event_type, event_id, length(value) AS size, "
        "isNull(value) AS none, toString(flags) AS flags FROM entries WHERE topic != 'access.findings'"
    )
    return {(row["topic"], row["key"]): row for row in found}


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_is_stored_with_its_error(
    stored: dict[tuple[str, str], dict[str, Any]], topic: str, name: str
) -> None:
    value, code = BAD[name]
    row = stored[topic, name]
    assert row["decode_error"].partition(":")[0] == code, row["decode_error"]
    assert row["event_type"] == "" and row["event_id"] == ""
    assert int(row["size"] or 0) == len(value or b"") and bool(int(row["none"])) is (value is None)


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("name", ODD)
def test_values_that_the_schema_allows_are_events(
    stored: dict[tuple[str, str], dict[str, Any]], topic: str, name: str
) -> None:
    row = stored[topic, name]
    assert row["decode_error"] == "" and row["event_type"] == TYPE_IN[topic]


@pytest.mark.parametrize("name", INVALID)
def test_values_that_a_rule_forbids_are_rejected_with_the_field(
    sent: Sent, stored: dict[tuple[str, str], dict[str, Any]], name: str
) -> None:
    """A finding or a confirmed revocation from a sender is no event, and no view of events shows it."""
    assert stored["access.lifecycle", name]["decode_error"] == f"event_invalid: {INVALID[name][1]}"


def test_good_records_are_events(sent: Sent, stored: dict[tuple[str, str], dict[str, Any]]) -> None:
    by_key = {key: row for (_, key), row in stored.items()}
    assert len(sent.good) >= 50
    for key in sent.good:
        assert by_key[key]["decode_error"] == "" and by_key[key]["event_type"] in TYPE_IN.values()


def test_bad_records_are_shown_and_counted(sent: Sent) -> None:
    shown = sent.pipeline.query(
        "SELECT splitByChar('/', origin)[2] AS topic, code, count() AS c, max(value_bytes) AS largest "
        "FROM rejected_events GROUP BY topic, code"
    )
    assert {(row["topic"], row["code"]): int(row["c"]) for row in shown} == dict(sent.bad)
    assert max(int(row["largest"]) for row in shown) > 900_000
    assert sent.rejected() == sent.bad
    events = sent.pipeline.query("SELECT count() AS c FROM events WHERE origin NOT LIKE '%findings%'")
    assert int(events[0]["c"]) == sent.entries - sum(sent.bad.values())


def test_the_ledger_is_sound(sent: Sent) -> None:
    for arguments in ((), ("--from", "kafka")):
        code, report = sent.pipeline.verify(*arguments)
        assert code == 0, report["problems"]
        assert report["entries"] >= sent.entries


def test_keys_and_headers_are_sealed_unchanged(sent: Sent) -> None:
    """Null differs from empty, names may repeat, and values may contain any byte."""
    headers: list[tuple[str, bytes | None]] = [
        ("trace", b"\x00\xff"), ("trace", b""), ("none", None), ("", b"x"), ("é\n", b"y" * 1000),
    ]  # fmt: skip
    records = [
        {"key": b"headers", "value": good(1), "headers": headers},
        {"key": None, "value": good(2), "headers": [("case", b"null key")]},
        {"key": b"", "value": good(3), "headers": [("case", b"empty key")]},
        {"key": b"\xff\xfe", "value": good(4), "headers": [("case", b"binary key")]},
        {"key": None, "value": None, "headers": [("case", b"nothing")]},
    ]
    sent.add("access.lifecycle", records)
    sent.bad["access.lifecycle", "value_null"] += 1
    sent.settle()
    found = sent.pipeline.query(
        "SELECT hex(key) AS key, isNull(key) AS none, hex(headers) AS h, event_type FROM entries "
        f"WHERE origin LIKE '%lifecycle%' AND headers != unhex('00000000') ORDER BY index LIMIT {len(records)}"
    )
    assert [row["h"].lower() for row in found] == [encode_headers(r["headers"]).hex() for r in records]
    assert [bool(int(row["none"])) for row in found] == [False, True, False, False, True]
    assert [row["key"] for row in found] == [b"headers".hex().upper(), None, "", "FFFE", None]
    assert [row["event_type"] for row in found] == ["grant.activated"] * 4 + [""]


def test_header_names_that_are_not_text(sent: Sent) -> None:
    """Kafka accepts them and our client library cannot read them: the record is sealed with a marker instead."""
    topic = sent.pipeline.cluster.physical("access.lifecycle")
    produce_raw_header(sent.pipeline.bootstrap_servers, topic, b"\xff\xfe", good(7), b"raw-header")
    sent.entries += 1
    sent.add("access.lifecycle", sent.good_events("access.lifecycle", "after-raw-header"))
    sent.settle()
    found = sent.pipeline.query("SELECT hex(headers) AS h, event_type FROM entries WHERE key = 'raw-header'")
    expected = encode_headers(UNREADABLE_HEADERS).hex().upper()
    assert found == [{"h": expected, "event_type": "grant.activated"}]


def test_a_highly_compressed_value(sent: Sent) -> None:
    """The size limit applies to the uncompressed value, and the sender gets the error."""
    options = {"compression.type": "zstd", "message.max.bytes": 1_000_000_000, "queue.buffering.max.kbytes": 1 << 20}
    noise = random.Random(3).randbytes(200_000)
    refused = []
    cluster = Cluster(sent.pipeline.options | options, sent.pipeline.cluster.topic_prefix)
    producer, topic = Producer(cluster.options), cluster.physical("access.lifecycle")
    for value in (bytes(40_000_000), noise * 100):
        producer.produce(topic, value, b"bomb", on_delivery=lambda error, _: refused.append(error))
        producer.flush(30)
    assert [error.code() for error in refused] == [KafkaError.MSG_SIZE_TOO_LARGE] * 2
    large = {
        "key": b"twentieth",
        "value": noise * 20,
    }  # as large as the topic accepts; zstd compresses it to a twentieth
    records = [large, *sent.good_events("access.lifecycle", "after-bomb")]
    sent.entries += produce(cluster, "access.lifecycle", records)
    sent.settle()
    found = sent.pipeline.query(
        "SELECT key, length(value) AS size, decode_error FROM entries WHERE key IN ('bomb', 'twentieth')"
    )
    assert [(row["key"], int(row["size"])) for row in found] == [("twentieth", 4_000_000)]
    sent.bad["access.lifecycle", found[0]["decode_error"].partition(":")[0]] += 1
    assert sent.rejected() == +sent.bad


@pytest.mark.parametrize("count", [8_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_flood_of_garbage(sent: Sent, count: int) -> None:
    """Noise, some of which looks like our framing, with an event here and there."""
    key = b"noise-%d" % count
    noise = random.Random(7)
    starts = [b"", b"\x00", b"\xc3\x01", bytes(SCHEMA.prefix), b"\x00\x00\x00\x12\x34"]

    def records() -> Iterator[dict[str, Any]]:
        for number in range(count):
            yield {
                "key": key,
                "value": noise.choice(starts) + noise.randbytes(noise.randrange(60)),
                "partition": number % 4,
            }
            if number % 1000 == 0:
                yield from sent.good_events("access.activity", f"noise-{count}-{number}")

    sent.entries += produce(sent.pipeline.cluster, "access.activity", records())
    sent.settle()
    found = sent.pipeline.query(
        "SELECT count() AS c, countIf(decode_error = '') AS events, uniqExact(index, origin) AS places FROM entries "
        f"WHERE origin LIKE '%activity%' AND key = '{key.decode()}'"
    )[0]
    assert int(found["c"]) == count == int(found["places"])
    assert int(found["events"]) < 10, "noise decodes as an event only by chance"
    events = sent.pipeline.query(
        f"SELECT count() AS c FROM entries WHERE key LIKE 'good-noise-{count}-%' AND decode_error = '' "
    )
    assert int(events[0]["c"]) == count // 1000
    shown = sent.pipeline.query(
        "SELECT splitByChar('/', origin)[2] AS topic, code, count() AS c FROM rejected_events GROUP BY topic, code"
    )
    sent.bad = Counter({(row["topic"], row["code"]): int(row["c"]) for row in shown})
    wait_for(lambda: sent.rejected() == sent.bad, "the metric counts the rows of the view")


@pytest.fixture
def sender_timed(sent: Sent) -> Iterator[None]:
    """The topic uses the senders' timestamps, as an operator may configure by mistake."""
    set_timestamp_type(sent.pipeline, "CreateTime")
    yield
    set_timestamp_type(sent.pipeline, "LogAppendTime")


def set_timestamp_type(pipeline: Pipeline, value: str) -> None:
    entry = ConfigEntry("message.timestamp.type", value, incremental_operation=AlterConfigOpType.SET)
    topic = pipeline.cluster.physical("access.activity")
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = pipeline.cluster.admin
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)
    described = ConfigResource(ResourceType.TOPIC, topic)

    def taken() -> bool:
        for future in admin.describe_configs([described]).values():
            return bool(future.result(30)["message.timestamp.type"].value == value)
        return False

    wait_for(taken, f"the topic has {value}")


@pytest.mark.usefixtures("sender_timed")
def test_timestamps_of_the_sender(sent: Sent) -> None:
    """They are sealed with a flag, and there is one finding per log."""
    times = [1, 1_000_000_000_000, int(datetime.now(UTC).timestamp() * 1000) - 5000]
    sent.add(
        "access.activity",
        [{"key": b"timed-%d" % t, "value": good(5), "timestamp": t, "partition": 2} for t in times],
    )
    sent.settle()
    found = sent.pipeline.query(
        "SELECT flags, toUnixTimestamp64Milli(append_time) AS time, event_type, index, origin FROM entries "
        "WHERE key LIKE 'timed-%' ORDER BY index"
    )
    assert [(int(row["flags"]), int(row["time"]), row["event_type"]) for row in found] == [
        (0, time, "grant.activated") for time in times
    ]
    origin, index = found[0]["origin"], found[0]["index"]

    def finding() -> list[dict[str, Any]]:
        return sent.pipeline.query(
            "SELECT e.event_type, subject_id, finding_rule, finding_severity, "
            "JSONExtractInt(finding_evidence, 'first_index') AS first FROM entries AS e "
            "WHERE event_type = 'finding.opened'"
        )

    opened = wait_for(finding, "the finding is stored")
    assert opened == [
        {
            "event_type": "finding.opened",
            "subject_id": origin,
            "finding_rule": "sender_timed",
            "finding_severity": "warning",
            "first": index,
        }
    ]
    shown = sent.pipeline.query("SELECT origin FROM events WHERE event_type = 'finding.opened'")
    assert [row["origin"] for row in shown] == [sent.pipeline.origin("access.findings")]
    assert sent.pipeline.metric("seal", "grantledger_sender_timed_entries_total") == len(times)


def test_a_schema_that_is_registered_later(sent: Sent) -> None:
    """Entries before the registration stay rejected, later ones are decoded, even after a restart."""
    prefix = confluent_prefix(LATER_ID)
    value = bytes(prefix) + good(6)[10:]
    sent.pipeline.stop("store")
    sent.pipeline.start("store")  # it must not depend on findings that it read before
    sent.bad.clear()
    sent.add("access.lifecycle", [{"key": b"before", "value": value}, *sent.good_events("access.lifecycle", "later")])
    wait_for(lambda: sent.rejected() == Counter({("access.lifecycle", "schema_unknown"): 1}), "it is rejected")
    registered: Event = schema_registered(
        sent.pipeline.deployment, WriterSchema(prefix, SCHEMA.text), initial=False, at=datetime.now(UTC)
    )
    # Whoever may write there has no key of the sealer's.
    key = schema_key(WriterSchema(prefix, SCHEMA.text)).encode()
    produce(sent.pipeline.cluster, "access.findings", [{"key": key, "value": ENCODER.encode(registered)}])
    sent.add("access.lifecycle", [{"key": b"unsigned", "value": value}])
    wait_for(lambda: sent.rejected()["access.lifecycle", "schema_unknown"] == 2, "it is still unknown")
    sent.pipeline.publish(registered)
    for topic in TOPICS:
        sent.add(topic, [{"key": b"after", "value": valid_in(topic, value)}])
    sent.settle()

    def found() -> list[tuple[str, str]]:
        rows = sent.pipeline.query(
            "SELECT key, decode_error, event_type FROM entries WHERE key IN ('before', 'after') "
            "ORDER BY key DESC, origin"
        )
        return [(row["key"], row["decode_error"].partition(":")[0] or row["event_type"]) for row in rows]

    assert found() == [("before", "schema_unknown"), ("after", "session.command"), ("after", "grant.activated")]
    code, report = sent.pipeline.verify()
    assert code == 0, report["problems"]
