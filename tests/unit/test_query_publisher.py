"""Statements of people go from the spool to Kafka: in order, removed once acknowledged, kept while Kafka is away."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from grantledger.console.person_statement import Completion, PersonStatement
from grantledger.console.query_spool import QuerySpool
from grantledger.kafka.cluster import Cluster
from grantledger.kafka.errors import KafkaUnavailableError
from grantledger.kafka.publisher import Publisher, Record, signature_headers
from grantledger.ledger.keys import LocalSigner
from grantledger.ledger.source_signature import SourceSigner
from grantledger.runtime import query_publisher
from grantledger.runtime.query_publisher import QueryPublisher, published_statements
from grantledger.schemas.catalog import own_schemas
from grantledger.schemas.codec import decode
from support.waiting import wait_for

AT = datetime(2026, 7, 1, tzinfo=UTC)
DEPLOYMENT = "test.example"
SIGNER = SourceSigner(DEPLOYMENT, LocalSigner.generate())


class Brokers(Publisher):
    """Take records while they are up; a lost acknowledgement is an error after they have taken them."""

    def __init__(self) -> None:
        self.up, self.loses_acknowledgements = True, False
        self.taken: list[Record] = []
        self.producers = 0

    def __call__(self, cluster: Cluster, signer: SourceSigner) -> Brokers:
        assert signer is SIGNER
        self.producers += 1
        return self

    def publish(self, records: Iterable[Record], timeout: float = 0.0) -> int:
        assert timeout <= 10
        records = list(records)
        if self.up:
            self.taken += records
        if not self.up or self.loses_acknowledgements:
            raise KafkaUnavailableError("the brokers do not answer")
        return len(records)

    @property
    def texts(self) -> list[str]:
        return [decode(record.value or b"", own_schemas(), 0)["action"]["query"] for record in self.taken]


@pytest.fixture
def brokers(monkeypatch: pytest.MonkeyPatch) -> Brokers:
    brokers = Brokers()
    monkeypatch.setattr(query_publisher, "Publisher", brokers)
    monkeypatch.setattr(query_publisher, "backoff", lambda *_: 0.01)
    return brokers


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[QuerySpool]:
    spool = QuerySpool(tmp_path / "spool", 1000, 1 << 20)
    yield spool
    spool.close()


def ask(spool: QuerySpool, *texts: str) -> None:
    for text in texts:
        spool.complete(spool.begin(PersonStatement(AT, "analyst", text)), Completion("success", 1, 2))


def publishing(spool: QuerySpool) -> QueryPublisher:
    return QueryPublisher(spool, Cluster({"bootstrap.servers": "none"}), DEPLOYMENT, SIGNER)


def test_statements_are_published_in_order_and_then_removed(spool: QuerySpool, brokers: Brokers) -> None:
    texts = [f"SELECT {number}" for number in range(150)]
    ask(spool, *texts)
    running = spool.begin(PersonStatement(AT, "analyst", "SELECT running"))
    publisher = publishing(spool)
    while publisher.publish_batch():
        pass
    assert brokers.texts == texts
    assert {record.topic for record in brokers.taken} == {"access.queries"}
    assert {record.key for record in brokers.taken} == {"analyst"}
    assert brokers.producers == 1
    spool.complete(running, Completion("success", 1, 2))
    assert publisher.publish_batch() == 1


def test_nothing_is_removed_before_it_is_acknowledged(spool: QuerySpool, brokers: Brokers) -> None:
    ask(spool, "SELECT 1", "SELECT 2")
    publisher = publishing(spool)
    for up, loses in ((False, False), (True, True)):
        brokers.up, brokers.loses_acknowledgements = up, loses
        with pytest.raises(KafkaUnavailableError):
            publisher.publish_batch()
        assert len(spool.oldest(10)) == 2
    brokers.loses_acknowledgements = False
    assert publisher.publish_batch() == 2
    assert spool.oldest(10) == []
    # The same bytes and the same signature: readers see two statements, not four.
    first, second = brokers.taken[:2], brokers.taken[2:]
    assert first == second
    assert [signature_headers(SIGNER, record) for record in first] == [
        signature_headers(SIGNER, record) for record in second
    ]


def test_publishing_goes_on_when_kafka_returns(spool: QuerySpool, brokers: Brokers) -> None:
    brokers.up = False
    with published_statements(spool, Cluster({}), DEPLOYMENT, SIGNER):
        ask(spool, "SELECT 1")
        wait_for(lambda: brokers.producers > 2, "attempts fail, each with a new producer", pause=0.01)
        ask(spool, "SELECT 2")  # statements are accepted meanwhile
        brokers.up = True
        wait_for(lambda: not spool.oldest(1), "the spool is empty", pause=0.01)
    assert brokers.texts == ["SELECT 1", "SELECT 2"]


def test_a_stop_publishes_what_is_left(spool: QuerySpool, brokers: Brokers) -> None:
    with published_statements(spool, Cluster({}), DEPLOYMENT, SIGNER):
        ask(spool, *(f"SELECT {number}" for number in range(150)))
    assert len(brokers.taken) == 150
    assert spool.oldest(1) == []
    assert "query-publisher" not in [thread.name for thread in threading.enumerate()]


def test_a_stop_while_kafka_is_away_keeps_the_statements(spool: QuerySpool, brokers: Brokers) -> None:
    brokers.up = False
    with published_statements(spool, Cluster({}), DEPLOYMENT, SIGNER):
        ask(spool, "SELECT 1")
    assert "query-publisher" not in [thread.name for thread in threading.enumerate()]
    assert [one.statement.text for one in spool.oldest(10)] == ["SELECT 1"]


def test_a_spool_that_cannot_be_read_does_not_end_the_publisher(tmp_path: Path, brokers: Brokers) -> None:
    folder = tmp_path / "spool"
    folder.write_text("no folder")
    spool = QuerySpool(folder, 10, 1 << 20)
    with published_statements(spool, Cluster({}), DEPLOYMENT, SIGNER):
        folder.unlink()
        wait_for(lambda: not spool.oldest(1), "it can be read", pause=0.01)
        ask(spool, "SELECT 1")
        wait_for(lambda: brokers.texts == ["SELECT 1"], "the statement is published")
    spool.close()
