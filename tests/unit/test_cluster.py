"""The Kafka cluster: what is wrong with an address or a password is found in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from grantledger.kafka import cluster
from grantledger.kafka.cluster import Cluster
from grantledger.kafka.errors import KafkaOptionsError, KafkaUnavailableError
from grantledger.runtime.loopback_ports import free_port
from grantledger.runtime.process import status_path
from grantledger.runtime.settings import Settings
from support.command import invoke


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


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"securty.protocol": "SSL"}, 'No such configuration property: "securty.protocol"'),
        ({"security.protocol": "SLS"}, 'Invalid value "SLS" for configuration property "security.protocol"'),
        (
            {"security.protocol": "SSL", "ssl.ca.location": "/no/ca.pem"},
            "ssl.ca.location: /no/ca.pem cannot be read: No such file or directory",
        ),
        (
            {"security.protocol": "SSL", "ssl.ca.location": __file__},
            f"ssl.ca.location: {__file__} is not usable: ssl.ca.location failed: ",
        ),
        (
            {"max.in.flight.requests.per.connection": 9},
            "`max.in.flight` must be set <= 5 when `enable.idempotence` is true",
        ),
        ({"error_cb": "x"}, "expected error_cb property as a callable function"),
    ],
)
def test_a_wrong_option_is_an_error_of_the_settings(options: dict[str, str | int], problem: str) -> None:
    settings = Settings(kafka_bootstrap_servers="127.0.0.1:9", kafka_options=options)
    with pytest.raises(KafkaOptionsError) as raised:
        settings.cluster()
    assert str(raised.value).startswith(f"kafka_options: {problem}") and raised.value.exit_code == 2
    assert "\n" not in str(raised.value)


def test_correct_options_are_accepted() -> None:
    options: dict[str, str | int] = {"security.protocol": "SSL", "socket.timeout.ms": 9000}
    assert Settings(kafka_bootstrap_servers="127.0.0.1:9", kafka_options=options).cluster().options.keys() > set(
        options
    )


def test_a_command_prints_a_wrong_option_in_one_line(tmp_path: Path) -> None:
    environment = {
        "GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "GRANTLEDGER_KAFKA_OPTIONS": '{"securty.protocol": "SSL"}',
        "GRANTLEDGER_DEPLOYMENT": "test.example",
    }
    expected = 'grantledger: kafka_options: No such configuration property: "securty.protocol"\n'
    path = status_path(tmp_path, "seal")
    path.parent.mkdir()
    path.write_text('{"pid": 1}')
    for arguments in (("topics", "check"), ("init",), ("status",), ("run", "watch")):
        done = invoke(*arguments, "--data", str(tmp_path), env=environment)
        assert "Traceback" not in done.stderr
        assert (done.exit_code, done.stderr.splitlines(keepends=True)[-1]) == (2, expected), arguments
