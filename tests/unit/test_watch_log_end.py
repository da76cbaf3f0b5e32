"""The end of the input log as the watch reads it, also while a person deletes and creates the topic."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from grantledger.kafka.errors import KafkaUnavailableError
from grantledger.processors.watch import kafka_findings
from grantledger.processors.watch.kafka_findings import KafkaFindings
from grantledger.processors.watch.shard import ONLY_SHARD
from grantledger.schemas.event import LIFECYCLE_TOPIC

MISSING = KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))


def findings() -> KafkaFindings:
    made = KafkaFindings.__new__(KafkaFindings)
    made._cluster, made._partition, made._shard = SimpleNamespace(physical=str), 0, ONLY_SHARD  # type: ignore[assignment]
    return made


def test_a_topic_that_is_missing_for_a_moment_ends_no_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def end_offset(*_: Any, **__: Any) -> int:
        calls.append("end")
        if len(calls) == 1:
            raise MISSING
        return 7

    def identify_topics(*_: Any) -> dict[str, Any]:
        calls.append("identity")
        if calls.count("identity") == 1:
            raise KafkaUnavailableError("topic access.lifecycle does not exist") from MISSING
        return {LIFECYCLE_TOPIC: SimpleNamespace(topic_id=b"id", partitions=1)}

    monkeypatch.setattr(kafka_findings, "end_offset", end_offset)
    monkeypatch.setattr(kafka_findings, "identify_topics", identify_topics)
    assert findings().log_end() == (b"id", 7)
    assert calls == ["end", "end", "identity", "end", "identity"]


def test_brokers_that_do_not_answer_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def end_offset(*_: Any, **__: Any) -> int:
        raise KafkaUnavailableError("Kafka does not answer") from KafkaException(KafkaError(KafkaError._TRANSPORT))

    monkeypatch.setattr(kafka_findings, "end_offset", end_offset)
    with pytest.raises(KafkaUnavailableError):
        findings().log_end()
