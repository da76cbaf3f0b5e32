from __future__ import annotations

import base64
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from grantledger.base.errors import EXIT_DEPENDENCY, EXIT_USAGE, GrantledgerError
from grantledger.producers import (
    Client,
    ClientError,
    Delivery,
    DeliveryError,
    EventSource,
    EventTooLargeError,
    InvalidEventError,
    OptionError,
    QueueFullError,
    RegistryError,
    Resource,
    SchemaRegistry,
    Subject,
    grant_activated,
    session_command,
    session_started,
)
from grantledger.producers.adapters import Location, RecordError, UnknownToolError
from grantledger.producers.input_files import InputError
from grantledger.producers.options import safe_options
from grantledger.schemas.catalog import SchemaCatalog, WriterSchema, event_schema
from grantledger.schemas.codec import decode
from grantledger.schemas.event import Actor, Event
from grantledger.schemas.framing import confluent_prefix

BROKERS = {"bootstrap.servers": "nowhere:9092"}


class Record:
    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7


class FakeProducer:
    """Acknowledges on poll and flush. Can be set to be full, to reject, to fail or to stay silent."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.sent: list[tuple[str, bytes, bytes]] = []
        self.waiting: list[Callable[[Any, Any], None]] = []
        self.full_for = 0
        self.refuse: Exception | None = None
        self.fail_next = False
        self.silent = False
        self.headers: list[list[tuple[str, bytes]]] = []
        self.partitions: list[int] = []

    def produce(
        self,
        topic: str,
        *,
        value: bytes,
        key: bytes,
        partition: int,
        headers: list[tuple[str, bytes]],
        on_delivery: Callable[[Any, Any], None],
    ) -> None:
        if self.full_for:
            self.full_for -= 1
            raise BufferError("queue full")
        if self.refuse is not None:
            raise self.refuse
        self.sent.append((topic, key, value))
        self.headers.append(headers)
        self.partitions.append(partition)
        self.waiting.append(on_delivery)

    def poll(self, timeout: float) -> int:
        return self._serve()

    def flush(self, timeout: float) -> int:
        self._serve()
        return len(self.waiting)

    def _serve(self) -> int:
        if self.silent:
            return 0
        served, self.waiting = self.waiting, []
        for report in served:
            if self.fail_next:
                self.fail_next = False
                report(KafkaError(KafkaError._MSG_TIMED_OUT), None)
            else:
                report(None, Record())
        return len(served)


def make_client(**more: Any) -> tuple[Client, FakeProducer]:
    made: list[FakeProducer] = []

    def factory(options: dict[str, Any]) -> FakeProducer:
        made.append(FakeProducer(options))
        return made[0]

    arguments = {"system": "deploy-bot", "instance": "eu-1", **more}
    return Client(BROKERS, make_producer=factory, **arguments), made[0]


def an_event(**more: Any) -> Event:
    return grant_activated(
        subject="alice",
        resource=Resource("database", "orders"),
        entitlement="readwrite",
        expires_at=datetime(2030, 1, 1, tzinfo=UTC),
        **more,
    )


def read(value: bytes) -> dict[str, Any]:
    return decode(value, SchemaCatalog((event_schema(),)), 0)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("acks", 1),
        ("acks", "0"),
        ("request.required.acks", 1),
        ("enable.idempotence", False),
        ("enable.idempotence", "false"),
        ("retries", 0),
        ("delivery.report.only.error", True),
        ("transactional.id", "x"),
        ("on_delivery", print),
        ("default.topic.config", {"acks": 1}),
    ],
)
def test_options_that_weaken_delivery_are_refused(option: str, value: Any) -> None:
    with pytest.raises(OptionError):
        safe_options({**BROKERS, option: value})


def test_missing_brokers_are_named() -> None:
    with pytest.raises(OptionError, match=r"bootstrap\.servers"):
        Client({})


def test_safe_options_are_set_and_may_be_repeated() -> None:
    options = safe_options({**BROKERS, "acks": -1, "enable.idempotence": True, "linger.ms": 50})
    assert (options["acks"], options["enable.idempotence"], options["linger.ms"]) == ("all", True, 50)


def test_real_librdkafka_accepts_the_options_and_names_a_bad_one() -> None:
    Client(BROKERS).close(timeout=0)
    with pytest.raises(OptionError, match="nonsense"):
        Client({**BROKERS, "nonsense": 1})


def test_send_stamps_source_and_seq_and_uses_topic_and_key() -> None:
    client, producer = make_client()
    with client:
        first = client.send(an_event(grant_id="g1"))
        second = client.send(session_command(subject="alice", session_id="s1", command="ls"))
    assert (first.source.system, first.source.instance, first.source.seq) == ("deploy-bot", "eu-1", 1)
    assert second.source.seq == 1  # each topic has a counter of its own: who reads one sees its gaps
    restarted, _ = make_client()
    with restarted:
        other = restarted.send(an_event(grant_id="g1"))
    assert first.source.sender == second.source.sender != other.source.sender is not None
    assert [(topic, key) for topic, key, _ in producer.sent] == [
        ("access.lifecycle", b"g1"),
        ("access.activity", b"s1"),
    ]
    assert read(producer.sent[0][2])["event_id"] == first.event_id
    assert client.acknowledged == 2


def test_an_event_of_another_tool_keeps_its_source() -> None:
    client, _ = make_client()
    native = Event(
        event_type="session.started",
        occurred_at=datetime.now(UTC),
        source=EventSource("teleport", "t1", "u1", "session.start"),
        subject=Subject("alice"),
        actor=Actor("alice"),
        session_id="s",
    )
    with client:
        assert client.send(native) == native
        assert client.send(an_event()).source.seq == 1


def test_an_event_without_source_needs_a_named_sender() -> None:
    client, _ = make_client(system=None)
    with client, pytest.raises(InvalidEventError, match=r"source\.system"):
        client.send(an_event())


def test_the_same_native_id_gives_the_same_event_id() -> None:
    client, _ = make_client()
    with client:
        ids = {client.send(session_started(subject="a", session_id="s", native_id="n")).event_id for _ in range(2)}
    assert len(ids) == 1


def test_an_invalid_event_is_refused_and_uses_no_number() -> None:
    client, producer = make_client()
    broken = Event(
        event_type="grant.activated",
        occurred_at=datetime.now(UTC),
        source=EventSource("", "", "n", "event"),
        subject=Subject("a"),
        actor=Actor("a"),
    )
    with client:
        with pytest.raises(InvalidEventError, match="grant_id"):
            client.send(broken)
        assert client.send(an_event()).source.seq == 1
    assert len(producer.sent) == 1


@pytest.mark.parametrize(
    "broken", [{"requested_seconds": 2**70}, {"reason": "\ud800"}, {"ticket": 7}, {"client_ip": b"1.2.3.4"}]
)
def test_values_outside_the_schema_are_an_invalid_event(broken: dict[str, Any]) -> None:
    client, producer = make_client()
    with client, pytest.raises(InvalidEventError, match="does not fit the schema"):
        client.send(replace(an_event(), **broken))
    assert producer.sent == []


def test_pipeline_types_are_not_for_senders() -> None:
    client, producer = make_client()
    event = Event(
        event_type="key.changed",
        occurred_at=datetime.now(UTC),
        source=EventSource("x", "y", "n", "event"),
        subject=Subject("a"),
        actor=Actor("a"),
    )
    with client, pytest.raises(InvalidEventError, match="pipeline"):
        client.send(event)
    assert producer.sent == []


def test_a_full_queue_is_waited_for() -> None:
    client, producer = make_client()
    producer.full_for = 3
    with client:
        client.send(an_event())
    assert len(producer.sent) == 1


def test_a_full_queue_is_reported_and_the_event_can_be_sent_again() -> None:
    client, producer = make_client(queue_timeout=0.0)
    producer.full_for = 1
    event = an_event()
    with client:
        with pytest.raises(QueueFullError, match="stayed full"):
            client.send(event)
        assert client.send(event).source.seq == 1
    assert len(producer.sent) == 1


def test_a_failed_delivery_is_raised_by_the_next_call_once() -> None:
    client, producer = make_client()
    producer.fail_next = True
    failed = client.send(an_event())
    with pytest.raises(DeliveryError) as caught:
        client.send(an_event())
    assert [failure.event_id for failure in caught.value.failures] == [failed.event_id]
    assert "timed out" in str(caught.value)
    client.send(an_event())
    client.close()


def test_a_failed_delivery_is_raised_by_flush_and_on_leaving() -> None:
    client, producer = make_client()
    client.send(an_event())
    producer.fail_next = True
    with pytest.raises(DeliveryError):
        client.flush()
    with pytest.raises(DeliveryError), client:
        producer.fail_next = True
        client.send(an_event())


def test_silence_is_a_failure_too() -> None:
    client, producer = make_client()
    producer.silent = True
    event = client.send(an_event())
    with pytest.raises(DeliveryError, match="not acknowledged") as caught:
        client.flush(0.0)
    assert caught.value.failures[0].event_id == event.event_id
    producer.silent = False
    client.close()
    assert client.acknowledged == 1


def test_leaving_with_another_error_keeps_it_and_notes_the_lost_events() -> None:
    client, producer = make_client()
    with pytest.raises(KeyError) as caught, client:
        client.send(an_event())
        producer.fail_next = True
        raise KeyError("theirs")
    assert any("not delivered" in note for note in caught.value.__notes__)


def test_an_immediate_rejection_by_librdkafka_is_a_delivery_error() -> None:
    client, producer = make_client()
    producer.refuse = KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    with pytest.raises(DeliveryError):
        client.send(an_event())
    producer.refuse = None
    client.close()


def test_an_event_larger_than_a_record_is_refused_before_it_is_queued() -> None:
    client, producer = make_client()
    with client, pytest.raises(EventTooLargeError, match="raw"):
        client.send(session_command(subject="a", session_id="s", command="x" * 1_000_000))
    assert producer.sent == []


def test_on_delivery_hears_of_every_event() -> None:
    heard: list[Delivery] = []
    client, producer = make_client(on_delivery=heard.append)
    client.send(an_event())
    client.flush()
    producer.fail_next = True
    client.send(an_event())
    with pytest.raises(DeliveryError):
        client.close()
    assert [(delivery.offset, delivery.error is None) for delivery in heard] == [(7, True), (None, False)]


def test_a_closed_client_and_one_from_another_process_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = make_client()
    real = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: real + 1)
    with pytest.raises(ClientError, match="fork"):
        client.send(an_event())
    client.close()
    monkeypatch.undo()
    client.close()
    with pytest.raises(ClientError, match="closed"):
        client.send(an_event())


def test_threads_share_one_counter_without_gaps() -> None:
    client, producer = make_client()
    sent: list[int] = []

    def work() -> None:
        for _ in range(50):
            seq = client.send(session_started(subject="a")).source.seq
            assert seq is not None
            sent.append(seq)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    assert sorted(sent) == list(range(1, 201))
    assert [read(value)["source"]["seq"] for _, _, value in producer.sent] == list(range(1, 201))


class Registry(HTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, Any], str | None]] = []
        self.answer: tuple[int, bytes] = (200, b'{"id": 4711}')

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Registry

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body, self.headers.get("Authorization")))
        status, text = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[Registry]:
    server = Registry()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_registry_framing(registry: Registry) -> None:
    client, producer = make_client(registry=SchemaRegistry(registry.url, username="u", password="p"))
    with client:
        client.send(an_event())
        client.send(an_event())
    path, body, authorization = registry.asked[0]
    assert len(registry.asked) == 1
    assert path == "/subjects/access.lifecycle-value/versions"
    assert body == {"schemaType": "AVRO", "schema": event_schema().text}
    assert authorization == "Basic " + base64.b64encode(b"u:p").decode()
    value = producer.sent[0][2]
    assert value[:5] == confluent_prefix(4711)
    catalog = SchemaCatalog((WriterSchema(confluent_prefix(4711), event_schema().text),))
    assert decode(value, catalog, 0)["subject"]["id"] == "alice"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, b"{}"), "user name and password"),
        ((409, b"reader field missing"), "incompatible"),
        ((500, b"boom"), "HTTP 500"),
        ((200, b"<html>"), "not JSON"),
        ((200, b"[]"), "not a JSON object"),
        ((200, b'{"id": "x"}'), "no schema id"),
        ((200, b'{"id": true}'), "no schema id"),
    ],
)
def test_registry_refusals_are_clear(registry: Registry, answer: tuple[int, bytes], said: str) -> None:
    registry.answer = answer
    client, producer = make_client(registry=SchemaRegistry(registry.url))
    with client, pytest.raises(RegistryError, match=said):
        client.send(an_event())
    assert producer.sent == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "localhost:8081", "http://user:pass@h:1", "http://"])
def test_registry_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(OptionError, match="url"):
        SchemaRegistry(url)


def test_registry_needs_both_or_neither_credential() -> None:
    with pytest.raises(OptionError, match="both"):
        SchemaRegistry("http://h:1", username="u")


def test_registry_not_reachable(registry: Registry) -> None:
    url = registry.url
    registry.shutdown()
    registry.server_close()
    with pytest.raises(RegistryError, match="not reachable"):
        SchemaRegistry(url, timeout=1).register("t", "{}")


@pytest.mark.parametrize(
    ("error", "exit_code", "retryable"),
    [
        (OptionError("acks", "wrong"), EXIT_USAGE, False),
        (UnknownToolError("x"), EXIT_USAGE, False),
        (InputError("x"), EXIT_USAGE, False),
        (RecordError(Location("f", 1), None, "wrong"), EXIT_USAGE, False),
        (ClientError("x"), EXIT_DEPENDENCY, True),
        (DeliveryError(()), EXIT_DEPENDENCY, True),
        (QueueFullError("x"), EXIT_DEPENDENCY, True),
        (RegistryError("x"), EXIT_DEPENDENCY, True),
    ],
)
def test_errors_have_an_exit_code_and_state_whether_a_retry_helps(
    error: GrantledgerError, exit_code: int, retryable: bool
) -> None:
    assert (error.exit_code, error.retryable) == (exit_code, retryable)


def test_lifecycle_shards_place_events_by_their_tenant() -> None:
    client, producer = make_client(lifecycle_shards=2)
    client.send(an_event(grant_id="g1", tenant="globex"))
    client.send(session_command(subject="alice", session_id="s1", command="ls"))
    client.close()
    assert [(key, partition) for (_, key, _), partition in zip(producer.sent, producer.partitions, strict=True)] == [
        (b"globex", 1), (b"s1", -1),
    ]  # fmt: skip


def test_the_example_of_the_page_sends_the_life_of_a_grant(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    producers: list[FakeProducer] = []

    def make(options: dict[str, Any]) -> FakeProducer:
        producers.append(FakeProducer(options))
        return producers[-1]

    monkeypatch.setattr(Client.__init__, "__kwdefaults__", {**Client.__init__.__kwdefaults__, "make_producer": make})
    exec(compile(example, "docs/client.md", "exec"), {"password": "secret"})
    events = [decode(value, SchemaCatalog((event_schema(),)), 0) for _, _, value in producers[0].sent]
    assert [event["event_type"] for event in events] == [
        "request.created", "request.approved", "grant.activated", "session.started", "session.command", "session.ended",
        "grant.revoked",
    ]  # fmt: skip
    assert {event["grant_id"] for event in events[2:]} == {"g-17"}
