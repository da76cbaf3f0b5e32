"""The gateway's delivery: Kafka, or the spool; in order, within a limit, and nothing twice."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog

from grantledger.base.errors import UsageError
from grantledger.producers.gateway import delivery
from grantledger.producers.gateway.spool import SpoolConnection, SpoolError, SpoolFile
from support.gateway import FakeKafka, GatewayInProcess, ReportedError
from support.waiting import wait_for


class FatalError(ReportedError):
    def fatal(self) -> bool:
        return True


impatient = partial(GatewayInProcess, spool_after=0.1)
"""A gateway that hardly waits for Kafka."""


def events(*numbers: int) -> list[dict[str, Any]]:
    return [{"event_type": "session.started", "subject": "alice", "session_id": f"s-{number}"} for number in numbers]


def sessions(kafka: FakeKafka) -> list[str]:
    return [event["session_id"] for event in kafka.events]


def spooled(gateway: GatewayInProcess) -> int:
    with closing(sqlite3.connect(gateway.spool_path)) as database:
        return int(database.execute("SELECT count(*) FROM records").fetchone()[0])


def wait_empty(gateway: GatewayInProcess) -> None:
    wait_for(lambda: spooled(gateway) == 0 or None, "the spool is empty", pause=0.02)


def test_while_kafka_is_away_events_are_on_the_spool_and_then_each_once_in_kafka(tmp_path: Path) -> None:
    with impatient(tmp_path) as gateway:
        gateway.kafka.away = True
        assert gateway.post("/v1/events", events(1, 2)).json()["stored"] == "spool"
        assert gateway.post("/v1/events", events(3)).json()["stored"] == "spool"
        assert spooled(gateway) == 3
        assert "3 events" in gateway.get("/readyz").text
        gateway.kafka.back()
        wait_empty(gateway)
        assert sessions(gateway.kafka) == ["s-1", "s-2", "s-3"]
        wait_for(lambda: gateway.post("/v1/events", events(4)).json()["stored"] == "kafka" or None, "direct again")
    assert stat.S_IMODE(gateway.spool_path.stat().st_mode) == 0o600


def test_the_log_says_when_events_go_to_the_spool_and_when_it_is_empty(tmp_path: Path) -> None:
    with impatient(tmp_path) as gateway, structlog.testing.capture_logs() as logs:
        gateway.kafka.away = True
        for number in range(3):
            gateway.post("/v1/events", events(number))
        gateway.kafka.back()
        wait_for(lambda: "spool_is_empty" in [one["event"] for one in logs] or None, "it is empty", pause=0.02)
    assert [one["event"] for one in logs] == ["events_go_to_the_spool", "spool_is_empty"]


def test_after_a_restart_the_spool_is_sent_in_order(tmp_path: Path) -> None:
    with impatient(tmp_path) as gateway:
        gateway.kafka.away = True
        for number in range(5):
            assert gateway.post("/v1/events", events(number)).status_code == 200
    with impatient(tmp_path) as again:
        wait_empty(again)
        assert sessions(again.kafka) == [f"s-{number}" for number in range(5)]


def test_events_before_the_first_answer_of_kafka_are_on_the_spool(tmp_path: Path) -> None:
    answers: list[bool] = []
    gateway = impatient(tmp_path, answers=lambda: bool(answers))
    gateway.wait_for_kafka = lambda: None  # type: ignore[method-assign]
    with gateway:
        assert gateway.post("/v1/events", events(1)).json()["stored"] == "spool"
        assert "no broker answers" in wait_for(
            lambda: text if "no broker" in (text := gateway.get("/readyz").text) else None, "it says why"
        )
        answers.append(True)
        wait_empty(gateway)
        assert sessions(gateway.kafka) == ["s-1"]


def test_past_the_limit_of_the_spool_the_answer_is_503(tmp_path: Path) -> None:
    with impatient(tmp_path, spool_bytes=1000) as gateway:
        gateway.kafka.away = True
        answers = [gateway.post("/v1/events", events(number)) for number in range(6)]
        full = [one for one in answers if one.status_code == 503]
        assert full and answers[0].status_code == 200
        assert int(full[0].headers["retry-after"]) > 0
        assert "spool is full" in full[0].json()["detail"]
        gateway.kafka.back()
        wait_empty(gateway)
        accepted = [f"s-{number}" for number, one in enumerate(answers) if one.status_code == 200]
        assert set(sessions(gateway.kafka)) >= set(accepted)


def test_readyz_says_that_the_spool_is_full(tmp_path: Path) -> None:
    with impatient(tmp_path, spool_bytes=1) as gateway:
        gateway.delivery._writer._bytes = 1
        response = gateway.get("/readyz")
        assert (response.status_code, response.headers["retry-after"]) == (503, "10")
        assert "spool is full" in response.text


def test_a_record_that_kafka_refuses_is_a_503_with_the_reason(tmp_path: Path) -> None:
    with impatient(tmp_path) as gateway:
        gateway.kafka.refuses = "Broker: Topic authorization failed"
        response = gateway.post("/v1/events", events(1))
        assert response.status_code == 503
        assert "Topic authorization failed" in response.json()["detail"]
        assert response.headers["retry-after"]


def test_a_record_on_the_spool_that_kafka_refuses_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "AGAIN_SECONDS", 0.05)
    with impatient(tmp_path) as gateway:
        gateway.kafka.away = True
        for number in (1, 2):
            assert gateway.post("/v1/events", events(number)).json()["stored"] == "spool"
        gateway.kafka.refuses = "Broker: Topic authorization failed"
        gateway.kafka.back()
        wait_for(lambda: gateway.kafka.waiting == 0 or None, "both are refused", pause=0.02)
        assert spooled(gateway) == 2
        gateway.kafka.refuses = ""
        wait_empty(gateway)
        assert sessions(gateway.kafka) == ["s-1", "s-2"]


def test_a_disk_that_fails_is_a_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with impatient(tmp_path) as gateway:
        gateway.kafka.away = True

        def fail(*_: object) -> None:
            raise SpoolError("spool.sqlite3: disk is full")

        with monkeypatch.context() as broken:
            broken.setattr(SpoolConnection, "change", fail)
            response = gateway.post("/v1/events", events(1))
            assert (response.status_code, response.json()["detail"]) == (503, "spool.sqlite3: disk is full")
            assert gateway.get("/readyz").status_code == 503
        assert gateway.post("/v1/events", events(2)).status_code == 200
        assert gateway.get("/readyz").status_code == 200


def test_many_requests_share_commits_and_lose_nothing(tmp_path: Path) -> None:
    with impatient(tmp_path) as gateway:
        gateway.kafka.away = True
        headers = {"authorization": "Bearer glt_bot"}
        answers = gateway.request(
            *(("POST", "/v1/events", {"json": events(number), "headers": headers}) for number in range(100))
        )
        assert {one.status_code for one in answers} == {200}
        gateway.kafka.back()
        wait_empty(gateway)
        assert sorted(sessions(gateway.kafka)) == sorted(f"s-{number}" for number in range(100))


def test_two_processes_cannot_share_a_spool(tmp_path: Path) -> None:
    first = SpoolFile(tmp_path / "spool.sqlite3")
    with pytest.raises(UsageError, match="another process"):
        SpoolFile(tmp_path / "spool.sqlite3")
    first.close()
    SpoolFile(tmp_path / "spool.sqlite3").close()


def test_a_file_that_is_no_spool_is_named(tmp_path: Path) -> None:
    (tmp_path / "spool.sqlite3").write_bytes(b"something else" * 1000)
    with pytest.raises(SpoolError, match=r"spool\.sqlite3: the spool cannot be opened"):
        SpoolFile(tmp_path / "spool.sqlite3")


def test_a_delivery_that_cannot_go_on_ends_the_process(tmp_path: Path) -> None:
    with impatient(tmp_path) as gateway:
        gateway.delivery.connection_problem(FatalError("Local: Fatal error"))
        assert "Fatal error" in str(gateway.failures[0])

        def fail(seconds: float) -> int:
            raise ValueError("a fault of the program")

        gateway.kafka.poll = fail  # type: ignore[method-assign]
        wait_for(lambda: len(gateway.failures) > 1 or None, "the process ends", pause=0.02)
        assert "has stopped: ValueError" in str(gateway.failures[1])
        assert {type(one).exit_code for one in gateway.failures} == {1}
