"""The Kafka cluster: what is wrong with an address or a password is found in seconds."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from grantledger.kafka import cluster
from grantledger.kafka.cluster import Cluster
from grantledger.kafka.errors import KafkaUnavailableError
from grantledger.runtime.loopback_ports import free_port


def test_a_wrong_address_is_named() -> None:
    servers = f"127.0.0.1:{free_port()}"
    with pytest.raises(KafkaUnavailableError, match=rf"no broker answers at {servers} .*kafka_bootstrap_servers"):
        Cluster({"bootstrap.servers": servers}).check_answers(0.5)


def test_a_wrong_password_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused:
        def __init__(self, options: dict[str, Any], logger: object) -> None:
            self._report = options["error_cb"]

        def list_topics(self, timeout: float) -> None:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))

        def poll(self, seconds: float) -> None:
            for code in (KafkaError._AUTHENTICATION, KafkaError._ALL_BROKERS_DOWN):
                self._report(KafkaError(code, "SASL authentication error: Authentication failed"))

    monkeypatch.setattr(cluster, "AdminClient", Refused)
    with pytest.raises(KafkaUnavailableError, match=r"refuses the connection: SASL .*kafka_sasl"):
        Cluster({"bootstrap.servers": "kafka:9092"}).check_answers()
