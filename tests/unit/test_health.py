"""What a process says of itself: what it waits for, and whether its loops turn."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
from prometheus_client import CollectorRegistry, Gauge

from grantledger import __version__
from grantledger.base.errors import DependencyError
from grantledger.base.health import LONG_SECONDS, TURN_SECONDS, Condition, Health
from grantledger.base.retry import retry
from grantledger.kafka.cluster import Cluster
from grantledger.runtime import process_endpoint
from grantledger.runtime.kafka_probe import KafkaProbe, short_reason
from grantledger.runtime.process_endpoint import livez, readyz
from grantledger.runtime.settings import Settings
from support.waiting import wait_for


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    health = Health(clock, clock)
    health.begin()
    return health


def test_a_process_is_not_ready_before_it_says_so(health: Health) -> None:
    assert readyz(health)[:2] == (503, ["starts"])
    health.settle("start")
    assert readyz(health)[:2] == (200, ["ready"])


def test_each_cause_is_one_line_until_it_ends(health: Health, clock: Clock) -> None:
    health.settle("start")
    health.notes("standby", "stands by: another watch is active")
    assert readyz(health)[:2] == (200, ["ready", "stands by: another watch is active"])
    health.waits("clickhouse", "waits for ClickHouse:\n refused")
    clock.now += 60
    health.waits("clickhouse", "waits for ClickHouse: refused")
    health.waits("b", "partition b is stopped")
    status, lines, content = readyz(health)
    assert (status, lines) == (
        503,
        ["waits for ClickHouse: refused", "partition b is stopped", "stands by: another watch is active"],
    )
    assert [one["since"] for one in content["waits"]] == ["1970-01-01T00:16:40+00:00", "1970-01-01T00:17:40+00:00"]
    health.settle("clickhouse", "b", "never there")
    assert readyz(health)[0] == 200


def test_what_is_asked_is_asked_each_time(health: Health) -> None:
    health.settle("start")
    answers: list[Condition | None] = [
        Condition("kafka", "waits for Kafka"),
        None,
        Condition("spool", "9", waits=False),
    ]
    health.asks("kafka", lambda: answers.pop(0))
    assert [readyz(health)[:2] for _ in range(3)] == [
        (503, ["waits for Kafka"]),
        (200, ["ready"]),
        (200, ["ready", "9"]),
    ]


def test_a_loop_that_does_not_turn_is_named(health: Health, clock: Clock) -> None:
    health.turned(loop="delivery")
    clock.now += TURN_SECONDS
    assert livez(health)[:2] == (200, ["alive"])
    clock.now += 1
    health.turned()
    assert livez(health)[:2] == (503, ["the delivery loop has not turned for 121 s; it must turn within 120 s"])


def test_a_long_step_is_announced_and_ends_with_the_next_turn(health: Health, clock: Clock) -> None:
    health.turned(within=LONG_SECONDS)
    clock.now += LONG_SECONDS
    assert not health.hanging()
    health.turned()
    clock.now += TURN_SECONDS + 1
    assert health.hanging()


def test_what_tries_again_does_not_hang_and_shortens_no_step(health: Health, clock: Clock) -> None:
    """A dependency that is away must not fail the liveness: a restart would not bring it back."""
    for _ in range(10):
        clock.now += TURN_SECONDS - 1
        health.progressed()
        assert not health.hanging()
    clock.now += TURN_SECONDS + 1
    assert health.hanging()
    health.turned(within=LONG_SECONDS)
    health.progressed()
    clock.now += LONG_SECONDS - 1
    assert not health.hanging()


def test_a_retry_is_progress(health: Health, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grantledger.base.retry.HEALTH", health)
    attempts = iter([DependencyError("away"), DependencyError("away"), None])

    def attempt() -> None:
        clock.now += TURN_SECONDS - 1
        if (error := next(attempts)) is not None:
            raise error

    retry(attempt, retryable=lambda error: isinstance(error, DependencyError), sleep=lambda _: None)
    assert not health.hanging()


@pytest.fixture
def port(health: Health) -> Iterator[int]:
    registry = CollectorRegistry()
    Gauge("counted", "Something.", registry=registry).set(3)
    with process_endpoint.process_endpoint("seal", "127.0.0.1", 0, registry, health) as port:
        yield port


def get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers["content-type"], answer.read().decode()


def test_the_endpoint_answers_people_and_programs(port: int, health: Health) -> None:
    assert get(port, "/readyz") == (503, "text/plain; charset=utf-8", "starts\n")
    assert get(port, "/livez") == (200, "text/plain; charset=utf-8", "alive\n")
    health.settle("start")
    health.waits("name", "waits for \x1b[2J")
    assert get(port, "/readyz")[2] == "waits for \\x1b[2J\n", "what others chose controls no terminal"
    status, kind, text = get(port, "/readyz", Accept="application/json")
    content = json.loads(text)
    assert (status, kind, content["process"], content["version"]) == (503, "application/json", "seal", __version__)
    assert (content["ready"], content["waits"][0]["name"], content["notes"]) == (False, "name", [])
    assert json.loads(get(port, "/livez", Accept="application/json")[2])["alive"] is True
    assert get(port, "/readyz", "HEAD")[::2] == (503, "")
    assert get(port, "/readyz", "POST")[0] == 405
    assert "counted 3.0" in get(port, "/metrics")[2]


def test_too_many_clients_are_closed_and_the_next_ones_are_answered(port: int) -> None:
    idle = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(process_endpoint.MOST_REQUESTS + 1)]
    assert idle[-1].recv(1) == b"", "there is no place for it"
    for one in idle:
        one.close()

    def answered() -> bool:
        with suppress(http.client.HTTPException, OSError):
            return get(port, "/livez")[0] == 200
        return False

    wait_for(answered, "the places are free again")


def test_kafka_that_is_away_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr("grantledger.runtime.kafka_probe.PROBE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    probe = KafkaProbe(lambda: Cluster({"bootstrap.servers": f"127.0.0.1:{port}"}), clock=clock)
    found = probe()
    assert found == Condition("kafka", f"waits for Kafka at 127.0.0.1:{port}: Connection refused")
    assert probe() is found, "many questions cause one request"
    clock.now += 5
    assert probe() == found and probe() is not found


def test_kafka_that_is_not_configured_is_said() -> None:
    found = KafkaProbe(Settings().cluster)()
    assert found is not None and "kafka_bootstrap_servers" in found.text.lower()


@pytest.mark.parametrize(
    ("before", "reason", "after"),
    [
        ("h:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: ", "Connection refused", " (after 0ms in state CONNECT)"),
        ("h:1/2: ", "Failed to resolve 'h:1': Name or service not known", " (after 4ms in state CONNECT, 3 …)"),
        ("sasl_ssl://h:1/bootstrap: ", "SASL authentication error: Invalid credentials", ""),
        ("", "Local: Timed out", ""),
    ],
)
def test_a_reason_has_no_names_of_threads_and_states(before: str, reason: str, after: str) -> None:
    assert short_reason(before + reason + after) == reason
